"""Output of a task: the shards of one store, opened, filled and committed one after the other."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA
from mgc.pipeline.extraction.task import Target
from mgc.pipeline.features.spec import Clipped
from mgc.pipeline.storage import files
from mgc.pipeline.storage.remote import RemotePath, scratch_directory
from mgc.pipeline.store.manifest import write_fragment
from mgc.pipeline.store.shard import ShardWriter
from mgc.pipeline.store.store import Store


class Output:
    """Writes the shards of one store, one at a time.

    Args:
        target: the store and its shards.

    Attributes:
        store: the store.
        spec: feature of the store.
        writer: writer of the open shard.
    """

    def __init__(self, target: Target) -> None:
        self.store = target.store
        self.spec = target.store.spec
        self._shards = iter(target.shards)
        self._stop = 0
        self._shard: int | None = None
        self.writer: ShardWriter
        self._rows: list[dict[str, Any]] = []

    def advance_to(self, row: int) -> None:
        """Make sure that the shard of a track is open; commit the open shard if the track lies behind its last one.

        Args:
            row: row of the track in the task; the number of tracks commits the last shard.
        """
        if row < self._stop:
            return
        if self._shard is not None:
            self._commit()
        next_range = next(self._shards, None)
        if next_range is not None:
            self._shard, _, self._stop = next_range
            self._temporary = temporary_path(self.store, self._shard)
            self.writer = ShardWriter(self._temporary, self.spec)

    def record(self, row: Mapping[str, Any], first_frame: int, saturated: Clipped, gaps: list[list[int]]) -> None:
        """Add a manifest row for the track whose frames were appended last.

        Args:
            row: the row, without the columns that differ between stores.
            first_frame: first frame of the track in the shard.
            saturated: numbers of values that were clipped to the range of the stored dtype.
            gaps: [first, stop) ranges of the track's frames that depend on non-finite samples.
        """
        self._rows.append(
            {
                **row,
                "saturated": saturated.total,
                "saturated_above": saturated.above,
                "gaps": gaps or None,
                "shard": self._shard,
                "first_frame": first_frame,
                "n_frames": self.writer.n_frames - first_frame,
            }
        )

    def record_variant(self, variant: Mapping[str, Any], first_frame: int) -> None:
        """Add a variant, whose frames were appended last, to the manifest row that was added last.

        Args:
            variant: fields of `VARIANT_TYPE` without `first_frame` and `n_frames`.
            first_frame: first frame of the variant in the shard.
        """
        row = self._rows[-1]
        frames = {"first_frame": first_frame, "n_frames": self.writer.n_frames - first_frame}
        row["variants"] = [*(row["variants"] or ()), {**variant, **frames}]

    def _commit(self) -> None:
        assert self._shard is not None
        self.writer.close()
        commit_shard(self.store, self._shard, self._temporary, self._rows)
        self._rows, self._shard = [], None

    def discard(self) -> None:
        """Delete the open shard, if there is one, after an error."""
        if self._shard is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


def temporary_path(store: Store, shard: int) -> Path:
    """Return the local path that a shard is written to before it is committed; what an earlier run left is removed."""
    folder = store.path / "shards"
    if isinstance(folder, RemotePath):
        return Path(scratch_directory()) / f"{files.TEMPORARY_PREFIX}{uuid.uuid4().hex}.zarr"
    temporary = folder / f"{files.TEMPORARY_PREFIX}{os.getpid()}-{shard:05d}.zarr"
    shutil.rmtree(temporary, ignore_errors=True)
    return temporary


def commit_shard(store: Store, shard: int, temporary: Path, rows: list[dict[str, Any]]) -> None:
    """Move a finished shard to its final path, or upload it, and write its fragment.

    The fragment comes last: if it exists, the shard is complete.

    Args:
        store: the store.
        shard: number of the shard.
        temporary: local path of the finished Zarr group; does not exist afterwards.
        rows: manifest rows of the tracks in the shard.
    """
    final = store.shard_path(shard)
    shard_files = files.folder_checksums(temporary, final.name)
    files.replace_folder(temporary, final)
    write_fragment(store, shard, pa.Table.from_pylist(rows, MANIFEST_SCHEMA), shard_files)
