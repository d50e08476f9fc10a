"""Reassigning splits: new labels for the tracks of a store and of its siblings, without decoding."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.splits import assign_splits
from mgc.pipeline.datasets.tracks import DATASET_SCHEMA, rows_differ, update_labels
from mgc.pipeline.extraction import journal
from mgc.pipeline.extraction.planning import Plan
from mgc.pipeline.storage import files
from mgc.pipeline.store import manifest
from mgc.pipeline.store.siblings import count_moved_tracks, existing_splits, require_same_root, siblings
from mgc.pipeline.store.store import Store


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
    with files.translate_write_errors(store.path), contextlib.ExitStack() as locks:
        together = [store, *(other for other in siblings(store) if not other.path.name.endswith(".old"))]
        for one in together:
            locks.enter_context(one.lock())
            one.require_finished()
        pasts = [manifest.history(one) for one in together]
        known = existing_splits(store, pasts[0]) if keep else {}
        tracks, notes = assign_splits(dataset.tracks, seed=seed, known=known, override=override)
        # All is read before anything is written.
        plans = [plan_relabelling(one, _those_of(past, tracks)) for one, past in zip(together, pasts, strict=True)]
        for one, plan in zip(together, plans, strict=True):
            if plan or one is store:
                journal.write_journal(one, plan)
                journal.rewrite_fragments(one, plan.fragments)
                manifest.publish(one, one.slicing)
    moved, *others = (count_moved_tracks(past, tracks) for past in pasts)
    for one, count in zip(together[1:], others, strict=True):
        if count:
            notes = (*notes, f"{one.path.name}: {count} tracks changed their split: the dataset's stores share theirs")
    return moved, notes


def plan_relabelling(store: Store, tracks: pa.Table) -> Plan:
    """The fragments that give a store's tracks the labels and splits of a track table (`DATASET_SCHEMA`).

    Raises:
        StoreError: a fragment is missing or damaged.
    """
    plan = Plan()
    shards = manifest.expected_shards(store)
    for shard, (old, _) in zip(shards, manifest.require_fragments(store, shards), strict=True):
        new = update_labels(old, tracks)
        if any(rows_differ(old[name], new[name]).any() for name in DATASET_SCHEMA.names):
            plan.fragments[shard] = new
    return plan


def _those_of(past: pa.Table, tracks: pa.Table) -> pa.Table:
    """The tracks that a store has seen."""
    return tracks.filter(pc.is_in(tracks["track_id"], value_set=past["track_id"].combine_chunks()))
