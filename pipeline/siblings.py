"""The stores of one dataset beside each other: a track has the same split in all, so that they can be joined."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import files, planning
from pipeline.datasets import Dataset
from pipeline.errors import MgcError, StoreError
from pipeline.manifest import publish
from pipeline.remote import Place
from pipeline.splits import assign_splits
from pipeline.store import Store

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
        past: its `planning.history`.

    Returns:
        Columns `track_id` and `split`; of several rows for one track the first holds.
    """
    tables = [past.select(_COLUMNS), *(planning.history(other, _COLUMNS) for other in siblings(store))]
    rows = pa.concat_tables(tables)
    return rows.filter(rows["split"].is_valid())


def resplit(
    store: Store, dataset: Dataset, seed: int, override: Mapping[str, str], *, keep: bool
) -> tuple[int, tuple[str, ...]]:
    """Reassign the splits of a store and of its siblings, without decoding.

    A kill on the way leaves some of them as they were; the same call then changes these.

    Args:
        store: the store.
        dataset: the dataset it was made from, as it is now.
        seed: of the new splits.
        override: splits by track that come first.
        keep: the other tracks stay where they are; else their splits are drawn anew.

    Returns:
        Tracks of the store that changed their split, and notes for the user.

    Raises:
        StoreError: one of the stores is unfinished, damaged or held by another process: then none has changed.
    """
    require_same_root(store, dataset, "name the dataset that it was made from")
    with files.output_errors(store.path), contextlib.ExitStack() as locks:
        together = [store, *(other for other in siblings(store) if not other.path.name.endswith(".old"))]
        for one in together:
            locks.enter_context(one.lock())
            one.require_finished()
        pasts = [planning.history(one) for one in together]
        known = known_splits(store, pasts[0]) if keep else {}
        tracks, notes = assign_splits(dataset.tracks, seed=seed, known=known, override=override)
        # All is read before anything is written.
        plans = [planning.relabel(one, _those_of(past, tracks)) for one, past in zip(together, pasts, strict=True)]
        for one, plan in zip(together, plans, strict=True):
            if plan or one is store:
                planning.write_journal(one, plan)
                planning.rewrite_fragments(one, plan.fragments)
                publish(one, one.slicing)
    moved, *others = (moved_tracks(past, tracks) for past in pasts)
    for one, count in zip(together[1:], others, strict=True):
        if count:
            notes = (*notes, f"{one.path.name}: {count} tracks changed their split: the dataset's stores share theirs")
    return moved, notes


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
    return int(planning.differ(old, new).sum())


def _those_of(past: pa.Table, tracks: pa.Table) -> pa.Table:
    """The tracks that a store has seen."""
    return tracks.filter(pc.is_in(tracks["track_id"], value_set=past["track_id"].combine_chunks()))
