"""Tables of the tags of a dataset's files, cached beside the stores: only new and changed files are read."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from mgc.pipeline.datasets.parsed import SETTLED_NS
from mgc.pipeline.datasets.tags import Tags, read_tags
from mgc.pipeline.datasets.tracks import unescape
from mgc.pipeline.storage import files, parquet

#: Version of `tags.read_tags`: another one makes the caches of earlier versions void.
_VERSION = b"1"
_KEY = b"mgc.tags"
#: Number of files beyond which it is also cached that no file has tags.
_MANY = 1_000

_SIGNATURE = ["path", "size", "mtime_ns"]
_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
        *(pa.field(name, pa.int32() if name == "n_genres" else pa.string()) for name in Tags._fields),
    ]
)


def tag_table(root: Path, paths: Sequence[str], cache_folder: Path | None) -> list[Tags]:
    """Read the tags of files.

    Args:
        root: local folder that the paths are relative to.
        paths: paths as in a track table.
        cache_folder: folder of the cache; None disables it, and so does a folder that cannot be written.

    Returns:
        The tags of each file, in the order of `paths`; those of a missing or irregular file are empty.
    """
    cache = cache_folder and cache_folder / f".tags-{files.digest(os.fsencode(root))[:12]}.parquet"
    known = _read_cache(cache) if cache else {}
    start = time.time_ns()
    rows: list[tuple[str, int, int, Tags]] = []
    tags = []
    for path in paths:
        file = root / os.fsdecode(unescape(path))
        status = _status(file)
        if status is None:
            tags.append(Tags())
            continue
        signature = (path, *status)
        if (of_file := known.get(signature)) is None:
            of_file = read_tags(file)
        tags.append(of_file)
        if start - status[1] > SETTLED_NS:  # a file changed more recently may change again without another time
            rows.append((*signature, of_file))
    worthwhile = known or len(rows) > _MANY or any(row[3] != Tags() for row in rows)
    if cache and worthwhile and {row[:3] for row in rows} != known.keys():
        columns = zip(*((path, size, mtime, *of_file) for path, size, mtime, of_file in rows), strict=True)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, _SCHEMA, strict=True)] if rows else []
        table = pa.table(arrays, schema=_SCHEMA) if rows else _SCHEMA.empty_table()
        with contextlib.suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(cache, table.replace_schema_metadata({_KEY: _VERSION}))
    return tags


def _status(file: Path) -> tuple[int, int] | None:
    """Size in bytes and modification time in ns of a regular file, None for others: opening a pipe would block."""
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _read_cache(cache: Path) -> dict[tuple[str, int, int], Tags]:
    """Read a cache: tags by path, size and modification time; empty if it is missing, damaged or of another version."""
    try:
        table = parquet.read_table(cache)
        if (table.schema.metadata or {}).get(_KEY) != _VERSION:
            return {}
        rows = table.select(_SCHEMA.names).to_pydict()
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return {}
    signatures = zip(*(rows[name] for name in _SIGNATURE), strict=True)
    values = zip(*(rows[name] for name in Tags._fields), strict=True)
    return {signature: Tags(*row) for signature, row in zip(signatures, values, strict=True)}
