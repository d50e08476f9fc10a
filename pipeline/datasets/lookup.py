"""Row numbers of texts in columns of millions, by sorted hashes: 16 bytes a row, and exact.

`pyarrow.compute.index_in` copies its value set into a hash table of some 100 bytes a row, anew in each call.
"""

from __future__ import annotations

import sys
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import blocks
from mgc.pipeline.storage import mapped


def hashes(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return Python's hashes of texts without their sign, 63 bits, int64 `(n,)`; null is -1."""
    result = np.empty(len(texts), np.int64)
    for rows, values in blocks.iterate(texts):
        result[rows] = [-1 if text is None else hash(text) & sys.maxsize for text in values]
    return result


def repeated(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return the rows whose text is also in another row, ascending, int64; null is no text."""
    keys = hashes(texts)
    rows = np.flatnonzero(are_repeated(keys) & (keys >= 0))
    if not len(rows):
        return rows
    found = mapped.whole(texts.take(pa.array(rows)))
    number = pc.index_in(found, found).to_numpy()  # nearly all are equal, not only their hashes
    return rows[np.bincount(number)[number] > 1]


def are_repeated(numbers: np.ndarray) -> np.ndarray:
    """Return which numbers are there more than once, bool `(n,)`."""
    order = np.argsort(numbers)
    ordered = numbers[order]
    equal = np.flatnonzero(ordered[1:] == ordered[:-1])
    result = np.zeros(len(numbers), bool)
    result[order[equal]] = result[order[equal + 1]] = True
    return result


class Lookup:
    """Rows of the texts of a column: `pyarrow.compute.index_in` with a value set that is prepared once.

    Args:
        texts: texts, string `(n,)`; of equal ones the first counts.
    """

    def __init__(self, texts: pa.Array | pa.ChunkedArray) -> None:
        self._texts = mapped.whole(texts)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Hashes in ascending order, and the row of each, int64 `(n,)`."""
        keys = hashes(self._texts)
        order = np.argsort(keys, kind="stable")
        return keys[order], order

    def rows(self, texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return the row of each text, -1 for one that the column does not have and for null, int64 `(m,)`."""
        if not len(texts) or not len(self._texts):
            return np.full(len(texts), -1)
        keys, order = self._sorted
        wanted = hashes(texts)
        place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        rows = np.where((keys[place] == wanted) & (wanted >= 0), order[place], -1)
        del place, wanted
        for first in range(0, len(rows), blocks.BLOCK_ROWS):
            block = slice(first, first + blocks.BLOCK_ROWS)
            equal = pc.equal(mapped.whole(texts[block]), self._texts.take(_nullable(rows[block])))
            if pc.all(equal, skip_nulls=True).as_py() is False:  # other texts have these hashes
                values = mapped.whole(texts[block])
                exact = pc.index_in(values, self._texts, skip_nulls=True)
                rows[block] = pc.fill_null(exact, -1).to_numpy()
        return rows

    def contains(self, texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return which texts the column has, bool `(m,)`."""
        return self.rows(texts) >= 0

    def indices(self, texts: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Return the row of each text as `index_in` does: null for one that the column does not have, int64 `(m,)`."""
        return _nullable(self.rows(texts))


def _nullable(rows: np.ndarray) -> pa.Array:
    """Convert row numbers, null for negative ones."""
    return pa.array(rows, mask=rows < 0)
