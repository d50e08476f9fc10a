"""Tables of the tags of a dataset's files, cached beside the stores: only new and changed files are read."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import blocks
from mgc.pipeline.datasets.lookup import Lookup
from mgc.pipeline.datasets.parsed import SETTLED_NS
from mgc.pipeline.datasets.tags import Tags, read_tags
from mgc.pipeline.datasets.tracks import rows_differ, unescape
from mgc.pipeline.storage import files, mapped, parquet

#: Version of `tags.read_tags`: another one makes the caches of earlier versions void.
_VERSION = b"1"
_KEY = b"mgc.tags"
#: Number of files beyond which it is also cached that no file has tags.
_MANY = 1_000

_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
        *(pa.field(name, pa.int32() if name == "n_genres" else pa.string()) for name in Tags._fields),
    ]
)


class TagTable:
    """Tags of files in columns of Arrow; iterated, they are `Tags`. A million of these objects would take a gigabyte.

    Args:
        columns: a column for each field of `Tags`.
    """

    def __init__(self, columns: pa.Table) -> None:
        self._columns = columns.select(Tags._fields)

    def __len__(self) -> int:
        return len(self._columns)

    def __iter__(self) -> Iterator[Tags]:
        return map(Tags, *map(blocks.each, self._columns.columns))


def tag_table(root: Path, paths: pa.ChunkedArray, cache_folder: Path | None) -> TagTable:
    """Read the tags of files.

    Args:
        root: local folder that the paths are relative to.
        paths: paths as in a track table.
        cache_folder: folder of the cache; None disables it, and so does a folder that cannot be written.

    Returns:
        The tags of each file, in the order of `paths`; those of a missing or irregular file are empty.
    """
    cache = cache_folder and cache_folder / f".tags-{files.digest(os.fsencode(root))[:12]}.parquet"
    known = _read_cache(cache) if cache else _SCHEMA.empty_table()
    lookup = Lookup(known["path"])
    start = time.time_ns()
    table = mapped.collect(_read_blocks(root, paths, known, lookup), _SCHEMA)
    # A file changed more recently may change again without another time. A null is that of a missing file.
    settled = table.filter(pc.less(table["mtime_ns"], start - SETTLED_NS))
    tagged = any(settled[name].null_count < len(settled) for name in Tags._fields if name != "n_genres")
    if cache and (len(known) or len(settled) > _MANY or tagged) and not _is_known(settled, known, lookup):
        with contextlib.suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(cache, settled.replace_schema_metadata({_KEY: _VERSION}))
    return TagTable(table)


def _read_blocks(root: Path, paths: pa.ChunkedArray, known: pa.Table, lookup: Lookup) -> Iterator[pa.RecordBatch]:
    """Yield the tags of files (`_SCHEMA`), block by block; size and time of a missing or irregular file are null.

    Args:
        root, paths: see `tag_table`.
        known: the cache.
        lookup: lookup of its paths.
    """
    for rows, names in blocks.iterate(paths):
        cached = known.take(lookup.indices(paths[rows])).to_pylist()
        values = [(name, *_signature_and_tags(root, name, record)) for name, record in zip(names, cached, strict=True)]
        yield blocks.record_batch(values, _SCHEMA)


def _signature_and_tags(root: Path, name: str, cached: dict) -> tuple:
    """Size in bytes and modification time in ns of a file, None if it is missing or irregular, and its tags."""
    file = root / os.fsdecode(unescape(name))
    signature = _signature(file)
    if signature is None:
        return (None, None, *Tags())
    if signature == (cached["size"], cached["mtime_ns"]):
        return (*signature, *(cached[field] for field in Tags._fields))
    return (*signature, *read_tags(file))


def _signature(file: Path) -> tuple[int, int] | None:
    """Size in bytes and modification time in ns of a regular file, None for others: opening a pipe would block."""
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _is_known(table: pa.Table, known: pa.Table, lookup: Lookup) -> bool:
    """Return whether a cache holds the same files as a table, with the same sizes and times."""
    if len(table) != len(known):
        return False
    before = known.take(lookup.indices(table["path"]))
    return not any(rows_differ(table[name], before[name]).any() for name in ("path", "size", "mtime_ns"))


def _read_cache(cache: Path) -> pa.Table:
    """Read a cache (`_SCHEMA`); empty if it is missing, damaged or of another version."""
    try:
        table = parquet.read_table(cache)
        if (table.schema.metadata or {}).get(_KEY) != _VERSION:
            return _SCHEMA.empty_table()
        return mapped.combine(table.select(_SCHEMA.names).cast(_SCHEMA))
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return _SCHEMA.empty_table()
