"""Comparison of a run's tracks with those of its study: dataset, completeness and splits.

The splits are compared with the dataset itself, as `mgc split` may have changed those of the store.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.registry.recipes import Dataset
from mgc.models.runs.selection import Selection
from mgc.pipeline.datasets import reopen
from mgc.pipeline.datasets.published import published_dataset
from mgc.pipeline.datasets.splits import SHARES
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.store.store import Store

#: Tolerated difference of a split's share from the study's: keeping artists whole and leaving out unusable tracks move
#: it a little.
TOLERANCE = 0.02


def differences(study: Dataset, store: Store, selection: Selection, *, limited: bool = False) -> list[str]:
    """List the differences of a run's tracks from the study's.

    Args:
        study: dataset and split of the study.
        store: first store of the run.
        selection: tracks of the run.
        limited: True if the user limited the number of tracks; missing ones then make no difference.

    Returns:
        Differences such as `dataset gtzan for fma_small` (the run's, then the study's); empty if there are none.

    Raises:
        DatasetError: the dataset can no longer be opened.
    """
    name, known = store.dataset["name"], published_dataset(study.name)
    if set(store.dataset["genres"]) != set(known.genres):
        return [other_dataset(study, name)]
    try:
        dataset = reopen(store.dataset)
    except DatasetError as error:
        raise DatasetError(f"the tracks of {name} cannot be compared: {error.problem}", error.remedy) from error
    if dataset.published != study.name:
        return [other_dataset(study, name)]
    missing = [] if limited else _missing_tracks(dataset.tracks, known.faulty.keys(), selection.tracks)
    if selection.split_seed is not None:  # a split of slices, which `train` compares with the study's
        return missing
    if study.split == "official":
        return [*missing, *_moved_tracks(dataset.tracks, selection.tracks)]
    return [*missing, *([] if limited else _uneven_splits(selection.tracks))]


def other_dataset(study: Dataset, name: str) -> str:
    """The difference of a run on a dataset that is not the study's."""
    return f"dataset {name} for {study.name}"


def _missing_tracks(dataset: pa.Table, faulty: Iterable[str], tracks: pa.Table) -> list[str]:
    """Report tracks of the dataset that the run lacks, except those known to be faulty."""
    sound = dataset.filter(pc.invert(pc.is_in(dataset["path"], pa.array(faulty, pa.string()))))
    missing = sound["track_id"].filter(pc.invert(pc.is_in(sound["track_id"], tracks["track_id"].combine_chunks())))
    if not len(missing):
        return []
    return [f"{len(missing):,} of {len(sound):,} tracks left out, such as {missing[0]}"]


def _moved_tracks(dataset: pa.Table, tracks: pa.Table) -> list[str]:
    """Report tracks that are not in the dataset's official split."""
    official = dataset["split"].take(pc.index_in(tracks["track_id"], dataset["track_id"].combine_chunks()))
    moved = pc.invert(pc.fill_null(pc.equal(official, tracks["split"]), False))
    table = pa.table({"id": tracks["track_id"], "split": tracks["split"], "official": official}).filter(moved)
    if not len(table):
        return []
    example = table.slice(0, 1).to_pylist()[0]
    return [
        f"{len(table):,} tracks in other splits than the official ones, such as {example['id']} in {example['split']} "
        f"for {example['official'] or 'none'}"
    ]


def _uneven_splits(tracks: pa.Table) -> list[str]:
    """Report splits whose shares of the tracks differ from 80/10/10."""
    shares = {split: pc.mean(pc.equal(tracks["split"], split).cast(pa.float64())).as_py() for split in SHARES}
    if all(abs(shares[split] - SHARES[split]) <= TOLERANCE for split in SHARES):
        return []
    run, study = ("/".join(f"{share:.0%}".rstrip("%") for share in each.values()) for each in (shares, SHARES))
    return [f"splits of {run} for {study}"]
