"""Columns of text with millions of rows: Python objects for one block of rows at a time, Arrow arrays for all others.

A Python string takes 49 bytes more than its characters; a row of seven cells took 1,300 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa

_Item = TypeVar("_Item")

#: Rows that are Python objects at the same time: 5 MB in a list of seven columns.
BLOCK_ROWS = 8_192


def batched(rows: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Yield rows in lists of BLOCK_ROWS; the last one may be shorter."""
    iterator = iter(rows)
    while block := list(islice(iterator, BLOCK_ROWS)):
        yield block


def collect(texts: Iterable[str | None]) -> pa.ChunkedArray:
    """Collect texts in a column of strings.

    Args:
        texts: text of each row; best a generator, which makes them one by one.
    """
    return pa.chunked_array([_compact(pa.array(block, pa.string())) for block in batched(texts)], pa.string())


def to_binary(cells: Sequence[str]) -> pa.Array:
    """Convert texts, in which surrogate escapes stand for bytes that are not UTF-8, to bytes."""
    try:
        return _compact(pa.array(cells, pa.binary()))
    except UnicodeEncodeError:
        return _compact(pa.array([cell.encode("utf-8", "surrogateescape") for cell in cells], pa.binary()))


def _compact(array: pa.Array) -> pa.Array:
    """Copy an array into buffers of its size: Arrow's allocator reserves 3.5 times as much for one that has grown."""
    return pa.concat_arrays([array, array[:0]])


def each(column: pa.ChunkedArray) -> Iterator[Any]:
    """Yield the values of a column of text or bytes as Python objects, None for null."""
    for start in range(0, len(column), BLOCK_ROWS):
        for chunk in column.slice(start, BLOCK_ROWS).chunks:
            yield from chunk.to_numpy(zero_copy_only=False).tolist()
