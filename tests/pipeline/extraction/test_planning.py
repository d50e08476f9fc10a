"""Planning: the journal holds the plan, and a large dataset takes little memory."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import flip
from track_tables import make_tracks

from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.splits import assign_splits
from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA
from mgc.pipeline.extraction import journal, planning
from mgc.pipeline.extraction.journal import JOURNAL_SCHEMA
from mgc.pipeline.features import Mel
from mgc.pipeline.store import manifest
from mgc.pipeline.store.store import Store

#: Limit of the Python memory that planning takes per track. A dict of one row takes 1,000 bytes.
BYTES_PER_TRACK = 250


@pytest.fixture
def plan_of(tmp_path: Path):
    """Function that plans an empty store of `n` tracks, and returns the plan and Python's peak memory in bytes."""

    def plan(n: int) -> tuple[planning.Plan, int]:
        tracks = make_tracks(n)
        store = Store.create(tmp_path / str(n), Mel(), {"name": "x", "root": str(tmp_path), "genres": [], "seed": 0})
        (store.path / "shards").mkdir()
        dataset = Dataset("x", tmp_path, tmp_path, "list", (), tracks, ())
        tracemalloc.start()
        try:
            assigned, _ = assign_splits(tracks, seed=0)
            result = planning.make_plan(store, dataset, assigned, manifest.history(store))
            journal.write_journal(store, result)
            return result, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return plan


@pytest.mark.slow
def test_a_plan_of_20_000_tracks_takes_few_bytes_a_track(plan_of):
    plan_of(100)  # imports
    plan, peak = plan_of(20_000)
    assert plan.n_tracks == 20_000
    assert peak < 20_000 * BYTES_PER_TRACK + 4_000_000  # 4 MB for the rows of one block


@pytest.mark.parametrize("tables", [journal.GROUP_TABLES, 2])
def test_the_journal_holds_the_plan(plan_of, tmp_path, monkeypatch, tables):
    monkeypatch.setattr(journal, "GROUP_TABLES", tables)
    plan, _ = plan_of(500)
    path = tmp_path / "500" / "plan.parquet"
    assert pq.ParquetFile(path).num_row_groups == -(-len(plan.batches) // tables)
    rows = manifest.read_rows_or_none(path, JOURNAL_SCHEMA)
    expected = [
        (row["track_id"], row["split"], shard)
        for tracks, shards in plan.batches
        for shard, first, stop in shards
        for row in itertools.islice(tracks.table().to_pylist(), first, stop)
    ]
    columns = rows.select(["track_id", "split", "shard"]).to_pydict().values()
    assert list(zip(*columns, strict=True)) == expected
    assert rows.schema.names == [*MANIFEST_SCHEMA.names, "extract"]
    assert all(rows["extract"].to_pylist())


@pytest.mark.parametrize("tables", [journal.GROUP_TABLES, 2])
def test_an_interrupted_rewrite_is_finished_from_the_journal(plan_of, tmp_path, monkeypatch, tables):
    monkeypatch.setattr(journal, "GROUP_TABLES", tables)
    plan, _ = plan_of(500)
    store = Store.open(tmp_path / "500")
    for tracks, ((shard, _, _),) in plan.batches[:5]:
        rows = pa.Table.from_pylist([row | {"shard": shard} for row in tracks.table().to_pylist()], MANIFEST_SCHEMA)
        manifest.write_fragment(store, shard, rows, {"frames": [1, "digest"]})
        genres = pa.repeat(pa.scalar("Renamed"), len(rows))
        plan.fragments[shard] = rows.set_column(rows.schema.get_field_index("genre"), "genre", genres)
    plan.batches = plan.batches[5:]
    journal.write_journal(store, plan)
    assert journal.finish_rewrites(store)
    assert store.fragments() == sorted(plan.fragments)
    for shard, expected in plan.fragments.items():
        rows = manifest.read_fragment(store, shard)
        assert rows.select(expected.schema.names).to_pylist() == expected.to_pylist()
        assert manifest.fragment_files(rows) == {"frames": [1, "digest"]}
    flip(store.journal_path)
    assert not journal.finish_rewrites(store)
