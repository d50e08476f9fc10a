"""What a report shows of the store and of the audio files of a run: manifest rows, spectrograms and excerpts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.report import spectrogram
from mgc.models.report.excerpt import excerpt
from mgc.models.report.spectrogram import Spectrogram
from mgc.models.runs.run import Run
from mgc.pipeline.audio.inspection import UnusableAudio
from mgc.pipeline.datasets.tracks import unescape
from mgc.pipeline.errors import MgcError
from mgc.pipeline.features import Mel, Waveform
from mgc.pipeline.features.analysis import analyse
from mgc.pipeline.storage.urls import parse_url
from mgc.pipeline.store.store import Store

_COLUMNS = ["track_id", "path", "bit_rate", "content_hash", "shard", "first_frame", "n_frames", "status"]


class Material:
    """The first store of a run and the audio files of its dataset, as far as they are there.

    Args:
        run: the run.
        track_ids: ids of the tracks that may be asked for.
        audio: whether to make excerpts.

    Attributes:
        rows: manifest rows by track id; those of other files than the run's are left out.
        problems: sentences on what is missing; they grow as spectrograms and excerpts are made.
    """

    def __init__(self, run: Run, track_ids: Sequence[str], *, audio: bool = True) -> None:
        self._audio = audio
        self._store: Store | None = None
        self.rows: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []
        try:
            self._store = Store.open(run.sources[0].path)
            self.rows = _rows(self._store, run, track_ids)
        except MgcError as error:
            self._add(f"Without spectrograms and excerpts, as the store cannot be read: {error.problem}.")
        if self._store is not None and len(self.rows) < len(set(track_ids)):
            n = len(set(track_ids)) - len(self.rows)
            self._add(f"The store no longer holds {n:,} of the tracks, or other files under their names.")

    @property
    def root(self) -> str | None:
        """Folder or URL of the audio files; None if the store cannot be read."""
        return str(self._store.dataset.get("root", "")) if self._store is not None else None

    def spectrogram(self, track_id: str) -> Spectrogram | None:
        """Draw the stored frames of a track; None if there are none, or none along time."""
        row, store = self.rows.get(track_id), self._store
        if row is None or store is None:
            return None
        if not store.spec.frame_rate:
            self._add(f"Without spectrograms: the store holds {store.spec.name}, one vector per track.")
            return None
        first = row["first_frame"]
        try:
            values = store.spec.decode(store.read(row["shard"], first, first + row["n_frames"]))
        except MgcError as error:
            self._add(f"Some spectrograms are missing: {error.problem}.")
            return None
        if isinstance(store.spec, Waveform):
            mel = Mel(sr=store.spec.sr, dtype="float32")
            samples = np.ascontiguousarray(values.ravel())
            parts = [np.array(frames) for _, frames in analyse([samples], store.spec.sr, {mel})]
            return spectrogram.draw(mel, np.concatenate(parts))
        return spectrogram.draw(store.spec, values)

    def excerpt(self, track_id: str, start_s: float) -> tuple[bytes, float] | None:
        """Encode a few seconds of a track as MP3; None if there is no file, or no excerpt is wanted.

        Args:
            track_id: id of the track.
            start_s: second at which the excerpt begins.
        """
        row, store = self.rows.get(track_id), self._store
        if not self._audio or row is None or store is None:
            return None
        root = str(store.dataset.get("root", ""))
        try:
            path = unescape(row["path"])
            return excerpt(parse_url(root) or os.fsencode(root), path, start_s, row["content_hash"])
        except UnusableAudio as error:
            detail = f" ({error.detail})" if error.detail else ""
            self._add(f"Some excerpts are missing: the file of track {track_id} is {error.reason}{detail}.")
        except (OSError, MgcError) as error:
            self._add(f"Some excerpts are missing: {error}.")
        return None

    def _add(self, problem: str) -> None:
        """Add a problem, but only the first of its kind."""
        kind = problem.split(":")[0]
        if not any(known.split(":")[0] == kind for known in self.problems):
            self.problems.append(problem)


def _rows(store: Store, run: Run, track_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read the manifest rows of tracks; a row with another content hash than the run recorded is left out.

    Raises:
        StoreError: the manifest is missing or damaged.
    """
    table = store.read_tracks(_COLUMNS)
    wanted = pc.is_in(table["track_id"], value_set=pa.array(list(track_ids), pa.string()))
    rows = {row["track_id"]: row for row in table.filter(wanted).to_pylist() if row["status"] == "ok"}
    known = run.selection.tracks.select(["track_id", "content_hash"]).to_pydict()
    hashes = dict(zip(known["track_id"], known["content_hash"], strict=True))
    return {id: row for id, row in rows.items() if hashes.get(id) in (None, row["content_hash"])}
