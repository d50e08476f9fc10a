"""Sibling stores: the stores of one dataset in one folder. A track has the same split in all, so they can be joined."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pyarrow as pa

from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.lookup import Lookup
from mgc.pipeline.datasets.tracks import rows_differ
from mgc.pipeline.errors import MgcError, StoreError
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.store.head import HeadLost, read_copy
from mgc.pipeline.store.manifest import history
from mgc.pipeline.store.store import Store

_COLUMNS = ["track_id", "split"]


def siblings(store: Store) -> list[Store]:
    """List the other stores in the same folder that have the same dataset root, sorted by path.

    The list may include `<name>.old`, the copy of a store that is being rebuilt, and stores whose head is lost, but not
    its copy.
    """
    folder = store.path.parent
    paths: list[Place] = [*folder.iterdir()] if folder.is_dir() else []
    stores = []
    for path in sorted(paths, key=str):
        with contextlib.suppress(MgcError):
            if path != store.path and (other := open_by_head(path)).dataset["root"] == store.dataset["root"]:
                stores.append(other)
    return stores


def open_by_head(path: Place) -> Store:
    """Open a store by its head, or by the copy of it that `published.json` holds."""
    try:
        return Store.open(path)
    except HeadLost:
        if (copy := read_copy(path)) is None:
            raise
        return Store(path, *copy)


def existing_splits(store: Store, past: pa.Table) -> pa.Table:
    """Collect the splits that tracks already have in this store or, failing that, in one of its siblings.

    So all features of a dataset have the same splits, whenever each was extracted.

    Args:
        store: the store.
        past: its `manifest.history`.

    Returns:
        Table with the columns `track_id` and `split`, no nulls in `split`. A track can have several rows; the first
        one counts.
    """
    tables = [past.select(_COLUMNS), *(history(other, _COLUMNS) for other in siblings(store))]
    rows = pa.concat_tables(tables)
    return rows.filter(rows["split"].is_valid())


def split_differences(stores: Sequence[Store]) -> Iterator[str]:
    """Yield a note for each sibling of `stores` whose splits differ from those of the first store.

    Args:
        stores: stores of one dataset, with equal splits. They are not compared with each other.
    """
    first = Store.open(stores[0].path)
    splits = first.read_tracks(_COLUMNS)
    excluded = {store.path for store in stores}
    for other in siblings(first):
        if other.path in excluded or other.path.name.endswith(".old"):
            continue
        with contextlib.suppress(StoreError):
            if count := count_moved_tracks(other.read_tracks(_COLUMNS), splits):
                remedy = f"mgc split {other.path} --splits {first.path / 'tracks.parquet'}"
                yield f"{other.path.name}: {count} tracks have another split there; `{remedy}` gives both the same"


def require_same_root(store: Store, dataset: Dataset, remedy: str) -> None:
    """Require that a store was extracted from this dataset.

    Args:
        store: the store.
        dataset: the dataset.
        remedy: what the error message tells the user to do.

    Raises:
        StoreError: the dataset's root is not the one that the store records.
    """
    if store.dataset["root"] != str(dataset.root):
        raise StoreError(f"{store.path}: was made from {store.dataset['root']}, not from {dataset.root}", remedy)


def count_moved_tracks(before: pa.Table, after: pa.Table) -> int:
    """Count the tracks whose split differs between two tables; tracks in only one of them do not count.

    Args:
        before: columns `track_id` and `split`.
        after: the same columns.
    """
    index = Lookup(after["track_id"]).indices(before["track_id"])
    old, new = before["split"].filter(index.is_valid()), after["split"].take(index.drop_null())
    return int(rows_differ(old, new).sum())
