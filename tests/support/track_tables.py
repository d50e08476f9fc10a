"""Track tables of datasets without any files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mgc.pipeline.datasets.catalogue import track_table


def make_tracks(n: int, *, bit_rate: bool = True) -> pa.Table:
    """A table of `n` tracks in 7 genres, by artists of whom some have many tracks; 1 in 5 has no artist."""
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
