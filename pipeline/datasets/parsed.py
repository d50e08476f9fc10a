"""Cache of parsed metadata beside the stores, so that 250 MB of CSV need not be parsed by every call.

A cache file begins with a digest of the rest, and names its source with size and modification time. It is used only if
all of these match; deleting it costs one more parse.
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
_DIGEST_LENGTH = 32  # hexadecimal digits of `files.digest`
#: Age in ns that a source must have to be cached. A file changed more recently may change again without another time or
#: size: file systems count time in steps of up to two seconds.
SETTLED_NS = 2_000_000_000


def cached_parse(source: Path, variant: str, folder: Path | None, parse: Callable[[], pa.Table]) -> pa.Table:
    """Return the table that `parse` makes of a file, from the cache if the file has not changed since.

    Args:
        source: the file, an absolute path.
        variant: everything else that the table depends on: version of the parser, and its options.
        folder: folder of the cache files; None disables the cache, and so does a folder that cannot be written.
        parse: reads the file.
    """
    if folder is None:
        return parse()
    cache = folder / f".tracks-{files.digest(f'{source}/{variant}'.encode())[:12]}.cache"
    key = _key(source, variant)
    if key is not None and (table := _read(cache, key)) is not None:
        return table
    start = time.time_ns()
    table = parse()
    if key is not None and key == _key(source, variant) and start - key["mtime_ns"] > SETTLED_NS:
        data = parquet.table_bytes(table.replace_schema_metadata({_KEY: json.dumps(key)}))
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            files.write_bytes(cache, files.digest(data).encode() + data)
    return table


def _key(source: Path, variant: str) -> dict | None:
    """The file's path, size and modification time, and the variant; None if it does not exist (`parse` then raises)."""
    try:
        status = source.stat()
    except OSError:
        return None
    path = os.fsencode(source).decode("utf-8", errors="backslashreplace")
    return {"path": path, "size": status.st_size, "mtime_ns": status.st_mtime_ns, "variant": variant}


def _read(cache: Path, key: dict) -> pa.Table | None:
    """The table in a cache file; None if the file is missing or damaged, or has another key."""
    try:
        with parquet.open_native(cache) as file:
            data = file.read_buffer()
        digest, content = bytes(data[:_DIGEST_LENGTH]), data[_DIGEST_LENGTH:]
        if digest != files.digest(memoryview(content)).encode():
            return None
        table = parquet.read_table_file(pa.BufferReader(content), cache)
    except OSError:
        return None
    same = json.loads((table.schema.metadata or {}).get(_KEY, b"null")) == key
    return table.replace_schema_metadata() if same else None
