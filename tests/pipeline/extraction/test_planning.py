"""Planning: how tracks are dealt, against the definition; and how little of a large library becomes Python objects."""

from __future__ import annotations

import hashlib
import itertools
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.catalogue import track_table
from mgc.pipeline.datasets.splits import assign_splits
from mgc.pipeline.datasets.tracks import DATASET_SCHEMA, MANIFEST_SCHEMA, SPLITS
from mgc.pipeline.extraction import journal, planning
from mgc.pipeline.features import Mel
from mgc.pipeline.store import manifest
from mgc.pipeline.store.store import Store

#: Python memory that planning may take per track. A dict of one row takes 1,000 bytes.
BYTES_PER_TRACK = 250


def tracks_of(n: int, *, bit_rate: bool = True) -> pa.Table:
    rng = np.random.default_rng(0)
    columns = {
        "track_id": [f"{i:06}" for i in range(n)],
        "path": [f"{i // 1000:03}/{i:06}.{('mp3', 'WAV', 'flac')[i % 3]}" for i in range(n)],
        "genre": [f"genre {i % 7}" for i in range(n)],
        "artist_id": [None if i % 5 == 0 else str(int(rng.zipf(1.5)) % 2000) for i in range(n)],
        "title": [f"title {i}" for i in range(n)],
    }
    if bit_rate:
        columns["bit_rate"] = [None if i % 4 == 0 else 128_000 + 32_000 * (i % 3) for i in range(n)]
    return track_table(columns)


def deal_one_by_one(tracks: pa.Table, sizes: list[int | None], seed: int) -> list[list[str]]:
    """What `planning.deal` promises, track by track."""
    rows = [row | {"size": size or 0} for row, size in zip(tracks.to_pylist(), sizes, strict=True)]
    rows.sort(key=lambda row: hashlib.sha256(f"{seed}/{row['track_id']}".encode()).digest())
    batches: list[list[str]] = []
    for row in rows:
        rate = {"wav": 88_200, "flac": 100_000}.get(row["path"][-4:].lower().lstrip("."), 24_000)
        row["seconds"] = row["size"] * 8 / row["bit_rate"] if row["bit_rate"] else row["size"] / rate
    for split in (*SPLITS, None):
        held: list[str] = []
        total = 0.0
        those = [row for row in rows if row["split"] == split]
        least = max(len(those) / planning.DEAL_TRACKS, sum(row["seconds"] for row in those) / planning.DEAL_SECONDS)
        for row in those:
            seconds = row["seconds"]
            full = len(held) == math.ceil(len(those) / math.ceil(least))
            if held and (full or total + seconds > planning.DEAL_SECONDS):
                batches.append(held)
                held, total = [], 0.0
            held.append(row["track_id"])
            total += seconds
        batches += [held] if held else []
    return batches


@pytest.mark.parametrize("bit_rate", [False, True])
@pytest.mark.parametrize("longest", [10_000, 2_000_000, 80_000_000])
def test_deals_are_those_of_the_definition(bit_rate, longest):
    tracks = assign_splits(tracks_of(900, bit_rate=bit_rate), seed=0)[0]
    sizes = np.random.default_rng(1).integers(0, longest, len(tracks)).tolist()
    sizes[::50] = [None] * len(sizes[::50])
    for seed in (0, 3):
        dealt = planning.deal(tracks, pa.array(sizes, pa.int64()), seed)
        assert [deal["track_id"].to_pylist() for deal in dealt] == deal_one_by_one(tracks, sizes, seed)
        assert pa.concat_tables(dealt).sort_by("track_id").equals(tracks)


def test_deals_of_a_split_are_of_one_size():
    """No worker has twice as much to do as the others because a split did not fill its last deal."""
    splits = ["training"] * 130 + ["test"] * 10
    rows = [{"track_id": str(i), "path": f"{i}.mp3", "genre": "a", "split": split} for i, split in enumerate(splits)]
    tracks = pa.Table.from_pylist(rows, DATASET_SCHEMA)
    for seconds, expected in ((1, [44, 44, 42, 10]), (100, [13] * 10 + [10])):
        sizes = pa.array([24_000 * seconds] * len(tracks), pa.int64())
        assert [len(part) for part in planning.deal(tracks, sizes, 0)] == expected


def test_nothing_to_deal():
    assert planning.deal(tracks_of(3).slice(0, 0), pa.array([], pa.int64()), 0) == []


@pytest.fixture
def plan_of(tmp_path: Path):
    """Plans an empty store of some tracks; what Python has allocated at most meanwhile, in bytes."""

    def plan(n: int) -> tuple[planning.Plan, int]:
        tracks = tracks_of(n)
        store = Store.create(tmp_path / str(n), Mel(), {"name": "x", "root": str(tmp_path), "genres": [], "seed": 0})
        (store.path / "shards").mkdir()
        dataset = Dataset("x", tmp_path, tmp_path, "list", (), tracks, ())
        tracemalloc.start()
        try:
            assigned, _ = assign_splits(tracks, seed=0)
            planned = planning.make_plan(store, dataset, assigned, manifest.history(store))
            journal.write_journal(store, planned)
            return planned, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return plan


@pytest.mark.slow
def test_a_plan_of_20_000_tracks_takes_few_bytes_a_track(plan_of):
    plan_of(100)  # imports
    plan, peak = plan_of(20_000)
    assert plan.tracks == 20_000
    assert peak < 20_000 * BYTES_PER_TRACK + 4_000_000  # and what some thousand rows at a time are


def test_the_journal_holds_the_plan(plan_of, tmp_path):
    plan, _ = plan_of(500)
    journal = manifest.read_rows_or_none(tmp_path / "500" / "plan.parquet")
    expected = [
        (row["track_id"], row["split"], shard)
        for tracks, shards in plan.batches
        for shard, first, stop in shards
        for row in itertools.islice(tracks.to_pylist(), first, stop)
    ]
    found = journal.select(["track_id", "split", "shard"]).to_pydict().values()
    assert list(zip(*found, strict=True)) == expected
    assert journal.schema.names == [*MANIFEST_SCHEMA.names, "extract"]
    assert all(journal["extract"].to_pylist())
