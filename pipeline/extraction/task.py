"""Tasks: what a worker is given, and the beacon by which it says how far it is."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from mgc.pipeline.storage import files
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.store.store import Store


@dataclass(frozen=True)
class Target:
    """Shards of one store to write: `(shard, first track, stop)` of the task's tracks, in their order."""

    store: Store
    shards: list[tuple[int, int, int]]


@dataclass(frozen=True)
class Task:
    """Tracks that one worker decodes, one after the other.

    Attributes:
        root: folder or URL that the paths are relative to.
        tracks: rows of `DATASET_SCHEMA`.
        targets: the stores that get their frames.
        verdicts: reasons already known by row: tracks that killed or hung a worker are not tried again.
        max_duration: seconds beyond which a track is `too-long`.
        beacons: of stores at a URL: a folder that all workers and the client share; None where they share none.
    """

    root: str
    tracks: pa.Table
    targets: list[Target]
    verdicts: dict[int, str] = field(default_factory=dict)
    max_duration: float | None = None
    beacons: str | None = None

    @property
    def beacon(self) -> Place:
        """A file that tells which row is being decoded, by which worker: it outlives one that dies or hangs."""
        target = self.targets[0]
        if isinstance(target.store.path, RemotePath) and self.beacons is not None:
            store = files.digest(str(target.store.path).encode())
            return Path(self.beacons) / f"{store}-{target.shards[0][0]:05d}.row"
        return target.store.path / "shards" / f"{files.TEMPORARY}{target.shards[0][0]:05d}.row"


class Beacon:
    """Keeps the row at work and the worker's address in a file, rewritten in place (10 µs a track), or in an object."""

    def __init__(self, path: Place) -> None:
        from distributed import get_worker

        self._path = path
        try:
            self._worker = get_worker().contact_address
        except ValueError:
            self._worker = "none"

    def __enter__(self) -> Beacon:
        if not isinstance(self._path, RemotePath):
            self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        return self

    def show(self, row: int) -> None:
        """Say that a row is begun with."""
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
