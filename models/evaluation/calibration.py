"""Calibration: whether a model that is 80 % sure is right in 80 % of the cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Bins of equal width over [0, 1], as many as Guo et al. use.
N_BINS = 15


@dataclass(frozen=True)
class Bin:
    """The items whose confidence, the probability of the most probable genre, lies in (low, high].

    Attributes:
        low, high: ends of the bin.
        n: number of items, at least 1.
        confidence: their mean confidence.
        accuracy: share of them whose most probable genre is the true one.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(truth: np.ndarray, probabilities: np.ndarray) -> tuple[Bin, ...]:
    """Sort items into bins by confidence, for a reliability diagram; as scikit-learn's `calibration_curve`.

    Args:
        truth: index of the true genre of each item, `(n,)`.
        probabilities: `(n, K)`.

    Returns:
        The bins that have items, in ascending order.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    edges = np.linspace(0, 1, N_BINS + 1)
    number = np.searchsorted(edges[1:-1], confidence)
    bins = []
    for k in np.unique(number):
        members = number == k
        ends = float(edges[k]), float(edges[k + 1])
        bins.append(Bin(*ends, int(members.sum()), float(confidence[members].mean()), float(right[members].mean())))
    return tuple(bins)


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Mean over the items of the distance between confidence and accuracy of their bin; 0 is perfect.

    Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015; Guo et al., "On
    calibration of modern neural networks", ICML 2017. Few items in a bin raise it even if the model is calibrated.
    """
    n = sum(bin.n for bin in bins)
    return sum(bin.n * abs(bin.confidence - bin.accuracy) for bin in bins) / n
