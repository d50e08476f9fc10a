"""Large tables are mapped from files without a name, and hold the same as small ones in memory."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from mgc.pipeline.storage import mapped

SCHEMA = pa.schema([pa.field("text", pa.string(), nullable=False), pa.field("number", pa.int64())])


def make_batches(n: int, rows: int = 100) -> Iterator[pa.RecordBatch]:
    for first in range(n):
        texts = [f"text {first} {row}" for row in range(rows)]
        yield pa.record_batch([texts, [None, *range(rows - 1)]], SCHEMA)


@pytest.mark.parametrize("n", [0, 1, 2, 7])
@pytest.mark.parametrize("limit", [0, 3_000, 10**9])
def test_a_mapped_table_equals_one_in_memory(monkeypatch, tmp_path, n, limit):
    monkeypatch.setattr(mapped, "SMALL_BYTES", limit)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    table = mapped.collect(make_batches(n), SCHEMA)
    assert table.equals(pa.Table.from_batches(make_batches(n), SCHEMA))
    assert table["text"].num_chunks == n
    assert not list(tmp_path.iterdir())


def test_a_large_table_takes_no_memory(monkeypatch):
    monkeypatch.setattr(mapped, "SMALL_BYTES", 10_000)
    before = pa.total_allocated_bytes()
    table = mapped.collect(make_batches(300), SCHEMA)
    assert table.nbytes > 500_000
    assert pa.total_allocated_bytes() - before < 50_000
    order = np.random.default_rng(0).permutation(len(table))
    taken = mapped.take(table, order)
    assert pa.total_allocated_bytes() - before < 50_000
    assert taken.equals(table.take(order))
    assert taken.schema == SCHEMA
    assert [column.num_chunks for column in taken.columns] == [1, 1]


def test_without_a_folder_it_is_in_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(mapped, "SMALL_BYTES", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    assert mapped.collect(make_batches(3), SCHEMA).equals(pa.Table.from_batches(make_batches(3), SCHEMA))


@pytest.mark.parametrize("room", [0, 1, 500, 4_000, 20_000, 50_000])
def test_what_finds_no_room_is_in_memory(monkeypatch, room):
    """The largest file that this process may write stands for the room on the disk."""
    expected = pa.Table.from_batches(make_batches(20), SCHEMA)
    assert expected.nbytes > 40_000
    monkeypatch.setattr(mapped, "SMALL_BYTES", 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        table = mapped.collect(make_batches(20), SCHEMA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert table.equals(expected)


def test_errors_of_the_batches_are_raised(monkeypatch):
    def failing() -> Iterator[pa.RecordBatch]:
        yield from make_batches(2)
        raise FileNotFoundError("a list")

    monkeypatch.setattr(mapped, "SMALL_BYTES", 0)
    with pytest.raises(FileNotFoundError, match="a list"):
        mapped.collect(failing(), SCHEMA)
