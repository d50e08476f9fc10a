"""Whether the tracks of a run are those of its study: dataset, completeness and split, held against the dataset itself.

What a store says of its splits is not enough: `mgc split` may have moved tracks since.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.registry.recipes import Dataset
from mgc.models.runs.selection import Selection
from mgc.pipeline.datasets import reopen
from mgc.pipeline.datasets.published import published
from mgc.pipeline.datasets.splits import SHARES
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.store.store import Store

#: By how much the share of a split may differ from the study's: artists, and what cannot be used, move it a little.
TOLERANCE = 0.02


def differences(study: Dataset, store: Store, selection: Selection, *, limited: bool = False) -> list[str]:
    """What differs from the study, ours first; empty where nothing does.

    Args:
        study: what it trained on.
        store: the first store of the run.
        selection: its tracks.
        limited: whether they were limited on request, so that not all of them are expected.

    Raises:
        DatasetError: the dataset is no longer there to compare with.
    """
    name, known = store.dataset["name"], published(study.name)
    if set(store.dataset["genres"]) != set(known.genres):
        return [f"dataset {name} for {study.name}"]
    try:
        dataset = reopen(store.dataset)
    except DatasetError as error:
        raise DatasetError(f"the tracks of {name} cannot be compared: {error.problem}", error.remedy) from error
    if dataset.published != study.name:
        return [f"dataset {name} for {study.name}"]
    found = [] if limited else _left_out(dataset.tracks, known.faulty.keys(), selection.tracks)
    if study.split == "official":
        return [*found, *_moved(dataset.tracks, selection.tracks)]
    return [*found, *([] if limited else _uneven(selection.tracks))]


def _left_out(dataset: pa.Table, faulty: Iterable[str], ours: pa.Table) -> list[str]:
    """Tracks that the study had and the run has not; the faulty ones may be in use or not."""
    sound = dataset.filter(pc.invert(pc.is_in(dataset["path"], pa.array(faulty, pa.string()))))
    gone = sound["track_id"].filter(pc.invert(pc.is_in(sound["track_id"], ours["track_id"].combine_chunks())))
    return [f"{len(gone):,} of {len(sound):,} tracks left out, such as {gone[0]}"] if len(gone) else []


def _moved(dataset: pa.Table, ours: pa.Table) -> list[str]:
    """Tracks in another split than that of the dataset."""
    official = dataset["split"].take(pc.index_in(ours["track_id"], dataset["track_id"].combine_chunks()))
    moved = pc.invert(pc.fill_null(pc.equal(official, ours["split"]), False))
    table = pa.table({"id": ours["track_id"], "ours": ours["split"], "official": official}).filter(moved)
    if not len(table):
        return []
    first = table.slice(0, 1).to_pylist()[0]
    return [
        f"{len(table):,} tracks in other splits than the official ones, such as {first['id']} in {first['ours']} "
        f"for {first['official'] or 'none'}"
    ]


def _uneven(ours: pa.Table) -> list[str]:
    """Splits of other sizes."""
    shares = {split: pc.mean(pc.equal(ours["split"], split).cast(pa.float64())).as_py() for split in SHARES}
    if all(abs(shares[split] - SHARES[split]) <= TOLERANCE for split in SHARES):
        return []
    sizes = ("/".join(f"{share:.0%}".rstrip("%") for share in of.values()) for of in (shares, SHARES))
    return ["splits of {} for {}".format(*sizes)]
