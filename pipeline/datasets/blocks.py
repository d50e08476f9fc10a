"""Columns of text with millions of rows: Python objects for one block of rows at a time, Arrow arrays for all others.

A Python string takes 49 bytes more than its characters; a row of seven cells took 1,300 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa

from mgc.pipeline.storage import mapped

_Item = TypeVar("_Item")

#: Rows that are Python objects at the same time: 5 MB in a list of seven columns.
BLOCK_ROWS = 8_192

_TEXT = pa.schema([pa.field("text", pa.string())])


def batched(rows: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Yield rows in lists of BLOCK_ROWS; the last one may be shorter."""
    iterator = iter(rows)
    while block := list(islice(iterator, BLOCK_ROWS)):
        yield block


def collect(texts: Iterable[str | None]) -> pa.ChunkedArray:
    """Collect texts in a column of strings, which is mapped if it is large.

    Args:
        texts: text of each row; best a generator, which makes them one by one.
    """
    return join(_compact(pa.array(block, pa.string())) for block in batched(texts))


def join(arrays: Iterable[pa.Array]) -> pa.ChunkedArray:
    """Join arrays of strings to one column, which is mapped if it is large."""
    return mapped.collect((pa.record_batch([array], _TEXT) for array in arrays), _TEXT)["text"]


def record_batch(rows: Sequence[tuple], schema: pa.Schema) -> pa.RecordBatch:
    """Convert rows of Python values, at least one, to a record batch."""
    columns = zip(*rows, strict=True)
    return pa.record_batch(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def to_binary(cells: Sequence[str]) -> pa.Array:
    """Convert texts, in which surrogate escapes stand for bytes that are not UTF-8, to bytes."""
    try:
        return _compact(pa.array(cells, pa.binary()))
    except UnicodeEncodeError:
        return _compact(pa.array([cell.encode("utf-8", "surrogateescape") for cell in cells], pa.binary()))


def _compact(array: pa.Array) -> pa.Array:
    """Copy an array into buffers of its size: Arrow's allocator reserves 3.5 times as much for one that has grown."""
    return pa.concat_arrays([array, array[:0]])


def each(column: pa.Array | pa.ChunkedArray) -> Iterator[Any]:
    """Yield the values of a column of text or bytes as Python objects, None for null."""
    for _, values in iterate(column):
        yield from values


def iterate(column: pa.Array | pa.ChunkedArray) -> Iterator[tuple[slice, list[Any]]]:
    """Yield the values of a column of text or bytes as Python objects, in blocks, each with the slice of its rows."""
    for first in range(0, len(column), BLOCK_ROWS):
        rows = slice(first, min(first + BLOCK_ROWS, len(column)))
        yield rows, column[rows].to_numpy(zero_copy_only=False).tolist()
