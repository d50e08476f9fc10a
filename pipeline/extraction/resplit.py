"""Reassignment of splits in a store and its siblings, without decoding."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.lookup import Lookup
from mgc.pipeline.datasets.splits import assign_splits
from mgc.pipeline.datasets.tracks import DATASET_SCHEMA, UNLISTED, rows_differ, update_labels
from mgc.pipeline.extraction import journal, left_out
from mgc.pipeline.extraction.options import Options
from mgc.pipeline.extraction.planning import Plan
from mgc.pipeline.storage import files
from mgc.pipeline.store import manifest
from mgc.pipeline.store.siblings import count_moved_tracks, existing_splits, require_same_root, siblings
from mgc.pipeline.store.store import Store

_NOBODY: Mapping[str, str] = {}


def resplit(
    store: Store,
    dataset: Dataset,
    seed: int,
    override: Mapping[str, str],
    unlisted: Mapping[str, str] = _NOBODY,
    *,
    keep: bool,
) -> tuple[int, tuple[str, ...]]:
    """Reassign the splits of a store and of its siblings, without decoding.

    If the process is killed, some of the stores keep their old splits; the same call then changes these, too.

    Args:
        store: the store.
        dataset: the dataset that the store was extracted from, as it is now.
        seed: seed of the new splits.
        override: split by track id, or by path; these splits take precedence.
        unlisted: tracks that a published list of splits leaves out, see `Options.unlisted`.
        keep: True keeps the split of all other tracks, False draws new splits for them.

    Returns:
        Number of tracks in the store whose split changed, and notes for the user.

    Raises:
        StoreError: one of the stores is unfinished, damaged or locked by another process. No store has changed then.
    """
    require_same_root(
        store, dataset, "name the dataset that it was made from, or run `mgc extract --moved` if its files have moved"
    )
    with files.translate_write_errors(store.path), contextlib.ExitStack() as locks:
        stores = [store, *(other for other in siblings(store) if not other.path.name.endswith(".old"))]
        for each in stores:
            locks.enter_context(each.lock())
            each.require_finished()
        pasts = [manifest.history(each) for each in stores]
        known = existing_splits(store, pasts[0]) if keep else {}
        rows = Lookup(pasts[0]["track_id"]).indices(dataset.tracks["track_id"])
        tracks = dataset.tracks.append_column("content_hash", pasts[0]["content_hash"].take(rows))
        settings = Options(splits=override, unlisted=unlisted)
        why = left_out.find(store, tracks, pasts[0], settings, dataset.unlabelled)
        tracks = tracks.filter(pc.invert(pc.is_in(tracks["track_id"], value_set=pa.array(list(why), pa.string()))))
        tracks, notes = assign_splits(tracks, seed=seed, known=known, override=override)
        tracks = tracks.drop_columns("content_hash")
        # All stores are read before any is written: if one is damaged, none has changed.
        plans = [
            plan_relabelling(each, _tracks_in(past, tracks), why) for each, past in zip(stores, pasts, strict=True)
        ]
        for each, plan in zip(stores, plans, strict=True):
            if plan or each is store:
                journal.write_journal(each, plan)
                journal.rewrite_fragments(each, plan.fragments)
                manifest.publish(each, each.slicing)
        if undecoded := _undecoded(pasts[0], tracks):
            notes = (*notes, f"{undecoded} tracks are not decoded yet: `mgc extract` with these --splits adds them")
    moved, *others = (count_moved_tracks(past, tracks) for past in pasts)
    return moved, (*notes, *_notes(stores[1:], others))


def _notes(others: Sequence[Store], counts: Sequence[int]) -> Iterator[str]:
    """Yield a note for each sibling in which tracks changed their split."""
    for other, count in zip(others, counts, strict=True):
        if count:
            remark = "tracks changed their split: all stores of a dataset have the same splits"
            yield f"{other.path.name}: {count} {remark}"


def plan_relabelling(store: Store, tracks: pa.Table, why: left_out.Reasons) -> Plan:
    """Plan the fragments to rewrite so that a store's tracks get the labels and splits of a track table.

    Args:
        store: the store.
        tracks: rows of `DATASET_SCHEMA`; tracks of the store that are not among them keep their labels.
        why: tracks that are left out from now on; others that were left out of a list, and have frames, return.

    Raises:
        StoreError: a fragment is missing or damaged.
    """
    plan = Plan()
    lookup = Lookup(tracks["track_id"])
    shards = manifest.expected_shards(store)
    for shard, (old, _) in zip(shards, manifest.require_fragments(store, shards), strict=True):
        new = left_out.relist(update_labels(old, tracks, lookup), why)
        if any(rows_differ(old[name], new[name]).any() for name in (*DATASET_SCHEMA.names, "reason")):
            plan.fragments[shard] = new
    return plan


def _undecoded(past: pa.Table, tracks: pa.Table) -> int:
    """Count the tracks that are used now, but have no frames because they were left out."""
    return len(_tracks_in(past.filter(pa.array(left_out.without_frames(past, UNLISTED))), tracks))


def _tracks_in(past: pa.Table, tracks: pa.Table) -> pa.Table:
    """Return the rows of `tracks` whose track id is in `past`."""
    return tracks.filter(pa.array(Lookup(past["track_id"]).contains(tracks["track_id"])))
