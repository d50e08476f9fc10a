"""Large tables in temporary files that are mapped into memory: the system takes their pages back when it needs room.

The ids, paths and titles of ten million tracks take 1.5 GB. Each step of an extraction needs a few columns of them.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

#: Tables up to this size in bytes stay in memory.
SMALL_BYTES = 8_000_000


def collect(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Collect record batches in a table, which is mapped if it is larger than SMALL_BYTES.

    The file is in the folder for temporary files. It has no name, so it is gone with the table or the process. What
    finds no room there stays in memory.

    Args:
        batches: the batches, each of which becomes a chunk of the table; best a generator, which makes them one by one.
        schema: schema of all batches.
    """
    waiting: list[pa.RecordBatch] = []
    n_bytes = 0
    following = iter(batches)
    for batch in following:
        waiting.append(batch)
        n_bytes += batch.nbytes
        if n_bytes > SMALL_BYTES:
            return _write(itertools.chain(waiting, following), schema)
    return pa.Table.from_batches(waiting, schema)


def take(table: pa.Table, rows: np.ndarray | pa.Array) -> pa.Table:
    """Return rows of a table, one chunk a column; large columns are mapped, one after the other.

    Args:
        table: the table.
        rows: row numbers, int64 `(n,)`.
    """
    indices = rows if isinstance(rows, pa.Array) else pa.array(rows)
    columns = (whole(column).take(indices) for column in table.columns)
    return pa.Table.from_arrays([*map(_placed, columns)], schema=table.schema)


def combine(table: pa.Table) -> pa.Table:
    """Return a table with one chunk a column; large columns that had several are mapped, one after the other."""
    columns = [c if c.num_chunks == 1 else _placed(c.combine_chunks()) for c in table.columns]
    return pa.Table.from_arrays(columns, schema=table.schema)


def whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array. Unlike `combine_chunks`, it does not copy a column of one chunk."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _placed(array: pa.Array) -> pa.ChunkedArray:
    """Return an array as a column of one chunk, mapped if it is large."""
    schema = pa.schema([pa.field("column", array.type)])
    return collect([pa.record_batch([array], schema)], schema)["column"]


def _write(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Write batches to a temporary file, as far as there is room, and return the table that is mapped from it."""
    written, unwritten = 0, []
    with contextlib.ExitStack() as stack:
        try:
            path = f"/dev/fd/{stack.enter_context(tempfile.TemporaryFile()).fileno()}"
            file = stack.enter_context(pa.OSFile(path, "wb"))
            writer = pa.ipc.new_stream(file, schema)
        except OSError:
            return pa.Table.from_batches(batches, schema)
        for batch in batches:
            try:
                writer.write_batch(batch)
            except OSError:
                unwritten = [batch, *batches]
                break
            written += 1
        reader = pa.ipc.open_stream(pa.memory_map(path)) if written else ()
        table = pa.Table.from_batches([*itertools.islice(reader, written), *unwritten], schema)
    pa.default_memory_pool().release_unused()  # it would keep what the batches took
    return table
