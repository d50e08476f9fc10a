"""What a run says of an audio file, apart from how it comes to say it: nothing here imports PyTorch or a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class FilePrediction:
    """What a run says of an audio file.

    Attributes:
        path: the path as the user named it.
        status: `ok`, or `dropped` if the file cannot be used.
        reason: why it cannot, such as `not-audio`, `silence` or `too-short`; empty otherwise.
        detail: the reason, or what is odd about the file, in words; may be empty.
        duration_s: length in seconds; None if unknown.
        probabilities: probability of each genre, the mean over the slices; empty if the file was dropped.
        timeline: probabilities in each second of the file, float64 `(seconds, genres)`; see `timeline`.
        strange: whether it is farther from the training tracks than music is, as far as the run can tell.
    """

    path: str
    status: str
    reason: str = ""
    detail: str = ""
    duration_s: float | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    timeline: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    strange: bool = False

    @property
    def genre(self) -> str | None:
        """The most probable genre, the first one of equals; None if the file was dropped."""
        return max(self.probabilities, key=self.probabilities.__getitem__) if self.probabilities else None

    def tempered(self, temper: Callable[[np.ndarray], np.ndarray]) -> FilePrediction:
        """The same prediction with probabilities `(n, genres)` passed through a function, over time, too."""
        if not self.probabilities:
            return self
        shares = temper(np.array([[*self.probabilities.values()]]))[0]
        seconds = temper(self.timeline) if len(self.timeline) else self.timeline
        return replace(
            self, probabilities=dict(zip(self.probabilities, shares.tolist(), strict=True)), timeline=seconds
        )


def timeline(starts: np.ndarray, length_s: float, probabilities: np.ndarray, duration_s: float) -> np.ndarray:
    """Average the probabilities of the slices around each second of a track.

    Args:
        starts: start of each slice in seconds, float64 `(slices,)`, ascending.
        length_s: length of a slice in seconds; infinite for slices of whole tracks.
        probabilities: `(slices, genres)`.
        duration_s: length of the track in seconds.

    Returns:
        float64 `(seconds, genres)`: row t is the mean of the slices that contain the middle of second t; where there is
        none, as at the end of a track, those that are nearest.
    """
    if not len(starts):
        return np.zeros((0, probabilities.shape[1]))
    middles = np.arange(max(1, math.ceil(duration_s))) + 0.5
    first = np.searchsorted(starts, middles - length_s, side="left")
    stop = np.searchsorted(starts, middles, side="right")
    # Without a slice around it: the last one that has ended, or the first one that begins later.
    outside = np.flatnonzero(first == stop)
    before, after = np.maximum(first[outside] - 1, 0), np.minimum(first[outside], len(starts) - 1)
    is_later = np.abs(starts[after] - middles[outside]) < np.abs(middles[outside] - starts[before] - length_s)
    first[outside] = np.where(is_later, after, before)
    stop[outside] = first[outside] + 1
    sums = np.concatenate([np.zeros((1, probabilities.shape[1])), probabilities.cumsum(axis=0)])
    return (sums[stop] - sums[first]) / (stop - first)[:, None]
