"""The shards that a task writes: opened, filled and committed one after the other."""

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
from mgc.pipeline.storage import files
from mgc.pipeline.storage.remote import RemotePath, scratch_directory
from mgc.pipeline.store.manifest import write_fragment
from mgc.pipeline.store.shard import ShardWriter
from mgc.pipeline.store.store import Store


class Output:
    """The shards of one store, one open at a time."""

    def __init__(self, target: Target) -> None:
        self.store = target.store
        self.spec = target.store.spec
        self._shards = iter(target.shards)
        self._stop = 0
        self._shard: int | None = None
        self.writer: ShardWriter
        self._rows: list[dict[str, Any]] = []

    def advance_to(self, row: int) -> None:
        """Commit the open shard where its last track is done, and open the one that `row` belongs to."""
        if row < self._stop:
            return
        if self._shard is not None:
            self._commit()
        following = next(self._shards, None)
        if following is not None:
            self._shard, _, self._stop = following
            folder = self.store.path / "shards"
            if isinstance(folder, RemotePath):
                self._temporary = Path(scratch_directory()) / f"{files.TEMPORARY_PREFIX}{uuid.uuid4().hex}.zarr"
            else:
                self._temporary = folder / f"{files.TEMPORARY_PREFIX}{os.getpid()}-{self._shard:05d}.zarr"
            shutil.rmtree(self._temporary, ignore_errors=True)
            self.writer = ShardWriter(self._temporary, self.spec)

    def record(self, row: Mapping[str, Any], first_frame: int, saturated: int, gaps: list[list[int]]) -> None:
        """The manifest row of the track whose frames came last."""
        self._rows.append(
            {
                **row,
                "saturated": saturated,
                "gaps": gaps or None,
                "shard": self._shard,
                "first_frame": first_frame,
                "n_frames": self.writer.n_frames - first_frame,
            }
        )

    def record_variant(self, fate: Mapping[str, Any], first_frame: int) -> None:
        """What became of a variant of that track: its frames came last."""
        row = self._rows[-1]
        frames = {"first_frame": first_frame, "n_frames": self.writer.n_frames - first_frame}
        row["variants"] = [*(row["variants"] or ()), {**fate, **frames}]

    def _commit(self) -> None:
        assert self._shard is not None
        self.writer.close()
        commit(self.store, self._shard, self._temporary, self._rows)
        self._rows, self._shard = [], None

    def discard(self) -> None:
        """Remove what an error left unfinished."""
        if self._shard is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


def commit(store: Store, shard: int, temporary: Path, rows: list[dict[str, Any]]) -> None:
    """Give a finished shard its name and write its manifest rows: whoever finds the fragment finds the shard whole."""
    final = store.shard_path(shard)
    shard_files = files.folder_checksums(temporary, final.name)
    files.replace_folder(temporary, final)
    write_fragment(store, shard, pa.Table.from_pylist(rows, MANIFEST_SCHEMA), shard_files)
