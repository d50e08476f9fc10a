"""Small datasets of short synthetic clips."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import soundfile

RATE = 22050


def write_clip(path: Path, seconds: float = 1.0, *, seed: int = 0, level: float = 0.1) -> Path:
    """Write a tone with noise, different per seed; the file's suffix selects the format."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    samples = level * (np.sin(2 * np.pi * rng.uniform(100, 2000) * time) + 0.1 * rng.standard_normal(len(time)))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples.astype(np.float32), RATE)
    return path


def write_genres(
    root: Path, *, tracks: int = 6, genres: Iterable[str] = ("blues", "disco"), seconds: float = 1.0
) -> Path:
    """Write a folder per genre with `tracks` clips, all of different lengths within a genre."""
    for g, genre in enumerate(genres):
        for i in range(tracks):
            write_clip(root / genre / f"{genre}{i:02}.wav", seconds + 0.05 * i, seed=100 * g + i)
    return root


def write_list(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """Write a CSV list of tracks, a column per key."""
    rows = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_silence(path: Path, seconds: float = 1.0) -> Path:
    """Write a silent clip."""
    return write_clip(path, seconds, level=0.0)
