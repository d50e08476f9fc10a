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


def dtype_for(low: int, high: int, smallest: type[np.signedinteger] = np.int32) -> np.dtype:
    """Return the smallest signed integer type from `smallest` on that holds all values from `low` to `high`."""
    low, high = min(low, -1), min(-high - 1, -1)
    return np.result_type(smallest, np.min_scalar_type(low), np.min_scalar_type(high))


def narrowed(values: np.ndarray) -> np.ndarray:
    """Return a column of whole numbers in the type that `narrow` gives it: itself, not a copy, if it has this type."""
    low, high = _range(len(values), values.__getitem__)
    return values if low < high and values.dtype == dtype_for(low, high) else narrow(len(values), values.__getitem__)


def narrow(n: int, part: Callable[[slice], np.ndarray], *, codes: bool = False) -> np.ndarray:
    """Compute a column of whole numbers, in int32 if all of them fit, else in int64.

    Args:
        n: number of rows.
        part: returns the values of a slice of the rows; called twice for each, the first time for their range.
        codes: use int8 or int16 if the values fit. Not for numbers to calculate with: NumPy's results would overflow.

    Returns:
        Integers `(n,)`. If all are equal it is read-only, and one value is in memory.
    """
    if not n:
        return np.empty(0, np.int64)
    low, high = _range(n, part)
    dtype = dtype_for(low, high, np.int8 if codes else np.int32)
    if low == high:
        return np.broadcast_to(np.array(low, dtype), n)
    column = np.empty(n, dtype)
    for rows in parts(n):
        column[rows] = part(rows)
    return column


def _range(n: int, part: Callable[[slice], np.ndarray]) -> tuple[int, int]:
    """Return the least and the largest value of a column, see `narrow`; zeros without rows."""
    ranges = [(int(values.min()), int(values.max())) for values in map(part, parts(n))]
    return min((low for low, _ in ranges), default=0), max((high for _, high in ranges), default=0)
