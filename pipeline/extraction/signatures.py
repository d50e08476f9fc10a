"""Size and modification time of a dataset's files, which tell that they have not changed since they were extracted."""

from __future__ import annotations

import contextlib
import os

import numpy as np
import pyarrow as pa

from mgc.pipeline.audio import inspection
from mgc.pipeline.datasets import Dataset, blocks
from mgc.pipeline.datasets.tracks import unescape
from mgc.pipeline.storage.remote import RemotePath
from mgc.pipeline.storage.urls import stat_objects


def with_signatures(dataset: Dataset, tracks: pa.Table) -> pa.Table:
    """Append `size` and `mtime_ns` of each track's file to a track table, see `file_signatures`."""
    sizes, times = file_signatures(dataset, tracks)
    return tracks.append_column("size", sizes).append_column("mtime_ns", times)


def file_signatures(dataset: Dataset, tracks: pa.Table) -> tuple[pa.Array, pa.Array]:
    """Return the size in bytes and the modification time in ns of each track's file, int64; null without a file."""
    signatures = np.full((2, len(tracks)), -1)
    if isinstance(dataset.root, RemotePath):
        objects = stat_objects(dataset.root, [unescape(path) for path in tracks["path"].to_pylist()])
        for i, status in enumerate(objects):
            if status is not None:
                signatures[:, i] = status.st_size, status.st_mtime_ns
    else:
        root = os.fsencode(dataset.root) + b"/"
        for rows, paths in blocks.iterate(tracks["path"]):
            for i, path in enumerate(paths, rows.start):
                with contextlib.suppress(inspection.UnusableAudio):
                    file_stat = inspection.stat_file(root + unescape(path))
                    signatures[:, i] = file_stat.st_size, file_stat.st_mtime_ns
    absent = signatures[0] < 0
    return pa.array(signatures[0], mask=absent), pa.array(signatures[1], mask=absent)
