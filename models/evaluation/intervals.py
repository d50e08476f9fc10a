"""How far a score may be off: intervals that treat an artist's tracks as one draw, and what guessing would reach.

Tracks of one artist are right or wrong together, so resampling tracks, let alone slices, promises too much. Artists are
resampled instead (the cluster bootstrap; Field and Welsh, "Bootstrapping clustered data", JRSS B 69, 2007).

The percentiles of those resamples are still too narrow where artists are few, and have no width at all where every
track is right. So the bootstrap supplies the variance, and the interval is the exact binomial one of the number of
independent tracks with that variance, corrected for the degrees of freedom: Korn and Graubard, "Confidence intervals
for proportions with small expected number of positive counts", Survey Methodology 24, 1998, which the US National
Center for Health Statistics uses for its proportions. In simulations with 10 artists of 1 to 4 tracks each, whose
tracks agree a little or a lot, 95 % percentile intervals held the true accuracy in 62 to 93 % of cases, these in 95 to
100 %; the true macro F1 in 60 to 88 %, these in 92 to 99 %. With 100 artists the two differ by a percentage point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
_UPPER = (1 + LEVEL) / 2


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a score in [0, 1].

    Attributes:
        low, high: its ends (Korn and Graubard, with the variance of the artist bootstrap).
        percentiles: 2.5th and 97.5th percentile of the resampled scores, for comparison with other work.
    """

    low: float
    high: float
    percentiles: tuple[float, float]

    @property
    def width(self) -> float:
        """From end to end."""
        return self.high - self.low


@dataclass(frozen=True)
class Chance:
    """What can be had without listening, as the share of tracks that are right.

    Attributes:
        uniform: by guessing each genre equally often.
        majority: by always answering the genre with the most training tracks; None where those are not known.
        level: the larger of the two.
        p_value: probability that guessing at this level is right at least as often as the model was.
        least_accuracy: smallest accuracy whose `p_value` is below 0.05; None where even 100 % is not.
    """

    uniform: float
    majority: float | None
    level: float
    p_value: float
    least_accuracy: float | None


def resample(counts: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Counts of samples of as many groups as there are, drawn with replacement.

    Args:
        counts: of each group, `(groups, ...)`; adding them up must be all there is to pooling groups.
        n_resamples: how many samples.
        seed: of the draws.

    Returns:
        float64 `(n_resamples, ...)`.
    """
    n_groups = len(counts)
    draws = np.random.default_rng(seed).multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples)
    flat = counts.reshape(n_groups, -1).astype(np.float64)  # BLAS multiplies no integers
    return (draws.astype(np.float64) @ flat).reshape(n_resamples, *counts.shape[1:])


def interval(estimate: float, resampled: np.ndarray, sizes: np.ndarray) -> Interval:
    """The interval of a score.

    Args:
        estimate: the score on all groups, in [0, 1].
        resampled: the score on resampled groups `(resamples,)`; NaN where it is undefined.
        sizes: items in each group, `(groups,)`.
    """
    resampled = resampled[np.isfinite(resampled)]
    if not len(resampled):
        resampled = np.array([estimate])
    n, n_groups = float(sizes.sum()), len(sizes)
    variance = resampled.var() * n_groups / max(n_groups - 1, 1)
    if variance < 1e-12 or n_groups == 1:
        # All groups score alike, which says nothing about their spread: the worst case, in which a group counts as one
        # item (Kish's effective size, for groups of unequal sizes).
        effective = n**2 / float((sizes.astype(np.float64) ** 2).sum())
    else:
        effective = min(n, estimate * (1 - estimate) / variance)
        freedom = stats.t.ppf(_UPPER, n - 1) / stats.t.ppf(_UPPER, n_groups - 1)
        effective *= float(freedom) ** 2
    low, high = _clopper_pearson(estimate * effective, effective)
    first, last = np.quantile(resampled, [1 - _UPPER, _UPPER])
    return Interval(low, high, (float(first), float(last)))


def _clopper_pearson(successes: float, trials: float) -> tuple[float, float]:
    """The exact interval of a proportion; the numbers need not be whole."""
    failures = trials - successes
    low = float(stats.beta.ppf(1 - _UPPER, successes, failures + 1)) if successes > 0 else 0.0
    high = float(stats.beta.ppf(_UPPER, successes + 1, failures)) if failures > 0 else 1.0
    return low, high


def chance(correct: int, sizes: np.ndarray, uniform: float, majority: float | None) -> Chance:
    """How the tracks that are right compare with guessing.

    The test is the exact binomial one where every artist has one track. Otherwise all tracks of an artist count as
    right or wrong together: who guesses by the sound of an artist is not lucky independently for each track.

    Args:
        correct: tracks that are right.
        sizes: tracks of each artist, `(artists,)`.
        uniform: one over the number of genres.
        majority: see `Chance`.
    """
    level = max(uniform, majority or 0.0)
    n_tracks = int(sizes.sum())
    # Probability of each number of tracks right: artists with one track first, then one artist after the other.
    right = stats.binom.pmf(np.arange(n_tracks + 1), np.sum(sizes == 1), level)
    for size in sizes[sizes > 1]:
        with_artist = np.zeros_like(right)
        with_artist[size:] = right[:-size]
        right = (1 - level) * right + level * with_artist
    at_least = np.minimum(np.cumsum(right[::-1])[::-1], 1)
    unlikely = np.flatnonzero(at_least < 1 - LEVEL)
    least = float(unlikely[0] / n_tracks) if len(unlikely) else None
    return Chance(uniform, majority, level, float(at_least[correct]), least)
