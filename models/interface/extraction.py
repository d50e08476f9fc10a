"""Extraction for scripts and notebooks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mgc.models.interface.store import FeatureStore, PathLike
from mgc.pipeline.datasets import open_dataset
from mgc.pipeline.datasets.clips import choose_splits
from mgc.pipeline.datasets.labels import Recorded
from mgc.pipeline.extraction import extract as extraction
from mgc.pipeline.extraction.opening import recorded_labels
from mgc.pipeline.features import parse_feature
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.storage.urls import parse_place
from mgc.pipeline.store import summary
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.workspace import Workspace


def extract(
    dataset: PathLike,
    feature: str | Sequence[str] = "mel",
    *,
    out: PathLike | None = None,
    seconds: float | None = None,
    overlap: float | None = None,
    format: str = "auto",
    metadata: PathLike | None = None,
    subset: str | None = None,
    genre_column: str | None = None,
    splits: PathLike | None = None,
    seed: int = 0,
    workers: int | None = None,
    scheduler: str | None = None,
    echo: Callable[[str], None] = lambda line: None,
) -> list[FeatureStore]:
    """Decode a dataset once and store features of it, as `mgc extract` does; a second call changes nothing.

    Files are decoded by worker processes, which import the script that calls this function: call it below
    `if __name__ == "__main__":`.

    Args:
        dataset: audio folder, or a CSV or Parquet list with `path` and `genre`; a path or URL.
        feature: a feature such as `mel` or `mel:n_mels=64,hop_length=256`, or several.
        out: folder or URL of the stores; None for `features/<dataset>` in the workspace (`$MGC_DATA`, else `data`).
        seconds: length of a slice in seconds; None keeps that of a store, and is 4 s for a new one.
        overlap: overlap of slices, a fraction in [0, 1); None as `seconds`, and 0.5.
        format: `auto`, `fma`, `gtzan`, `folder`, `list` or that of a plug-in.
        metadata: FMA: `tracks.csv` or its folder.
        subset: FMA: `small`, `medium`, `large` or `full`.
        genre_column: FMA and lists: the column that holds the genre.
        splits: file of splits, or the name of a published list.
        seed: seed of splits and shard layout.
        workers: number of worker processes; None for one per processor.
        scheduler: address of a running Dask scheduler to use instead.
        echo: function that is called with each line on the progress of the work, such as `print`.

    Returns:
        The finished stores, one for each feature.

    Raises:
        MgcError: there is no dataset, an argument is out of its range, a store cannot be written, or no track
            is usable.

    >>> import mgc
    >>> [mel] = mgc.extract("music", "mel", out="features", seconds=3)
    >>> mel.tracks.num_rows
    12
    """
    names = [feature] if isinstance(feature, str) else feature
    specs = list(dict.fromkeys(parse_feature(name) for name in names))
    slicing = _slicing(seconds, overlap)
    workspace = Workspace.default()
    folder = _place(out)

    def stores_of(name: str) -> Place:
        return folder or workspace.features(name)

    def recorded(name: str, root: Place) -> Recorded | None:
        return recorded_labels(stores_of(name), root)

    opened = open_dataset(
        parse_place(os.fspath(dataset)),
        format=format,
        metadata=_place(metadata),
        subset=subset,
        genre_column=genre_column,
        cache_folder=folder if isinstance(folder, Path) else workspace.root / "features",
        recorded=recorded,
    )
    for note in opened.notes:
        echo(note)
    chosen, unlisted = choose_splits(None if splits is None else Path(splits), opened.tracks, opened.source)
    options = extraction.Options(
        slicing=slicing,
        seed=seed,
        splits=chosen,
        unlisted=unlisted,
        workers=workers,
        scheduler=scheduler,
    )
    results = extraction.extract(opened, specs, stores_of(opened.name), options, echo=echo)
    for result in results:
        summary.require_usable_tracks(summary.summarise(result.store), None)
    return [FeatureStore(result.store) for result in results]


def _place(path: PathLike | None) -> Place | None:
    """Parse a path or URL that may be None."""
    return None if path is None else parse_place(os.fspath(path))


def _slicing(seconds: float | None, overlap: float | None) -> Slicing | None:
    """Return the slicing that is asked for; None if none is."""
    if seconds is None and overlap is None:
        return None
    default = Slicing()
    return Slicing(
        seconds=default.seconds if seconds is None else seconds,
        overlap=default.overlap if overlap is None else overlap,
    )
