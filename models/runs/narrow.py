"""Columns of whole numbers in few bytes, computed part by part so that no wide copy of a column is ever in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

#: Rows of a part. Its temporary arrays are 64-bit: 8 MB each.
PART = 1 << 20


def parts(n: int) -> Iterator[slice]:
    """Yield consecutive slices of at most `PART` rows that cover `n` rows."""
    for begin in range(0, n, PART):
        yield slice(begin, min(begin + PART, n))


def dtype_for(low: int, high: int) -> np.dtype:
    """Return the smallest signed integer type that holds all values from `low` to `high`."""
    return np.result_type(np.min_scalar_type(min(low, -1)), np.min_scalar_type(min(-high - 1, -1)))


def narrow(n: int, part: Callable[[slice], np.ndarray]) -> np.ndarray:
    """Compute a column of whole numbers and hold it in the smallest signed type that its values fit in.

    Args:
        n: number of rows.
        part: returns the values of a slice of the rows; called twice for each, the first time for their range.

    Returns:
        Integers `(n,)`. If all are equal it is read-only, and one value is in memory.
    """
    ranges = [(int(values.min()), int(values.max())) for values in map(part, parts(n))]
    if not ranges:
        return np.empty(0, np.int64)
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    dtype = dtype_for(low, high)
    if low == high:
        return np.broadcast_to(np.array(low, dtype), n)
    column = np.empty(n, dtype)
    for rows in parts(n):
        column[rows] = part(rows)
    return column
