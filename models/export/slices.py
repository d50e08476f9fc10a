"""Slices of a run's store, with what the exported file reads of them, to check, calibrate and measure it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from mgc.models.data.split_data import RunInputs
from mgc.models.data.stream import Batching
from mgc.models.export.graph import Origin, Window
from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.runs.selection import Selection
from mgc.models.training.predict import open_stores
from mgc.pipeline.audio.decoding import open_libsndfile
from mgc.pipeline.audio.inspection import UnusableAudio, inspect
from mgc.pipeline.datasets.tracks import unescape
from mgc.pipeline.errors import MgcError
from mgc.pipeline.features import Waveform
from mgc.pipeline.features.analysis import analyse
from mgc.pipeline.store.store import Store

#: Slices per batch.
BATCH = 16


@dataclass(frozen=True)
class Block:
    """Some slices.

    Attributes:
        inputs: what the exported file reads: samples, or the frames of each input, float32.
        frames: frames of the store, as the run reads them.
        rows: track_id, start_s, genre and artist_id of each slice.
    """

    inputs: list[np.ndarray]
    frames: Tensor | tuple[Tensor, ...]
    rows: pa.Table


class Slices:
    """The slices of a run's tracks, as the run cuts them.

    Args:
        run: the run.
        origin: what the exported file reads.
        window: window of samples; None with the origin `features`.

    Raises:
        MgcError: the store is gone or damaged, or, with the origin `samples`, the audio is.
    """

    def __init__(self, run: Run, origin: Origin, window: Window | None) -> None:
        self._run, self._window = run, window
        self._stores = open_stores(run)
        self._tracks = self._stores[0].tracks
        self._root = None if origin == "features" else _root(self._stores[0])

    def splits(self) -> list[str]:
        """Splits that have tracks, those that the run has not learnt from first."""
        present = set(self._run.selection.tracks["split"].to_pylist())
        return [split for split in ("test", "validation", "training") if split in present]

    def blocks(self, split: str, n_tracks: int | None = None, per_track: int | None = None) -> Iterator[Block]:
        """Yield the slices of a split.

        Args:
            split: training, validation or test.
            n_tracks: number of tracks, taken evenly from the split; None for all.
            per_track: number of slices, taken evenly from each track; None for all.
        """
        selection = self._run.selection
        tracks = selection.tracks.filter(pc.equal(selection.tracks["split"], split))
        if self._root is not None:
            tracks = tracks.filter(pc.is_in(tracks["track_id"], value_set=self._readable()))
        if n_tracks is not None and len(tracks) > n_tracks:
            tracks = tracks.take(pa.array(np.linspace(0, len(tracks) - 1, n_tracks).astype(int)))
        if not len(tracks):
            return
        chosen = Selection(selection.classes, tracks, selection.split_seed)
        inputs = RunInputs(chosen, self._stores, self._run.slicing, [source.frames for source in self._run.sources])
        squeeze = systems.of_run(self._run.config).squeezes(self._run.slicing)
        data = inputs.split(split, Batching(BATCH, torch.device("cpu"), squeeze=squeeze))
        wanted = _evenly(data.tracks, per_track)
        genres = pa.array(selection.classes, pa.string()).take(pa.array(data.stream.labels))
        table = data.slices.select(["track_id", "start_s", "first_frame", "n_frames"])
        owner = pc.index_in(table["track_id"], value_set=tracks["track_id"].combine_chunks())
        table = table.append_column("genre", genres).append_column("artist_id", tracks["artist_id"].take(owner))
        for batch in data.stream.batches():
            keep = np.flatnonzero(wanted[batch.rows])
            rows = table.take(pa.array(batch.rows[keep]))
            every = (batch.frames,) if isinstance(batch.frames, Tensor) else batch.frames
            frames = tuple(values[torch.from_numpy(keep)] for values in every)
            if not len(keep):
                continue
            arrays = [values.numpy() for values in frames] if self._root is None else [self._samples(rows)]
            yield Block(arrays, frames[0] if len(frames) == 1 else frames, rows)

    def _readable(self) -> pa.Array:
        """Ids of the tracks whose files are there, and which libsndfile decoded without gaps."""
        tracks = self._tracks
        simple = pc.and_(pc.equal(tracks["decoder"], "libsndfile"), pc.is_null(tracks["gaps"]))
        tracks = tracks.filter(pc.fill_null(simple, False))
        is_there = [os.path.exists(self._path(path)) for path in tracks["path"].to_pylist()]  # noqa: PTH110  # bytes
        return tracks["track_id"].filter(pa.array(is_there, pa.bool_())).combine_chunks()

    def _path(self, path: str) -> bytes:
        assert self._root is not None
        return os.path.join(os.fsencode(self._root), unescape(path))  # noqa: PTH118  # a path may hold bytes that are no text

    def _samples(self, rows: pa.Table) -> np.ndarray:
        """Cut the window of each slice from the audio, float32 `(slices, samples)`."""
        window = self._window
        assert window is not None
        tracks = self._tracks
        at = pc.index_in(rows["track_id"], value_set=tracks["track_id"].combine_chunks()).to_pylist()
        result = np.zeros((len(rows), window.length), np.float32)
        for target, row, first in zip(result, at, rows["first_frame"].to_pylist(), strict=True):
            samples = decode(self._path(tracks["path"][row].as_py()), window.sr, window.hop)
            begin = (first - tracks["first_frame"][row].as_py() + window.skip) * window.hop - window.margin
            part = samples[max(begin, 0) : begin + window.length]
            target[max(-begin, 0) : max(-begin, 0) + len(part)] = part
        return result


def made_up(run: Run, window: Window | None, seed: int = 0) -> list[np.ndarray]:
    """Draw made-up input for a run whose store or audio is gone: noise, louder in some slices than in others."""
    rng = np.random.default_rng(seed)
    loudness = 10 ** rng.uniform(-3, 0, (BATCH, 1))
    if window is not None:
        return [(loudness * rng.uniform(-1, 1, (BATCH, window.length))).astype(np.float32)]
    arrays = []
    for source in run.sources:
        shape = BATCH, source.frames, source.spec.bins
        noise = rng.normal(0, 8, shape) + 20 * np.log10(loudness)[..., None]
        match source.spec.name:
            case "waveform":
                noise = loudness[..., None] * rng.uniform(-1, 1, shape)
            case "power":
                noise = 10 ** (noise / 10)
            case "chroma":
                noise = rng.uniform(0, 1, shape)
        arrays.append(noise.astype(np.float32))
    return arrays


@lru_cache(maxsize=2)
def decode(path: bytes, sr: int, hop: int) -> np.ndarray:
    """Decode and resample a file as extraction does, float32 `(samples,)`.

    Raises:
        MgcError: the file cannot be decoded.
    """
    try:
        file = inspect(path)
        decoding = open_libsndfile(file)
        spec = Waveform(sr=sr, hop_length=hop, dtype="float32")
        return np.concatenate([rows.ravel() for _, rows in analyse(decoding.blocks(), decoding.sample_rate, [spec])])
    except UnusableAudio as error:
        raise MgcError(f"{os.fsdecode(path)}: {error}", "restore the file") from None


def _root(store: Store) -> Path:
    """Folder of the dataset's files.

    Raises:
        MgcError: it is not there.
    """
    root = Path(str(store.dataset.get("root", "")))
    if not root.is_dir():
        raise MgcError(f"{root}: the audio of the dataset is not there", "")
    return root


def _evenly(tracks: np.ndarray, per_track: int | None) -> np.ndarray:
    """Whether each slice is one of `per_track`, taken evenly from its track, bool `(slices,)`."""
    if per_track is None:
        return np.ones(len(tracks), bool)
    wanted = np.zeros(len(tracks), bool)
    for track in np.unique(tracks):
        own = np.flatnonzero(tracks == track)
        wanted[own[np.unique(np.linspace(0, len(own) - 1, per_track).astype(int))]] = True
    return wanted
