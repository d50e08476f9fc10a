"""Windows: the frames of a track, cut into overlapping pieces, and their rows in the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgc.pipeline.features import Embedding, FeatureSpec
from mgc.pipeline.store.store import Store


@dataclass(frozen=True)
class Windows:
    """How frames are cut: `length` frames every `hop` frames, as many as lie inside a track.

    Attributes:
        length: frames of a window.
        hop: frames between windows.
    """

    length: int
    hop: int

    @classmethod
    def of(cls, spec: Embedding, read: FeatureSpec) -> Windows:
        """The windows of an embedding, in frames of the feature that it is made of."""
        return cls(spec.window // read.hop_length, spec.hop_length // read.hop_length)

    def count(self, n_frames: int) -> int:
        """Number of windows of a track."""
        return 0 if n_frames < self.length else 1 + (n_frames - self.length) // self.hop

    def touching(self, gaps: list[list[int]] | None, n_windows: int) -> list[list[int]] | None:
        """Ranges [first, stop) of the windows that hold a frame of a gap, joined where they meet; None for none."""
        joined: list[list[int]] = []
        for first, stop in sorted(gaps or ()):
            begin = max(0, (first - self.length) // self.hop + 1)
            end = min(n_windows, -(-stop // self.hop))
            if joined and begin <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], end)
            elif begin < end:
                joined.append([begin, end])
        return joined or None

    def read(self, store: Store, shard: int, first: int, n_windows: int) -> np.ndarray:
        """Read the windows of a track, a view `(n_windows, length, bins)` of its frames in the stored dtype."""
        stop = first + (n_windows - 1) * self.hop + self.length
        frames = store.read(shard, first, stop)
        return np.lib.stride_tricks.sliding_window_view(frames, self.length, axis=0)[:: self.hop].transpose(0, 2, 1)


def manifest_rows(rows: list[dict[str, Any]], windows: Windows, seconds: float) -> list[dict[str, Any]]:
    """Return the manifest rows of a shard of embeddings.

    Args:
        rows: manifest rows of the shard that they are made of, in the order of their frames.
        windows: how its frames are cut.
        seconds: length of a window, for the reason why a track is dropped.
    """
    converted, position = [], 0
    for row in rows:
        n_windows = windows.count(row["n_frames"] or 0)
        new = {**row, **_frames(row, windows, position, n_windows), "saturated_above": 0}
        if row["status"] == "ok" and not n_windows:
            detail = f"shorter than one window of {seconds:.2f} s"
            new |= {"status": "dropped", "reason": "too-short", "detail": detail}
        position += n_windows
        variants = []
        for variant in row["variants"] or ():
            n_windows = windows.count(variant["n_frames"] or 0)
            variants.append({**variant, **_frames(variant, windows, position, n_windows)})
            position += n_windows
        converted.append(new | {"variants": variants or None})
    return converted


def _frames(row: Mapping[str, Any], windows: Windows, first: int, n_windows: int) -> dict[str, Any]:
    """The columns of a track or variant that count frames."""
    gaps = windows.touching(row["gaps"], n_windows)
    return {"saturated": 0, "gaps": gaps, "first_frame": first, "n_frames": n_windows}


def spans(rows: list[dict[str, Any]], windows: Windows) -> Iterator[tuple[int, int]]:
    """Yield the first frame and the number of windows of each track and variant with a window, in order."""
    for row in rows:
        for part in (row, *(row["variants"] or ())):
            if n_windows := windows.count(part["n_frames"] or 0):
                yield part["first_frame"], n_windows
