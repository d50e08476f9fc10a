"""Batches of tracks: compared with an implementation that takes one track at a time."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pyarrow as pa
import pytest
from track_tables import make_tracks

from mgc.pipeline.datasets.splits import assign_splits
from mgc.pipeline.datasets.tracks import DATASET_SCHEMA, SPLITS
from mgc.pipeline.extraction.batches import BATCH_SECONDS, BATCH_TRACKS, make_batches


def make_batches_one_by_one(tracks: pa.Table, sizes: list[int | None], seed: int) -> list[list[str]]:
    """The reference for `make_batches`: track ids of each batch, assigned track by track."""
    rows = [row | {"size": size or 0} for row, size in zip(tracks.to_pylist(), sizes, strict=True)]
    rows.sort(key=lambda row: hashlib.sha256(f"{seed}/{row['track_id']}".encode()).digest())
    batches: list[list[str]] = []
    for row in rows:
        rate = {"wav": 88_200, "flac": 100_000}.get(row["path"][-4:].lower().lstrip("."), 24_000)
        row["seconds"] = row["size"] * 8 / row["bit_rate"] if row["bit_rate"] else row["size"] / rate
    for split in (*SPLITS, None):
        batch: list[str] = []
        total = 0.0
        split_rows = [row for row in rows if row["split"] == split]
        least = max(len(split_rows) / BATCH_TRACKS, sum(row["seconds"] for row in split_rows) / BATCH_SECONDS)
        for row in split_rows:
            seconds = row["seconds"]
            full = len(batch) == math.ceil(len(split_rows) / math.ceil(least))
            if batch and (full or total + seconds > BATCH_SECONDS):
                batches.append(batch)
                batch, total = [], 0.0
            batch.append(row["track_id"])
            total += seconds
        batches += [batch] if batch else []
    return batches


@pytest.mark.parametrize("bit_rate", [False, True])
@pytest.mark.parametrize("longest", [10_000, 2_000_000, 80_000_000])
def test_batches_equal_those_of_the_reference(bit_rate, longest):
    tracks = assign_splits(make_tracks(900, bit_rate=bit_rate), seed=0)[0]
    sizes = np.random.default_rng(1).integers(0, longest, len(tracks)).tolist()
    sizes[::50] = [None] * len(sizes[::50])
    for seed in (0, 3):
        batches = make_batches(tracks, pa.array(sizes, pa.int64()), seed)
        assert [batch.table()["track_id"].to_pylist() for batch in batches] == make_batches_one_by_one(
            tracks, sizes, seed
        )
        assert pa.concat_tables([batch.table() for batch in batches]).sort_by("track_id").equals(tracks)


def test_batches_of_a_split_are_of_one_size():
    """No worker has twice as much to do as the others because a split did not fill its last batch."""
    splits = ["training"] * 130 + ["test"] * 10
    rows = [{"track_id": str(i), "path": f"{i}.mp3", "genre": "a", "split": split} for i, split in enumerate(splits)]
    tracks = pa.Table.from_pylist(rows, DATASET_SCHEMA)
    for seconds, expected in ((1, [44, 44, 42, 10]), (100, [13] * 10 + [10])):
        sizes = pa.array([24_000 * seconds] * len(tracks), pa.int64())
        assert [len(batch) for batch in make_batches(tracks, sizes, 0)] == expected


def test_no_tracks_give_no_batches():
    assert make_batches(make_tracks(3).slice(0, 0), pa.array([], pa.int64()), 0) == []
