"""Batches of tracks: each is decoded by one task, and fills one or more shards of a store.

Batches depend on splits, seed, track ids and file sizes only, so that all features of a dataset have the same batches
and each file is decoded once for all of them.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import blocks
from mgc.pipeline.datasets.tracks import SPLITS
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.storage import mapped

#: Most tracks in a batch.
BATCH_TRACKS = 64
#: Most seconds of audio in a batch, as estimated from file sizes.
BATCH_SECONDS = 24 * 60
#: Size of a shard's frames in bytes before compression. If a batch has more, it fills 2, 4, 8 ... shards.
SHARD_BYTES = 64_000_000
#: Bytes per second of audio by suffix, for files without a bit rate in the metadata: 16-bit mono at 44.1 kHz, FLAC ...
_BYTES_PER_SECOND = {".wav": 88_200, ".aif": 88_200, ".aiff": 88_200, ".au": 88_200, ".flac": 100_000}
#: ... and 192 kbit/s for all other formats.
_COMPRESSED = 24_000

#: Shards of a batch: `(shard, first, stop)`, each with the batch's tracks `[first, stop)`.
ShardRanges = list[tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class TrackRows:
    """Consecutive rows of a track table. A slice of the table would take 3 kB, so it is made when it is needed.

    Attributes:
        of: the table (`DATASET_SCHEMA`).
        first: the first row.
        stop: the row after the last.
    """

    of: pa.Table
    first: int
    stop: int

    @classmethod
    def all(cls, tracks: pa.Table) -> TrackRows:
        """All rows of a table."""
        return cls(tracks, 0, len(tracks))

    def __len__(self) -> int:
        return self.stop - self.first

    def table(self) -> pa.Table:
        """Return the rows as a table."""
        return self.of.slice(self.first, len(self))


class TrackBatch(NamedTuple):
    """Tracks that are decoded together, and the shards of one store that get their frames.

    Attributes:
        tracks: the tracks.
        shards: the shards.
    """

    tracks: TrackRows
    shards: ShardRanges


def make_batches(tracks: pa.Table, sizes: pa.Array, seed: int) -> list[TrackRows]:
    """Divide tracks into batches of one split each, in an order that depends on seed and track id alone.

    The batches of a split have about the same number of tracks, as far as the tracks' lengths allow it: with few
    batches, all workers would otherwise wait for the one that has the largest.

    Args:
        tracks: rows of `DATASET_SCHEMA`.
        sizes: size of each track's file in bytes, int64; null if unknown.
        seed: seed of the order.

    Returns:
        Rows of one table: together all tracks, each once.
    """
    split = _split_order(tracks)
    order = np.lexsort((*hash_keys(tracks["track_id"], seed), split))
    seconds = estimated_seconds(tracks, sizes)[order]
    tracks = mapped.take(tracks, order)
    edges = [0]
    for end in np.flatnonzero(np.diff(split[order], append=-1)) + 1:
        n_tracks = int(end) - edges[-1]
        n_batches = math.ceil(max(n_tracks / BATCH_TRACKS, seconds[edges[-1] : end].sum() / BATCH_SECONDS))
        batch_size = math.ceil(n_tracks / n_batches)
        while (first := edges[-1]) < end:
            total = np.cumsum(seconds[first : min(end, first + batch_size)])
            too_long = np.flatnonzero(total[1:] > BATCH_SECONDS)
            edges.append(first + 1 + int(too_long[0]) if len(too_long) else first + len(total))
    return [TrackRows(tracks, first, stop) for first, stop in itertools.pairwise(edges)]


def divide_into_shards(n_tracks: int, spec: FeatureSpec, first_shard: int, frame_multiplier: float) -> ShardRanges:
    """Divide a batch into 1, 2, 4, 8 ... equal shards of at most about `SHARD_BYTES`.

    Args:
        n_tracks: number of tracks in the batch.
        spec: feature of the store; decides the bytes per second.
        first_shard: number of the first shard.
        frame_multiplier: frames of a track with its variants, relative to the track alone.
    """
    itemsize = np.dtype(spec.dtype).itemsize
    n_bytes = frame_multiplier * BATCH_SECONDS * spec.frame_rate * spec.bins * itemsize
    n_shards = 1
    while n_bytes > n_shards * SHARD_BYTES and n_shards < n_tracks:
        n_shards *= 2
    edges = [n_tracks * i // n_shards for i in range(n_shards + 1)]
    ranges = [(first, stop) for first, stop in itertools.pairwise(edges) if stop > first]
    return [(first_shard + i, first, stop) for i, (first, stop) in enumerate(ranges)]


def hash_keys(ids: pa.ChunkedArray, seed: int) -> list[np.ndarray]:
    """Return sort keys for `np.lexsort` that order tracks by the SHA-256 of seed and track id.

    Args:
        ids: track ids.
        seed: seed of the order.

    Returns:
        Four arrays uint64 `(tracks,)`, the least significant first.
    """
    digests = np.empty((len(ids), 4), np.uint64)
    for rows, names in blocks.iterate(ids):
        joined = b"".join(hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names)
        digests[rows] = np.frombuffer(joined, ">u8").reshape(-1, 4)
    return list(digests.T[::-1])


def estimated_seconds(tracks: pa.Table, sizes: pa.Array) -> np.ndarray:
    """Estimate the length of each track in seconds, float64 `(tracks,)`, from file size and bit rate or suffix."""
    size = pc.fill_null(sizes, 0).to_numpy()
    bit_rate = pc.fill_null(tracks["bit_rate"], 0).to_numpy()
    with_bit_rate = np.flatnonzero(bit_rate)
    seconds = np.empty(len(tracks))
    seconds[with_bit_rate] = size[with_bit_rate] * 8 / bit_rate[with_bit_rate]
    for first in range(0, len(tracks), blocks.BLOCK_ROWS):
        others = first + np.flatnonzero(bit_rate[first : first + blocks.BLOCK_ROWS] == 0)
        suffixes = (os.path.splitext(path)[1].lower() for path in tracks["path"].take(others).to_pylist())  # noqa: PTH122
        seconds[others] = size[others] / np.array([_BYTES_PER_SECOND.get(s, _COMPRESSED) for s in suffixes])
    return seconds


def _split_order(tracks: pa.Table) -> np.ndarray:
    """Return the index of each track's split in SPLITS, int `(tracks,)`; `len(SPLITS)` for tracks without a split."""
    return pc.fill_null(pc.index_in(tracks["split"], pa.array(SPLITS)), len(SPLITS)).to_numpy()
