"""Joins: the probabilities of a track from those of its slices.

`mean` is the sum rule and `log-mean` the product rule of Kittler et al., "On combining classifiers", IEEE TPAMI 20,
1998, who also describe `vote` and `median`.
"""

from __future__ import annotations

import numpy as np

#: Names of the joins; the first is the default.
JOINS = ("mean", "log-mean", "vote", "median")
#: Weight of the mean probabilities beside one vote: it decides between genres with equally many votes.
_TIE_BREAKER = 1e-6


def join(probabilities: np.ndarray, first: np.ndarray, name: str) -> np.ndarray:
    """Join the probabilities of consecutive slices.

    Args:
        probabilities: probabilities of slices, float64 `(n, K)`; those of a track are consecutive.
        first: row of the first slice of each track, ascending, `(tracks,)`.
        name: one of `JOINS`: `mean`, the arithmetic mean; `log-mean`, the geometric mean, scaled to a sum of 1, where a
            probability of 0 counts as 2.2e-16; `vote`, the share of the slices for which the genre is the most probable
            one, where the mean decides between equal shares; `median` of each genre, scaled to a sum of 1, or the mean
            if all medians are 0.

    Returns:
        float64 `(tracks, K)`; each row adds up to 1.
    """
    n_slices = np.diff(first, append=len(probabilities))[:, None]
    mean = np.add.reduceat(probabilities, first) / n_slices
    if name == "mean":
        return mean
    if name == "log-mean":
        logs = np.log(np.maximum(probabilities, np.finfo(float).eps))
        logs = np.add.reduceat(logs, first) / n_slices
        return _scaled(np.exp(logs - logs.max(axis=1, keepdims=True)))
    if name == "vote":
        votes = np.add.reduceat(np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)], first)
        return _scaled(votes + _TIE_BREAKER * mean)
    if name == "median":
        medians = _medians(probabilities, first, n_slices[:, 0])
        return _scaled(np.where(medians.any(axis=1, keepdims=True), medians, mean))
    raise ValueError(f"{name} is none of {', '.join(JOINS)}")


def _medians(probabilities: np.ndarray, first: np.ndarray, n_slices: np.ndarray) -> np.ndarray:
    """Median of each genre over the slices of each track, `(tracks, K)`."""
    track = np.repeat(np.arange(len(first)), n_slices)
    medians = np.empty((len(first), probabilities.shape[1]))
    for k, column in enumerate(probabilities.T):
        ordered = column[np.lexsort((column, track))]
        medians[:, k] = (ordered[first + (n_slices - 1) // 2] + ordered[first + n_slices // 2]) / 2
    return medians


def _scaled(values: np.ndarray) -> np.ndarray:
    """Scale rows to a sum of 1."""
    return values / values.sum(axis=1, keepdims=True)
