"""Tasks for Dask workers, and the heartbeat file in which a worker records the track it is decoding."""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from mgc.pipeline.storage import files, parquet
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.store.store import Store


@dataclass(frozen=True)
class Target:
    """Shards of one store that a task writes.

    Attributes:
        store: the store.
        shards: `(shard, first, stop)` for each shard: it holds the task's tracks `[first, stop)`. The ranges are
            consecutive and cover all tracks of the task.
    """

    store: Store
    shards: list[tuple[int, int, int]]


@dataclass(frozen=True)
class Task:
    """Tracks that one worker decodes one after the other, and the stores that get their frames.

    Attributes:
        root: folder or URL that the tracks' paths are relative to.
        tracks: rows of `DATASET_SCHEMA`.
        targets: the stores; all have the same variants.
        failures: drop reasons by row, for tracks that killed or hung a worker and are not decoded again.
        max_duration: length in seconds beyond which a track is dropped as `too-long`; None for no limit.
        heartbeat_folder: local folder that all workers and the client share, for the heartbeats of stores at a URL;
            None if they share none: the heartbeat is then an object in the store.
        id: names the task, also if it is sent again or repeated by Dask.
    """

    root: str
    tracks: pa.Table
    targets: list[Target]
    failures: dict[int, str] = field(default_factory=dict)
    max_duration: float | None = None
    heartbeat_folder: str | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def heartbeat_path(self) -> Place:
        """Path of the task's heartbeat file, which survives a worker that dies or hangs."""
        target = self.targets[0]
        if isinstance(target.store.path, RemotePath) and self.heartbeat_folder is not None:
            store = files.digest(str(target.store.path).encode())
            return Path(self.heartbeat_folder) / f"{store}-{target.shards[0][0]:05d}.row"
        return target.store.path / "shards" / f"{files.TEMPORARY_PREFIX}{target.shards[0][0]:05d}.row"


class Heartbeat:
    """Context manager that records the row being decoded and the worker's address in the heartbeat file.

    A local file is overwritten in place, which takes 10 µs a track. The file is removed when the context ends.

    Args:
        path: `Task.heartbeat_path`.
    """

    def __init__(self, path: Place) -> None:
        from distributed import get_worker

        self._path = path
        try:
            self._worker = get_worker().contact_address
        except ValueError:
            self._worker = "none"

    def __enter__(self) -> Heartbeat:
        if not isinstance(self._path, RemotePath):
            self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        return self

    def record(self, row: int) -> None:
        """Record that the worker starts to decode a row of the task."""
        data = f"{row:8d} {self._worker}\n".encode()
        if isinstance(self._path, RemotePath):
            self._path.write_bytes(data)
        else:
            os.pwrite(self._handle, data, 0)

    def __exit__(self, *_: object) -> None:
        if not isinstance(self._path, RemotePath):
            os.close(self._handle)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


def leave_result(task: Task, result: pa.Table) -> None:
    """Keep the result of a task if its worker is about to leave, beside the heartbeat.

    A worker whose lifetime has ended (`dask worker --lifetime`) still finishes its task, but Dask takes no result from
    it and has another worker repeat the task, which may again last longer than the rest of a lifetime.
    """
    from distributed import Status, get_worker

    try:
        leaves = get_worker().status != Status.running
    except ValueError:  # there is no Dask worker
        return
    if leaves:
        parquet.write_table(_result_path(task), result)


def take_result(task: Task) -> pa.Table | None:
    """Return the result that a worker has left of a task, and remove it; None if there is none."""
    path = _result_path(task)
    try:
        result = parquet.read_table(path)
    except FileNotFoundError:
        return None
    path.unlink()
    return result


def _result_path(task: Task) -> Place:
    return task.heartbeat_path.parent / f"{files.TEMPORARY_PREFIX}{task.id}.result"


def read_heartbeat(task: Task) -> tuple[int, str] | None:
    """Read the heartbeat file of a task.

    Returns:
        The row that is being decoded, or was when the worker died, and the worker's address; None if no row has been
        started.
    """
    try:
        row, worker = task.heartbeat_path.read_bytes().decode().split()
        return int(row), worker
    except (OSError, ValueError):
        return None
