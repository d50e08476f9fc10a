"""Extraction: plan, hand the work to Dask workers, publish the manifests."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.splits import assign_splits
from mgc.pipeline.errors import SpecError, StoreError
from mgc.pipeline.extraction import journal, planning
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.features.variants import Variant, variants_digest
from mgc.pipeline.storage import files
from mgc.pipeline.storage.concurrency import run_requests
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.storage.urls import any_in_memory, require_writable
from mgc.pipeline.store import manifest, verify
from mgc.pipeline.store.siblings import count_moved_tracks, existing_splits, require_same_root, split_differences
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import PUBLISHED_TABLES, Store

if TYPE_CHECKING:  # a call that has nothing to decode need not wait for what decodes
    from mgc.pipeline.extraction.task import Target, Task

#: Tracks to decode together, and the shards of each store that get their frames.
Deal: TypeAlias = "tuple[pa.Table, list[Target]]"

#: Seconds that decoding and analysing one file may take before it counts as hung.
FILE_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Options:
    """How to extract.

    Attributes:
        slicing: how to cut; None keeps a store's slicing, and gives a new one the default.
        workers: worker processes; None for one per processor.
        scheduler: address of a running Dask scheduler to use instead.
        seed: of splits and of the dealing to shards.
        splits: splits by track that override all others.
        max_duration: seconds beyond which a track is dropped as `too-long`.
        file_timeout: seconds that one file may take.
        rebuild: extract everything again, into the layout that one pass would give.
        verify: check every byte of the store first, and extract damaged shards again.
        variants: what to make of each training track besides.
    """

    slicing: Slicing | None = None
    workers: int | None = None
    scheduler: str | None = None
    seed: int = 0
    splits: Mapping[str, str] = field(default_factory=dict)
    max_duration: float | None = None
    file_timeout: float = FILE_TIMEOUT_S
    rebuild: bool = False
    verify: bool = False
    variants: tuple[Variant, ...] = ()

    def __post_init__(self) -> None:
        if self.max_duration is not None and not 0 < self.max_duration < math.inf:
            raise SpecError(f"--max-duration {self.max_duration:g}", "it must be a positive number of seconds")
        if not 0 < self.file_timeout < math.inf:
            raise SpecError(f"--timeout {self.file_timeout:g}", "it must be a positive number of seconds")


@dataclass(frozen=True)
class Extraction:
    """What became of one store.

    Attributes:
        store: the store, finished.
        decoded: tracks that this call decoded.
    """

    store: Store
    decoded: int


def extract(
    dataset: Dataset,
    specs: list[FeatureSpec],
    out: Place,
    options: Options,
    *,
    echo: Callable[[str], None] = lambda line: None,
    progress: Callable[[int], Any] = lambda total: contextlib.nullcontext(lambda done: None),
) -> list[Extraction]:
    """Make, extend or repair one store per spec, decoding each file once for all of them.

    Args:
        dataset: what to extract.
        specs: the features.
        out: folder of the stores, each `<feature>-<digest of its spec>`, `-<digest of its variants>` where it has some.
        options: how.
        echo: gets lines for the user.
        progress: given the number of tracks, a context manager whose value is called with tracks done.

    Raises:
        MgcError: the stores belong to another dataset, are held by another process, cannot be written, ...
    """
    require_writable(out)
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.translate_write_errors(out))
        stores = []
        locks = []
        for spec in specs:
            store = open_or_create(out, spec, dataset, options.seed, options.variants)
            locks.append(stack.enter_context(store.lock()))
            stores.append(store)
        for store in stores if options.rebuild else ():
            _retire(store)
        plans = [_plan(store, dataset, options, echo) for store in stores]
        if batches := _pooled(stores, plans):
            with progress(sum(len(tracks) for tracks, _ in batches)) as advance:

                def done_with(tracks: int) -> None:
                    for require_lock in locks:
                        require_lock()
                    advance(tracks)

                _dispatch(batches, dataset, options, done_with, echo)
        done = []
        for store, plan, require_lock in zip(stores, plans, locks, strict=True):
            require_lock()
            done.append(Extraction(_publish(store, plan, options), plan.tracks))
            for folder in _retired(store):
                files.remove(folder)
        for note in split_differences(stores) if options.splits else ():
            echo(note)
    return done


def open_or_create(
    out: Place, spec: FeatureSpec, dataset: Dataset, seed: int, variants: tuple[Variant, ...] = ()
) -> Store:
    """The store of a spec, a dataset and variants in a folder; one made for another dataset is refused."""
    parts = [spec.name, spec.digest, *([variants_digest(variants)] if variants else [])]
    path = out / "-".join(parts)
    if not (path / "store.json").exists():
        if path.exists() and any(p for p in path.iterdir() if not p.name.startswith(".")):
            raise StoreError(f"{path}: holds something that is not a feature store", "choose another folder with --out")
        return Store.create(path, spec, _describe(dataset, seed), variants)
    store = Store.open(path)
    require_same_root(store, dataset, "give this dataset a name of its own with --name, or another folder with --out")
    return store


def _describe(dataset: Dataset, seed: int) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "root": str(dataset.root),
        "source": str(dataset.source),
        "format": dataset.format,
        "genres": list(dataset.genres),
        "seed": seed,
        **({"options": dict(dataset.options)} if dataset.options else {}),
    }


def _retired(store: Store) -> tuple[Place, Place]:
    """Where a store's manifest is kept while the store is rebuilt, and where it is copied to before that."""
    retired = store.path.with_name(f"{store.path.name}.old")
    return retired, retired.with_name(f"{files.TEMPORARY_PREFIX}{retired.name}")


def _retire(store: Store) -> None:
    """Empty a store. A copy of its manifest beside it still keeps every split where it is, also after a kill."""
    retired, copy = _retired(store)
    if isinstance(store.path, RemotePath):
        _retire_objects(store.path, retired)
        (store.path / "shards").remove()
    else:
        if not retired.exists():
            shutil.rmtree(str(copy), ignore_errors=True)
            shutil.copytree(store.path, str(copy), ignore=shutil.ignore_patterns("*.zarr", ".*"))
            Path(str(copy)).rename(str(retired))
        shutil.rmtree(store.path / "shards")
        (store.path / "shards").mkdir()
    for name in (*PUBLISHED_TABLES, "published.json", "plan.parquet"):
        (store.path / name).unlink(missing_ok=True)


def _retire_objects(store: RemotePath, retired: Place) -> None:
    """Copy the manifest and what else is small. The head goes last: without it the copy is no store."""
    if (retired / "store.json").exists():
        return
    names = [name for name in store.list_objects() if ".zarr/" not in name and name not in ("lock.json", "store.json")]

    def copy(name: str) -> None:
        files.write_bytes(retired / name, (store / name).read_bytes())

    run_requests(copy, names, store)
    copy("store.json")


def _plan(store: Store, dataset: Dataset, options: Options, echo: Callable[[str], None]) -> planning.Plan:
    """What to do, written down in the store before any of it is done."""
    _clean(store)
    journal.finish_rewrites(store)
    past = manifest.history(store)
    known = existing_splits(store, past)
    tracks, notes = assign_splits(dataset.tracks, seed=options.seed, known=known, override=options.splits)
    if moved := count_moved_tracks(past, tracks):
        notes = (*notes, f"{moved} tracks changed their split")
    plan = planning.make_plan(store, dataset, tracks, past, thorough=options.verify)
    for note in (*notes, *plan.notes):
        echo(f"{store.path.name}: {note}")
    if plan:
        journal.write_journal(store, plan)
        journal.rewrite_fragments(store, plan.fragments)
    return plan


def _clean(store: Store) -> None:
    """Remove what an interrupted run left half-written."""
    (store.path / "shards").mkdir(exist_ok=True)
    _remove_temporaries(store.path)
    _remove_temporaries(store.path / "shards")
    for shard in set(store.shards()) - set(store.fragments()):
        files.remove(store.shard_path(shard))


def _remove_temporaries(folder: Place) -> None:
    for leftover in folder.glob(f"{files.TEMPORARY_PREFIX}*"):
        files.remove(leftover)


def _pooled(stores: list[Store], plans: list[planning.Plan]) -> list[Deal]:
    """The deals of all stores; stores that are to hold the same tracks share one, and its decoding."""
    if not any(plan.batches for plan in plans):
        return []
    from mgc.pipeline.extraction.task import Target

    batches: dict[bytes, Deal] = {}
    for store, plan in zip(stores, plans, strict=True):
        # Workers may run in other folders. And a copy travels without the tables that the store has read so far.
        store = dataclasses.replace(store, path=store.path.absolute())
        for tracks, shards in plan.batches:
            key = hashlib.sha256(repr(tracks.select(["track_id", "split"]).to_pydict()).encode()).digest()
            batches.setdefault(key, (tracks, []))[1].append(Target(store, shards))
    return list(batches.values())


def _dispatch(
    batches: list[Deal], dataset: Dataset, options: Options, advance: Callable[[int], Any], echo: Callable[[str], None]
) -> None:
    from mgc.pipeline.extraction.cluster import Dispatcher, connect
    from mgc.pipeline.extraction.worker import extract as work

    workers = min(options.workers or processors(), len(batches))
    tasks = make_tasks(batches, dataset, options)
    if any_in_memory([dataset.root, *(target.store.path for _, targets in batches for target in targets)]):
        # No other process sees this memory: a file that kills its worker would be the end of this one.
        if options.scheduler is not None:
            raise SpecError("memory:// exists in this process only", "leave --scheduler out, or use another URL")
        for task in tasks:
            work(task)
            advance(len(task.tracks))
        return
    # Arrow's pool keeps what planning has let go of; after 250 MB of tracks.csv that is a lot.
    pa.default_memory_pool().release_unused()
    with connect(workers, options.scheduler, echo) as client, tempfile.TemporaryDirectory(prefix="mgc-") as here:
        if options.scheduler is None:
            tasks = (dataclasses.replace(task, heartbeat_folder=here) for task in tasks)
        for task, _ in Dispatcher(client, work, options.file_timeout).run(tasks, len(batches)):
            advance(len(task.tracks))


def make_tasks(batches: list[Deal], dataset: Dataset, options: Options) -> Iterator[Task]:
    """What the workers get, made when it is sent; of copies, since a slice of a table would travel with all of it."""
    from mgc.pipeline.extraction.task import Task

    for tracks, targets in batches:
        copy = tracks.take(np.arange(len(tracks)))
        yield Task(str(dataset.root), copy, targets, max_duration=options.max_duration)


def processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _publish(store: Store, plan: planning.Plan, options: Options) -> Store:
    """Write the manifest and the slice index, where anything is new; the store as it is then."""
    current, whole = None, False
    with contextlib.suppress(StoreError):
        current = store.slicing
        whole = store.tracks is not None and store.slices_are_intact()
    wanted = (options.slicing or current or Slicing()).fitted(store.spec)
    if not plan and not store.unfinished and whole and current == wanted:
        # An index that an earlier version cut by other rules has no damaged byte.
        stale = options.verify and any(verify.manifest_problems(store))
        if not stale:
            return store
    manifest.publish(store, wanted)
    _clean(store)
    return Store.open(store.path)


def reslice(store: Store, slicing: Slicing) -> Store:
    """Cut a store's tracks anew, without decoding; nothing changes where no track holds a slice."""
    with files.translate_write_errors(store.path), store.lock():
        if store.journal_path.exists():
            store.require_finished()
        _remove_temporaries(store.path)
        manifest.publish(store, slicing, require_slices=True)
    return Store.open(store.path)
