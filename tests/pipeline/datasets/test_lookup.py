"""Lookups by sorted hashes agree with Arrow's, whatever the hashes are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from mgc.pipeline.datasets import blocks, lookup
from mgc.pipeline.datasets.lookup import Lookup, are_repeated, repeated

COLUMNS = st.lists(st.lists(st.sampled_from([None, "", "a", "b", "aa", "é", "x" * 40]), max_size=5), max_size=4).map(
    lambda chunks: pa.chunked_array(chunks, pa.string())
)


def of_length(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Hashes of which many collide: the lengths of the texts."""
    return pc.fill_null(pc.utf8_length(texts), -1).to_numpy(zero_copy_only=False).astype(np.int64)


HASHES = st.sampled_from([lookup.hashes, of_length])


@given(COLUMNS, COLUMNS, HASHES, st.integers(1, 9))
def test_rows_are_those_of_index_in(column, texts, hashes: Callable, block: int):
    with patch.object(lookup, "hashes", hashes), patch.object(blocks, "BLOCK_ROWS", block):
        rows = Lookup(column).rows(texts)
        assert rows.dtype == np.int64
        expected = pc.index_in(texts, column.drop_null().combine_chunks())
        known = np.flatnonzero(column.is_valid())
        assert rows.tolist() == [-1 if at is None else known[at] for at in expected.to_pylist()]
        assert Lookup(column).contains(texts).tolist() == (rows >= 0).tolist()
        assert Lookup(column).indices(texts).to_pylist() == [None if row < 0 else row for row in rows]


@given(COLUMNS, HASHES)
def test_repeated_rows_are_those_of_equal_texts(column, hashes: Callable):
    counts = Counter(column.to_pylist())
    with patch.object(lookup, "hashes", hashes):
        expected = [row for row, text in enumerate(column.to_pylist()) if text is not None and counts[text] > 1]
        assert repeated(column).tolist() == expected


@given(st.lists(st.integers(-2, 4)))
def test_repeated_numbers(numbers):
    expected = [numbers.count(number) > 1 for number in numbers]
    assert are_repeated(np.array(numbers, np.int64)).tolist() == expected


def test_hashes_tell_texts_apart():
    texts = pa.array([f"{i:05}" for i in range(20_000)] + [None])
    hashes = lookup.hashes(texts)
    assert len(np.unique(hashes)) == len(texts)
    assert hashes[:-1].min() >= 0
    assert hashes[-1] == -1
