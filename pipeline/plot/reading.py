"""Frames of a store for pictures: tracks by id or path, parts of tracks in columns, means of genres; bounded memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline import suggestions
from mgc.pipeline.datasets.tracks import escape
from mgc.pipeline.errors import MgcError, StoreError
from mgc.pipeline.features import Waveform
from mgc.pipeline.plot.view import View
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.store.store import Store

#: Frames that are read at once: 17 MB of values of 128 bands, 67 MB of 513 frequencies.
BLOCK = 32_768
_COLUMNS = ["track_id", "path", "genre", "split", "status", "reason", "shard", "first_frame", "n_frames"]


@dataclass(frozen=True)
class Part:
    """A part of a track.

    Attributes:
        row: the track's manifest columns.
        start_s: start of the part in seconds.
        stop_s: end in seconds.
        columns: values that are shown, float32 `(columns, bins)`: each column is the mean of its frames. For waveforms,
            `(columns, 2)`: the lowest and highest sample.
    """

    row: dict[str, Any]
    start_s: float
    stop_s: float
    columns: np.ndarray


def find_track(store: Store, name: Place) -> dict[str, Any]:
    """Find a track by its id, its path in the dataset, or the path of its file.

    Args:
        store: a finished store.
        name: the id or path; leading zeros of an id that is a number may be left out.

    Returns:
        The track's manifest columns.

    Raises:
        StoreError: there is no such track, or the store has no frames of it.
    """
    text = escape(os.fsencode(name)) if isinstance(name, Path) else str(name)
    tracks = store.read_tracks(_COLUMNS)
    ids = tracks["track_id"].combine_chunks()
    found = tracks.filter(pc.equal(ids, text))
    if not len(found):
        found = tracks.filter(pc.is_in(tracks["path"].combine_chunks(), value_set=_paths(store, name, text)))
    if not len(found) and text.isdigit():
        found = tracks.filter(pc.equal(pc.utf8_ltrim(ids, "0"), text.lstrip("0")))
    if not len(found):
        near = suggestions.question(suggestions.nearest(text, ids.to_pylist()))
        problem = f"{name}: neither a store nor a track of {store.path}"
        raise StoreError(problem, f"{near}its tracks.parquet lists the ids and paths; --store names another store")
    row = found.slice(0, 1).to_pylist()[0]
    if not row["n_frames"]:
        raise StoreError(f"{row['track_id']}: dropped ({row['reason']}), so {store.path} has no frames of it")
    return row


def _paths(store: Store, name: Place, text: str) -> pa.Array:
    """Paths in the manifest that a name may stand for: itself, and relative to the dataset's root."""
    paths = [text]
    if isinstance(name, Path):
        root = os.fsencode(Path(store.dataset["root"]).resolve()) + b"/"
        absolute = os.fsencode(name.resolve())
        if absolute.startswith(root):
            paths.append(escape(absolute.removeprefix(root)))
    return pa.array(paths)


def read_part(store: Store, view: View, row: dict[str, Any], start: float, seconds: float | None, most: int) -> Part:
    """Read a part of a track.

    Args:
        store: the store.
        view: how its frames are shown.
        row: manifest columns of the track.
        start: start of the part in seconds.
        seconds: its length; None reads to the end of the track.
        most: largest number of columns; if there are more frames, a column is the mean of several.

    Raises:
        MgcError: the part starts after the end of the track.
        StoreError: the shard is damaged.
    """
    rate, n_frames = store.spec.frame_rate, row["n_frames"]
    first = store.spec.frame_at(start)
    if first >= n_frames:
        problem = f"--start {start:g}: {row['track_id']} ends at {n_frames / rate:.2f} s"
        raise MgcError(problem, "choose an earlier start")
    stop = n_frames if seconds is None else min(n_frames, store.spec.frame_at(start + seconds) + 1)
    columns = min(most, stop - first)
    place = np.arange(stop - first) * columns // (stop - first)  # column of each frame
    is_waveform = isinstance(store.spec, Waveform)
    values = np.full((columns, 2), (np.inf, -np.inf)) if is_waveform else np.zeros((columns, len(view.axis.bins)))
    done = 0
    for stored in _blocks(store, row, first, stop):
        block, into = view.values(stored), place[done : done + len(stored)]
        if is_waveform:
            np.minimum.at(values[:, 0], into, block.min(axis=1))
            np.maximum.at(values[:, 1], into, block.max(axis=1))
        else:
            starts = np.flatnonzero(np.diff(into, prepend=-1))
            values[into[starts]] += np.add.reduceat(block[:, view.axis.bins], starts, axis=0, dtype=np.float64)
        done += len(stored)
    if not is_waveform:
        values /= np.bincount(place, minlength=columns)[:, None]
    return Part(row, first / rate, stop / rate, values.astype(np.float32))


def _blocks(store: Store, row: dict[str, Any], first: int, stop: int) -> Iterator[np.ndarray]:
    """Yield the stored frames `[first, stop)` of a track in blocks of at most `BLOCK`, `(n, bins)`."""
    for begin in range(first, stop, BLOCK):
        end = min(begin + BLOCK, stop)
        yield store.read(row["shard"], row["first_frame"] + begin, row["first_frame"] + end)


@dataclass(frozen=True)
class GenreMeans:
    """Mean frames of the training tracks of each genre.

    Attributes:
        counts: number of training tracks by genre.
        means: mean of the tracks' mean frames, in the values that are shown: float64 `(genres, bins)`.
    """

    counts: dict[str, int]
    means: np.ndarray


def genre_means(store: Store, view: View, progress: Callable[[int], AbstractContextManager]) -> GenreMeans:
    """Average the frames of each training track, and the tracks of each genre; holds one block of frames at a time.

    Raises:
        StoreError: the store holds waveforms, no training track has a genre, or a shard is damaged.
    """
    if isinstance(store.spec, Waveform):
        raise StoreError(f"{store.path}: waveforms have no mean spectrum", "add --sheet, or name a mel or stft store")
    tracks = training_tracks(store)
    numbers = Counter(tracks["genre"].to_pylist())
    counts = {genre: numbers[genre] for genre in store.genres if genre in numbers}
    index = {genre: number for number, genre in enumerate(counts)}
    means = np.zeros((len(counts), store.spec.bins))
    with progress(len(tracks)) as advance:
        for row in each_row(tracks):
            total = np.zeros(store.spec.bins)
            for stored in _blocks(store, row, 0, row["n_frames"]):
                total += view.values(stored).sum(axis=0, dtype=np.float64)
            means[index[row["genre"]]] += total / row["n_frames"]
            advance(1)
    return GenreMeans(counts, means / np.array([*counts.values()])[:, None])


def training_tracks(store: Store) -> pa.Table:
    """Return the manifest columns of the training tracks in use that have a genre, in the order of their frames.

    Raises:
        StoreError: there are none.
    """
    tracks = store.read_tracks(_COLUMNS)
    usable = pc.and_(pc.equal(tracks["status"], "ok"), pc.equal(tracks["split"], "training"))
    tracks = tracks.filter(pc.and_(usable, tracks["genre"].is_valid()))
    if not len(tracks):
        raise StoreError(f"{store.path}: no training track has a genre", "`mgc split` shows the splits")
    return tracks.sort_by([("shard", "ascending"), ("first_frame", "ascending")])


def first_of_each_genre(store: Store, start: float) -> list[dict[str, Any]]:
    """Return the manifest columns of a training track of each genre: the first one that is longer than `start` seconds.

    Raises:
        StoreError: there is none at all.
    """
    first: dict[str, dict[str, Any]] = {}
    for row in each_row(training_tracks(store)):
        if row["genre"] not in first and row["n_frames"] > store.spec.frame_at(start):
            first[row["genre"]] = row
    if not first:
        raise StoreError(f"{store.path}: no training track is longer than {start:g} s", "choose an earlier --start")
    return [first[genre] for genre in store.genres if genre in first]


def each_row(tracks: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, of which few exist as Python objects at a time."""
    for batch in tracks.to_batches(max_chunksize=1000):
        yield from batch.to_pylist()
