"""Parsed metadata, kept beside the stores: 250 MB of CSV need not be parsed by every call.

A copy is what it says or it is not used: it begins with a digest of its bytes, and names the file it was made from with
its size and time. Deleting it costs one more parse.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from mgc.pipeline.storage import files, parquet

_KEY = b"mgc.parsed"
_DIGEST = 32  # hexadecimal digits of `files.digest`
#: A file changed so recently may change again without another time or size: file systems count in up to two seconds.
SETTLED_NS = 2_000_000_000


def cached_parse(source: Path, variant: str, folder: Path | None, parse: Callable[[], pa.Table]) -> pa.Table:
    """What `parse` makes of a file, or the copy of it that an earlier call left.

    Args:
        source: the file, an absolute path.
        variant: what else the result depends on: the version of the parser, and its options.
        folder: where copies are; None keeps none. One that cannot be written keeps none either.
        parse: reads the file.
    """
    if folder is None:
        return parse()
    copy = folder / f".tracks-{files.digest(f'{source}/{variant}'.encode())[:12]}.cache"
    key = _key(source, variant)
    if key is not None and (table := _read(copy, key)) is not None:
        return table
    begun = time.time_ns()
    table = parse()
    if key is not None and key == _key(source, variant) and begun - key["mtime_ns"] > SETTLED_NS:
        data = parquet.table_bytes(table.replace_schema_metadata({_KEY: json.dumps(key)}))
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            files.write_bytes(copy, files.digest(data).encode() + data)
    return table


def _key(source: Path, variant: str) -> dict | None:
    """What tells one state of a file from another; None where it is not there, which `parse` is to say."""
    try:
        found = source.stat()
    except OSError:
        return None
    path = os.fsencode(source).decode("utf-8", errors="backslashreplace")
    return {"path": path, "size": found.st_size, "mtime_ns": found.st_mtime_ns, "variant": variant}


def _read(copy: Path, key: dict) -> pa.Table | None:
    """The table of a copy; None where there is none, or it is damaged, or one of something else."""
    try:
        with parquet.open_native(copy) as file:
            data = file.read_buffer()
        digest, content = bytes(data[:_DIGEST]), data[_DIGEST:]
        if digest != files.digest(memoryview(content)).encode():
            return None
        table = parquet.read_table_file(pa.BufferReader(content), copy)
    except OSError:
        return None
    same = json.loads((table.schema.metadata or {}).get(_KEY, b"null")) == key
    return table.replace_schema_metadata() if same else None
