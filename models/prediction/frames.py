"""Frames of files that belong to no dataset, made by the tasks of `mgc extract` in a temporary folder."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from mgc.pipeline.datasets.catalogue import track_table
from mgc.pipeline.datasets.tracks import escape
from mgc.pipeline.extraction import cluster
from mgc.pipeline.extraction.dispatcher import Dispatcher
from mgc.pipeline.extraction.options import FILE_TIMEOUT_S
from mgc.pipeline.extraction.sharing import count_processors
from mgc.pipeline.extraction.task import Target, Task
from mgc.pipeline.extraction.worker import dask_setup, run_task
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.store import manifest
from mgc.pipeline.store.cuts import Cut
from mgc.pipeline.store.store import Store

if TYPE_CHECKING:
    from distributed import Client

#: Most files of a task: their frames are on disk until they are predicted.
FILES_PER_TASK = 16


@dataclass(frozen=True)
class Batch(Store):
    """One shard of an unpublished store, presented as a store.

    Attributes:
        fragment: manifest rows of the shard's tracks, as `manifest.read_fragment` returns them.
        shard: number of the shard.
    """

    fragment: pa.Table = dataclasses.field(kw_only=True)
    shard: int = dataclasses.field(kw_only=True)

    @cached_property
    def tracks(self) -> pa.Table:
        """The manifest: rows of `MANIFEST_SCHEMA`."""
        return self.fragment.replace_schema_metadata()

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """No cut: nothing is published."""
        return ()

    def shard_files(self) -> dict[str, dict[str, list]]:
        """Return `{shard: {file: [size, digest]}}`."""
        return {f"{self.shard:05d}": manifest.fragment_files(self.fragment)}


@dataclass(frozen=True)
class Decoding:
    """How files are decoded.

    Attributes:
        workers: number of worker processes to start; None for one per processor.
        scheduler: address of a running Dask scheduler, whose workers share this machine's temporary folder; None starts
            workers.
        timeout_s: time limit for one file in seconds.
        max_duration: length in seconds beyond which a file is refused as `too-long`; None for no limit.
    """

    workers: int | None = None
    scheduler: str | None = None
    timeout_s: float = FILE_TIMEOUT_S
    max_duration: float | None = None


@contextlib.contextmanager
def processes(paths: Sequence[str], decoding: Decoding) -> Iterator[Client]:
    """Start worker processes for a number of files, or connect to running ones; yield Dask's client of them."""
    workers = min(decoding.workers or count_processors(), -(-len(paths) // _files_per_task(paths, decoding)))
    # A few files would wait for imports that a worker can do while this process imports its own.
    with cluster.connect(workers, decoding.scheduler, preload=dask_setup.__module__) as client:
        yield client


def extract(
    paths: Sequence[str],
    specs: Sequence[FeatureSpec],
    decoding: Decoding,
    advance: Callable[[int], object] = lambda n_files: None,
) -> Iterator[list[Batch]]:
    """Decode files in worker processes that end with the last file; see `decode`."""
    with processes(paths, decoding) as client:
        yield from decode(client, paths, specs, decoding, advance)


def decode(
    client: Client,
    paths: Sequence[str],
    specs: Sequence[FeatureSpec],
    decoding: Decoding,
    advance: Callable[[int], object] = lambda n_files: None,
    folder: Path | None = None,
) -> Generator[list[Batch]]:
    """Decode files in running worker processes; a file that cannot be decoded, or kills or hangs one, stops no other.

    Several threads may decode files on one client at the same time.

    Args:
        client: client of the cluster, from `cluster.connect`.
        paths: paths of the files.
        specs: the features.
        decoding: limits of a file.
        advance: function that is called with numbers of files that were finished since the last call.
        folder: existing folder for the frames, which the workers share; None for the system's temporary folder.

    Yields:
        For each few files, in the order in which they are finished: their frames and manifest rows, one `Batch` for
        each feature. The track id of a file is its index in `paths`, as text. The frames are removed when the next
        batches are asked for.
    """
    per_task = _files_per_task(paths, decoding)
    starts = range(0, len(paths), per_task)
    with tempfile.TemporaryDirectory(prefix="mgc-predict-", dir=folder, ignore_cleanup_errors=True) as temporary:
        stores = []
        for spec in specs:
            path = Path(temporary) / spec.digest
            stores.append(Store.create(path, spec, {"name": "files", "root": "/", "genres": []}))
            (path / "shards").mkdir()
        tasks = (
            _task(paths[start : start + per_task], start, shard, stores, decoding.max_duration)
            for shard, start in enumerate(starts)
        )
        for task, _ in Dispatcher(client, run_task, decoding.timeout_s).run(tasks, len(starts), advance):
            batches = [_batch(target) for target in task.targets]
            yield batches
            for batch in batches:
                shutil.rmtree(Path(str(batch.shard_path(batch.shard))), ignore_errors=True)


def _files_per_task(paths: Sequence[str], decoding: Decoding) -> int:
    """Number of files that a worker decodes one after the other: few if there are few files, so that all work."""
    return max(1, min(FILES_PER_TASK, -(-len(paths) // (decoding.workers or count_processors()))))


def _task(paths: Sequence[str], start: int, shard: int, stores: Sequence[Store], max_duration: float | None) -> Task:
    """Create the task that decodes some files into one shard of each store."""
    # An absolute path without its first slash: the root of the task is the file system's.
    names = [escape(os.path.abspath(path)).lstrip("/") for path in paths]  # noqa: PTH100
    ids = [f"{number:08d}" for number in range(start, start + len(paths))]
    tracks = track_table({"track_id": ids, "path": names, "split": ["test"] * len(paths)})
    return Task("/", tracks, [Target(store, [(shard, 0, len(paths))]) for store in stores], max_duration=max_duration)


def _batch(target: Target) -> Batch:
    """Read the manifest rows of a finished shard."""
    store, (shard, _, _) = target.store, target.shards[0]
    [(fragment, _)] = manifest.require_fragments(store, [shard])
    return Batch(store.path, store.spec, store.dataset, store.versions, fragment=fragment, shard=shard)
