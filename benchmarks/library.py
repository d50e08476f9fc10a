"""A made-up music library in FMA's layout for benchmarks/scale.py: distinct small files, and a `tracks.csv`.

Each file is a WAV file, whatever its name, of 30 s with 30 samples a second. The track's number fills the samples, and
there are sixteen sizes, as clips of one length and bit rate have few: so a search for copies must look into every file,
and finds none.
"""

from __future__ import annotations

import csv
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

from mgc.pipeline.demo.dataset import COLUMNS

#: Length of a track in seconds, by which an extraction divides tracks into batches.
SECONDS = 30
#: Bytes before the samples of a WAV file, bytes of the shortest file, and number of different sizes.
HEADER, SMALLEST, N_SIZES = 44, 944, 16
ARTISTS = 16_341
#: Split of an artist, in turn.
SPLITS = ("training",) * 8 + ("validation", "test")
GENRES = ("Blues", "Classical", "Electronic", "Folk", "Hip-Hop", "Jazz", "Pop", "Rock")


def make_library(folder: Path, n_tracks: int, n_rows: int, csv_bytes: int) -> Path:
    """Create a library, unless it exists.

    Args:
        folder: parent of the audio folder and of the metadata.
        n_tracks: number of audio files.
        n_rows: rows of `tracks.csv`.
        csv_bytes: approximate size of `tracks.csv`.

    Returns:
        The audio folder.
    """
    audio = folder / "fma_scale"
    if (folder / "fma_metadata" / "tracks.csv").exists():
        return audio
    for track in range(n_tracks):
        path = f"{audio}/{track // 1000:03d}/{track:06d}.mp3"
        if track % 1000 == 0:
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb") as file:  # noqa: PTH123  a million files
            file.write(_wav(track))
    (folder / "fma_metadata").mkdir(exist_ok=True)
    unfinished = folder / "fma_metadata" / "tracks.tmp"
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(_rows(n_tracks, n_rows, csv_bytes))
    os.utime(unfinished, (1e9, 1e9))
    unfinished.rename(unfinished.with_suffix(".csv"))
    return audio


def _size(track: int) -> int:
    """Size of a track's file in bytes."""
    return SMALLEST + track % N_SIZES


def _wav(track: int) -> bytes:
    """Bytes of a track's file: mono, 8 bits."""
    n = _size(track) - HEADER
    header = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + n, b"WAVEfmt ", 16, 1, 1, 30, 30, 1, 8, b"data", n)
    return header + (b"%08d" % track * n)[:n]


def _rows(n_tracks: int, n_rows: int, csv_bytes: int) -> Iterator[list[object]]:
    """Generate the lines of `tracks.csv`; the first `n_tracks` tracks are in subset `small`, the others in `large`."""
    names = [(group, name) for group, columns in COLUMNS.items() for name in columns.split()]
    yield ["", *(group for group, _ in names)]
    yield ["", *(name for _, name in names)]
    yield ["track_id", *("" for _ in names)]
    rng = random.Random(0)
    text = "".join(rng.choice('abcdefghij klmnop, qrs "tuv" wxyz.\n') for _ in range(200_000))
    text_length = csv_bytes // n_rows - 420  # the other columns take about 420 bytes
    n_artists = min(max(ARTISTS, n_rows // 7), max(10, n_rows // 6))
    for track in range(n_rows):
        artist = track % n_artists
        start = rng.randrange(len(text) - max(1, text_length))
        values = {
            ("album", "id"): track // 12,
            ("album", "title"): f"Album {track // 12}",
            ("album", "date_created"): "2008-11-26 01:44:45",
            ("album", "information"): f"<p>{text[start : start + max(0, text_length // 2)]}</p>",
            ("artist", "bio"): f"<p>{text[-start - text_length // 2 : -start] if start else ''}</p>",
            ("artist", "id"): artist,
            ("artist", "name"): f"Artist {artist}",
            ("artist", "date_created"): "2008-11-26 01:42:32",
            ("set", "split"): SPLITS[(artist + artist // len(GENRES)) % len(SPLITS)],
            ("set", "subset"): "small" if track < n_tracks else "large",
            ("track", "bit_rate"): _size(track) * 8 // SECONDS,
            ("track", "duration"): SECONDS,
            ("track", "genre_top"): GENRES[artist % len(GENRES)],
            ("track", "genres"): "[21]",
            ("track", "genres_all"): "[21]",
            ("track", "license"): "Attribution-NonCommercial-ShareAlike 3.0 International",
            ("track", "title"): f"Title {track}",
        }
        yield [track, *(values.get(name, "0") for name in names)]
