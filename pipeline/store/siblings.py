"""The stores of one dataset beside each other: a track has the same split in all, so that they can be joined."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.tracks import differ
from mgc.pipeline.errors import MgcError, StoreError
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.store.manifest import history
from mgc.pipeline.store.store import Store

_COLUMNS = ["track_id", "split"]


def siblings(store: Store) -> list[Store]:
    """The other stores in the same folder that were made from the same dataset, by name.

    Among them may be the copy of one that is being rebuilt, `<name>.old`.
    """
    beside: list[Place] = [*store.path.parent.iterdir()]
    found = []
    for path in sorted(beside, key=str):
        with contextlib.suppress(MgcError):
            if path != store.path and (other := Store.open(path)).dataset["root"] == store.dataset["root"]:
                found.append(other)
    return found


def known_splits(store: Store, past: pa.Table) -> pa.Table:
    """Splits already given: by this store, else by another store of the same dataset beside it.

    So every feature of a dataset has the same splits, whenever it was extracted.

    Args:
        store: the store.
        past: its `manifest.history`.

    Returns:
        Columns `track_id` and `split`; of several rows for one track the first holds.
    """
    tables = [past.select(_COLUMNS), *(history(other, _COLUMNS) for other in siblings(store))]
    rows = pa.concat_tables(tables)
    return rows.filter(rows["split"].is_valid())


def differing(stores: Sequence[Store]) -> Iterator[str]:
    """A note for each sibling of some stores in which tracks have another split than in the first of these."""
    first = Store.open(stores[0].path)
    ours = first.read_tracks(_COLUMNS)
    done = {store.path for store in stores}
    for other in siblings(first):
        if other.path in done or other.path.name.endswith(".old"):
            continue
        with contextlib.suppress(StoreError):
            if count := moved_tracks(other.read_tracks(_COLUMNS), ours):
                remedy = f"mgc split {other.path} --splits {first.path / 'tracks.parquet'}"
                yield f"{other.path.name}: {count} tracks have another split there; `{remedy}` gives both the same"


def require_same_root(store: Store, dataset: Dataset, remedy: str) -> None:
    """Raise `StoreError` where a store was made from another dataset."""
    if store.dataset["root"] != str(dataset.root):
        raise StoreError(f"{store.path}: was made from {store.dataset['root']}, not from {dataset.root}", remedy)


def moved_tracks(before: pa.Table, after: pa.Table) -> int:
    """Tracks that have another split than before."""
    at = pc.index_in(before["track_id"], after["track_id"].combine_chunks())
    here = pc.is_valid(at)
    old, new = before["split"].filter(here), after["split"].take(at.drop_null())
    return int(differ(old, new).sum())
