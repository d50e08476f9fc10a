"""Stores whose dataset has moved (`mgc extract --moved`): its files are compared by content, and nothing is decoded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.tracks import rows_differ
from mgc.pipeline.errors import StoreError
from mgc.pipeline.extraction import duplicates, signatures
from mgc.pipeline.extraction.opening import describe, set_dataset
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.store import manifest
from mgc.pipeline.store.siblings import siblings
from mgc.pipeline.store.store import Store

_COLUMNS = ["track_id", "path", "size", "content_hash"]
#: Entries of `Store.dataset` that say where a dataset is, and how it is read.
_PLACE = ("root", "source", "format", "options")


def require_store(paths: list[Place]) -> None:
    """Require that one of the stores of a call exists.

    Raises:
        StoreError: none does.
    """
    if not any((path / "store.json").exists() or (path / "shards").exists() for path in paths):
        problem = f"--moved: {paths[0]} does not exist"
        raise StoreError(problem, "name the folder of the dataset's stores with --out, or their former --name")


def follow(
    stores: list[Store], dataset: Dataset, locks: contextlib.ExitStack, echo: Callable[[str], None]
) -> tuple[list[Store], dict[str, str]]:
    """Give stores, and their siblings, the new place of their dataset.

    If the process is killed, some of the stores have the old place; the same call then moves these, too.

    Args:
        stores: the stores of the call, locked.
        dataset: the dataset at its new place.
        locks: keeps the locks of the siblings.
        echo: function that prints a line for the user.

    Returns:
        The stores, opened again; content hash of each file that was compared, by track id.

    Raises:
        StoreError: less than half of the files are those that a store was made from; or another process writes to a
            sibling. No store has changed then, or only those that were made from elsewhere.
    """
    hashes: dict[str, str] = {}
    moved = False
    for store in stores:
        store = Store.open(store.path)  # its root may have changed with that of the store before
        if store.dataset["root"] == str(dataset.root):
            continue
        group = siblings(store)
        for other in group:
            if all(other.path != mine.path for mine in stores) and not other.path.name.endswith(".old"):
                locks.enter_context(other.lock())
        hashes |= _compare(store, group, dataset, echo)
        for other in (*group, store):
            _set_place(other, describe(dataset, 0))
        moved = True
    if not moved:
        echo(f"nothing has moved: the stores were made from {dataset.root}")
    return [Store.open(store.path) for store in stores], hashes


def _compare(store: Store, group: list[Store], dataset: Dataset, echo: Callable[[str], None]) -> dict[str, str]:
    """Compare the files of a dataset with the manifests of stores, and tell the user how many are the same.

    Returns:
        Content hash of each file of the size in a manifest, by track id.

    Raises:
        StoreError: less than half of the files are the same.
    """
    rows = pa.concat_tables([manifest.history(each, _COLUMNS) for each in (store, *group)])
    rows = rows.filter(rows["content_hash"].is_valid())
    ids = rows["track_id"].combine_chunks()
    rows = rows.filter(pc.equal(pc.index_in(ids, ids), np.arange(len(ids), dtype=np.int32)))
    index = pc.index_in(rows["track_id"], dataset.tracks["track_id"].combine_chunks()).combine_chunks()
    there = pc.and_(index.is_valid(), pc.fill_null(pc.equal(rows["path"], dataset.tracks["path"].take(index)), False))
    rows, index = rows.filter(there), index.filter(there.combine_chunks())
    sizes = signatures.file_signatures(dataset, dataset.tracks.take(index))[0]
    present = np.flatnonzero(sizes.is_valid())
    same_size = np.flatnonzero(~rows_differ(rows["size"], sizes))
    tracks = index.to_numpy()[same_size]
    echo(f"comparing {len(same_size):,} files below {dataset.root} with those that {store.path.name} was made from")
    digests = duplicates.digests(dataset, tracks)
    recorded = rows.take(same_size).select(["track_id", "content_hash"]).to_pydict().values()
    found = {track: (old, new) for track, old, new in zip(*recorded, digests, strict=True)}
    same = sum(old == new for old, new in found.values())
    changed, missing = len(present) - same, len(pc.unique(ids)) - len(present)
    if 2 * same < len(pc.unique(ids)):
        problem = f"{store.path}: {same} of the {len(pc.unique(ids))} files that it was made from are in {dataset.root}"
        raise StoreError(
            problem, "name the folder that they moved to; give another dataset a name of its own with --name"
        )
    echo(
        f"{store.path.name}: {same:,} files are where they were, {changed:,} changed (they are extracted again),"
        f" {missing:,} missing"
    )
    return {track: new for track, (_, new) in found.items() if new is not None}


def _set_place(store: Store, place: Mapping[str, Any]) -> None:
    """Write the new place of its dataset into the head of a store, and into the copy of the head."""
    kept = {name: value for name, value in store.dataset.items() if name not in _PLACE}
    new = {name: place[name] for name in _PLACE if name in place}
    order = dict.fromkeys([*store.dataset, *new])
    dataset = {name: value for name in order if (value := (kept | new).get(name)) is not None}
    set_dataset(store, dataset)
