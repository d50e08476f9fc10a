"""Batches that several stores share: each file is decoded once for all of them, by one task."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mgc.pipeline.datasets import Dataset
from mgc.pipeline.extraction import planning
from mgc.pipeline.extraction.batches import TrackRows
from mgc.pipeline.extraction.options import Options
from mgc.pipeline.storage.urls import any_in_memory
from mgc.pipeline.store.store import Store

if TYPE_CHECKING:  # imported late, so that a call with nothing to decode does not wait for the decoding libraries
    from mgc.pipeline.extraction.task import Target, Task


class SharedBatch(NamedTuple):
    """Tracks that one worker decodes, and the shards of all stores that get their frames.

    Attributes:
        tracks: the tracks.
        targets: the stores with their shards.
    """

    tracks: TrackRows
    targets: list[Target]


def share_batches(stores: list[Store], plans: list[planning.Plan]) -> list[SharedBatch]:
    """Merge the batches of all stores: stores that need the same tracks share a batch, and its decoding."""
    if not any(plan.batches for plan in plans):
        return []
    from mgc.pipeline.extraction.task import Target

    batches: dict[bytes, SharedBatch] = {}
    for store, plan in zip(stores, plans, strict=True):
        # Workers may run in other folders: they get an absolute path. The copy also drops the tables that the store has
        # cached, which would travel with each task.
        store = dataclasses.replace(store, path=store.path.absolute())
        for tracks, shards in plan.batches:
            key = hashlib.sha256(repr(tracks.table().select(["track_id", "split"]).to_pydict()).encode()).digest()
            batches.setdefault(key, SharedBatch(tracks, [])).targets.append(Target(store, shards))
    return list(batches.values())


def make_tasks(batches: list[SharedBatch], dataset: Dataset, options: Options) -> Iterator[Task]:
    """Yield the task of each batch. Tracks are copied, since pickling a slice of a table pickles the whole table."""
    from mgc.pipeline.extraction.task import Task

    for tracks, targets in batches:
        copy = tracks.table().take(np.arange(len(tracks)))
        yield Task(str(dataset.root), copy, targets, max_duration=options.max_duration)


def is_in_memory(batches: list[SharedBatch], dataset: Dataset) -> bool:
    """Return True if the dataset or a store is at a `memory://` URL."""
    return any_in_memory([dataset.root, *(target.store.path for _, targets in batches for target in targets)])


def count_workers(batches: list[SharedBatch], dataset: Dataset, options: Options) -> int | None:
    """Return the number of worker processes that decode the batches; None if they are those of a scheduler."""
    if is_in_memory(batches, dataset):
        return 1
    return min(options.workers or count_processors(), len(batches)) if options.scheduler is None else None


def count_processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
