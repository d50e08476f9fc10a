"""Feature extraction: plan the work on each store, decode the tracks on Dask workers, publish the manifests."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.splits import assign_splits
from mgc.pipeline.errors import SpecError, StoreError
from mgc.pipeline.extraction import (
    cluster,
    duplicates,
    estimate,
    journal,
    left_out,
    moving,
    planning,
    probe,
    rebuild,
    sharing,
)
from mgc.pipeline.extraction.opening import follow_labels, is_new, open_or_create, store_path
from mgc.pipeline.extraction.options import Options
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.storage import files, mapped
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.storage.urls import any_in_memory, require_writable
from mgc.pipeline.store import head, manifest, recut, verify
from mgc.pipeline.store.cuts import requested_cuts
from mgc.pipeline.store.siblings import (
    count_moved_tracks,
    existing_splits,
    require_same_root,
    split_differences,
)
from mgc.pipeline.store.store import Store

_OTHER_ROOT = "if its files have moved, add --moved; else give this dataset a name of its own with --name"


@dataclass(frozen=True)
class Extraction:
    """Result of an extraction for one store.

    Attributes:
        store: the finished store.
        n_decoded: number of tracks that this call decoded.
    """

    store: Store
    n_decoded: int


def extract(
    dataset: Dataset,
    specs: list[FeatureSpec],
    out: Place,
    options: Options,
    *,
    echo: Callable[[str], None] = lambda line: None,
    progress: Callable[[int], Any] = lambda total: contextlib.nullcontext(lambda done: None),
) -> list[Extraction]:
    """Create, extend or repair one store per feature; each file is decoded once for all of them.

    Args:
        dataset: the dataset.
        specs: the features.
        out: folder or URL of the stores. A store is called `<feature>-<digest of its spec>`; with variants
            `-<digest of the variants>` is appended.
        options: settings of the extraction.
        echo: function that prints a line for the user.
        progress: function that takes the number of tracks and returns a context manager; its value is called with the
            number of tracks that were finished since its last call.

    Returns:
        One result per spec, in their order.

    Raises:
        MgcError: a store belongs to another dataset, another process writes to it, it cannot be written, ...
    """
    require_writable(out)
    if options.scheduler is not None and any_in_memory([dataset.root, out]):
        raise SpecError("memory:// exists in this process only", "leave --scheduler out, or use another URL")
    require_scheduler = functools.cache(functools.partial(cluster.require_scheduler, options.scheduler, echo))
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.translate_write_errors(out))
        new = [spec for spec in specs if is_new(store_path(out, spec, options.variants))]
        if len(new) == len(specs):
            probe.require_room(dataset, specs, options)
        if new or options.rebuild:
            require_scheduler()  # before a store is created or emptied
        stores, locks, hashes = _open_stores(dataset, specs, out, options, stack, echo)
        for store in stores if options.rebuild else ():
            rebuild.empty_store(store)
        work, batches, is_long = _plan_all(stores, dataset, hashes, options, echo, require_scheduler)
        if batches:
            with progress(sum(len(tracks) for tracks, _ in batches)) as advance:

                def require_locks() -> None:
                    for require_lock in locks:
                        require_lock()

                _dispatch(batches, dataset, options, advance, echo, require_locks, is_long)
        del batches  # publishing needs its memory
        results = []
        for store, (has_changed, n_decoded), require_lock in zip(stores, work, locks, strict=True):
            require_lock()
            results.append(Extraction(_publish(store, options, echo, has_changed=has_changed), n_decoded))
            rebuild.remove_copies(store)
        for note in split_differences(stores) if options.splits else ():
            echo(note)
    return results


def _open_stores(
    dataset: Dataset,
    specs: list[FeatureSpec],
    out: Place,
    options: Options,
    stack: contextlib.ExitStack,
    echo: Callable[[str], None],
) -> tuple[list[Store], list[Callable[[], None]], Mapping[str, str]]:
    """Open or create the stores of a call, and lock them until `stack` ends.

    Returns:
        The stores; a function for each that raises if its lock has been lost; see `moving.follow` for the hashes.
    """
    stores, locks = [], []
    if options.moved:
        moving.require_store([store_path(out, spec, options.variants) for spec in specs])
    for spec in specs:
        store = open_or_create(out, spec, dataset, options.seed, options.variants, echo=echo)
        if not options.moved:
            require_same_root(store, dataset, _OTHER_ROOT)
        locks.append(stack.enter_context(store.lock()))
        stores.append(store)
    hashes: Mapping[str, str] = {}
    if options.moved:
        stores, hashes = moving.follow(stores, dataset, stack, echo)
    return [follow_labels(store, dataset) for store in stores], locks, hashes


def _plan_all(
    stores: list[Store],
    dataset: Dataset,
    hashes: Mapping[str, str],
    options: Options,
    echo: Callable[[str], None],
    require_scheduler: Callable[[], None],
) -> tuple[list[tuple[bool, int]], list[sharing.SharedBatch], bool]:
    """Plan the work on all stores, see `_plan`.

    Returns:
        Of each store, whether it changes and how many tracks of it are decoded; the batches to decode; True if that
        takes so long that the user may want to watch it.
    """
    tracks = duplicates.find(dataset, stores)
    for note in duplicates.describe(tracks, tracks["content_hash"].combine_chunks(), options.duplicates):
        echo(note)
    plans = [_plan(store, dataset, tracks, hashes, options, echo, require_scheduler) for store in stores]
    for note in left_out.describe(dataset, plans[0].left_out):
        echo(note)
    work = [(bool(plan), plan.n_tracks) for plan in plans]
    batches = sharing.share_batches(stores, plans)
    if not batches:
        return work, [], False
    expected = estimate.estimate(dataset, batches, stores, tracks, sharing.count_workers(batches, dataset, options))
    for note in expected.notes():
        echo(note)
    return work, batches, expected.is_long


def _plan(
    store: Store,
    dataset: Dataset,
    tracks: pa.Table,
    hashes: Mapping[str, str],
    options: Options,
    echo: Callable[[str], None],
    require_scheduler: Callable[[], None],
) -> planning.Plan:
    """Compare a store with the dataset, write the plan to the store's journal, and carry out its label changes.

    Args:
        store: the store.
        dataset: the dataset.
        tracks: its tracks, see `duplicates.find`.
        hashes: content hashes of files that were read by this call already, by track id.
        options: settings of the extraction.
        echo: function that prints a line for the user.
        require_scheduler: function that raises if the scheduler does not answer; called before a plan to decode is
            written. A call with nothing to decode needs no scheduler.
    """
    _clean(store)
    if not journal.finish_rewrites(store):
        echo(f"{store.path.name}: plan.parquet is damaged: what the interrupted extraction left is planned anew")
    past = manifest.history(store, planning.PAST_COLUMNS)
    plan, notes = plan_store(store, dataset, tracks, past, hashes, options)
    for note in notes:
        echo(f"{store.path.name}: {note}")
    if plan.batches:
        require_scheduler()
    if plan:
        journal.write_journal(store, plan)
        journal.rewrite_fragments(store, plan.fragments)
        for rows in plan.rows_only:
            left_out.write(store, rows)
    return plan


def plan_store(
    store: Store,
    dataset: Dataset,
    tracks: pa.Table,
    past: pa.Table,
    hashes: Mapping[str, str],
    options: Options,
) -> tuple[planning.Plan, list[str]]:
    """Compare a store with the dataset, and write nothing.

    Args:
        store: the store.
        dataset: the dataset.
        tracks: its tracks, see `duplicates.find`.
        past: the store's `manifest.history` with `planning.PAST_COLUMNS`.
        hashes: content hashes of files that were read by this call already, by track id.
        options: settings of the extraction.

    Returns:
        The plan; lines for the user.
    """
    known = existing_splits(store, past)
    why = left_out.find(store, tracks, past, options, dataset.unlabelled)
    omitted, used = tracks.slice(0, 0), tracks
    if why:
        is_omitted = pc.is_in(tracks["track_id"], value_set=pa.array(list(why), pa.string())).to_numpy()
        omitted, used = (mapped.take(tracks, np.flatnonzero(rows)) for rows in (is_omitted, ~is_omitted))
    pa.default_memory_pool().release_unused()  # what the search for copies has freed
    used, notes = assign_splits(
        used, seed=options.seed, known=known, override=options.splits, join_copies=options.duplicates != "keep"
    )
    used = used.drop_columns("content_hash")
    if moved := count_moved_tracks(past, used):
        notes = (*notes, f"{moved} tracks changed their split")
    plan = planning.make_plan(
        store, dataset, used, past, thorough=options.verify, omitted=omitted, why=why, hashes=hashes
    )
    return plan, [*notes, *plan.notes]


def _clean(store: Store) -> None:
    """Remove the temporary files, and the shards without a fragment, that an interrupted run left behind."""
    (store.path / "shards").mkdir(exist_ok=True)
    files.remove_temporaries(store.path)
    files.remove_temporaries(store.path / "shards")
    for shard in set(store.shards()) - set(store.fragments()):
        files.remove(store.shard_path(shard))


def _dispatch(
    batches: list[sharing.SharedBatch],
    dataset: Dataset,
    options: Options,
    advance: Callable[[int], Any],
    echo: Callable[[str], None],
    require_locks: Callable[[], None],
    is_long: bool,
) -> None:
    """Decode the batches on Dask workers, or in this process if a store or the dataset is at a `memory://` URL.

    Args:
        batches: the batches.
        dataset: the dataset.
        options: settings of the extraction.
        advance: function that is called with numbers of tracks as they are finished.
        echo: function that prints a line for the user.
        require_locks: function that is called after each task; it raises if the lock of a store has been lost.
        is_long: True if the work takes so long that the user may want to watch it.
    """
    from mgc.pipeline.extraction.dispatcher import Dispatcher
    from mgc.pipeline.extraction.worker import run_task

    workers = sharing.count_workers(batches, dataset, options)
    tasks = sharing.make_tasks(batches, dataset, options)
    if sharing.is_in_memory(batches, dataset):
        # Other processes do not see this memory. So a file that kills its worker ends this process.
        for task in tasks:
            run_task(task)
            require_locks()
            advance(len(task.tracks))
        return
    # Arrow's memory pool keeps the memory that planning has freed: a lot, after 250 MB of tracks.csv.
    pa.default_memory_pool().release_unused()
    with (
        cluster.connect(workers, options.scheduler, echo, show_dashboard=is_long) as client,
        tempfile.TemporaryDirectory(prefix="mgc-") as folder,
    ):
        if options.scheduler is None:
            tasks = (dataclasses.replace(task, heartbeat_folder=folder) for task in tasks)
        for _ in Dispatcher(client, run_task, options.file_timeout).run(tasks, len(batches), advance):
            require_locks()


def _publish(store: Store, options: Options, echo: Callable[[str], None], *, has_changed: bool) -> Store:
    """Write the manifest and the slice indices if anything has changed, and open the store again.

    Args:
        store: the store.
        options: settings of the extraction.
        echo: function that prints a line for the user.
        has_changed: this call has changed shards or fragments.
    """
    before = manifest.known_cuts(store)
    cuts = requested_cuts(before, store.spec, options.slicing, options.study)
    cuts = recut.without_empty_former(store, before, cuts)
    intact = False
    with contextlib.suppress(StoreError):
        has_head = store.publication.get(head.COPY_KEY) in (None, head.as_dict(store.head))
        intact = has_head and store.tables_are_intact() and store.cuts == cuts
    lost = not (before and before[0].default) and (store.path / "tracks.parquet").exists()
    if lost and options.slicing is None:
        what = f"how its tracks were cut is lost, they get {cuts[0].slicing}"
        echo(f"{store.path.name}: {what}; `mgc slice` cuts them again")
    if not has_changed and not store.unfinished and intact:
        # Checksums do not reveal an index that an earlier version of mgc cut by other rules.
        outdated = options.verify and any(verify.manifest_problems(store))
        if not outdated:
            return store
    manifest.publish_cuts(store, cuts)
    _clean(store)
    store = Store.open(store.path)
    for note in recut.describe_changes(store, before):
        echo(f"{store.path.name}: {note}")
    return store
