"""Confidence intervals of scores by resampling artists, and the accuracy that guessing would reach.

Tracks of one artist tend to be right or wrong together, so intervals from resampling tracks, let alone slices, are too
narrow. Artists are resampled instead (cluster bootstrap: Field and Welsh, "Bootstrapping clustered data", JRSS B 69,
2007).

Percentiles of the resampled scores are still too narrow if there are few artists, and have no width at all if every
track is right. So the bootstrap gives the variance, and the interval is the exact binomial one for as many independent
tracks as would have this variance, corrected for the degrees of freedom: Korn and Graubard, "Confidence intervals for
proportions with small expected number of positive counts", Survey Methodology 24, 1998, which the US National Center
for Health Statistics uses for its proportions. In simulations with 10 artists of 1 to 4 tracks each, whose tracks agree
a little or a lot, 95 % percentile intervals contained the true accuracy in 62 to 93 % of cases, these in 95 to 100 %;
the true macro F1 in 60 to 88 %, these in 92 to 99 %. With 100 artists the two differ by a percentage point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Confidence level.
LEVEL = 0.95
#: Quantile of the upper end of an interval.
UPPER = (1 + LEVEL) / 2


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval of a score in [0, 1].

    Attributes:
        low, high: ends of the interval (Korn and Graubard, with the variance of the artist bootstrap).
        percentiles: 2.5th and 97.5th percentile of the resampled scores, for comparison with other work.
    """

    low: float
    high: float
    percentiles: tuple[float, float]

    @property
    def width(self) -> float:
        """Width of the interval."""
        return self.high - self.low


@dataclass(frozen=True)
class Chance:
    """Accuracy by track that guessing reaches, and whether a model is better.

    Attributes:
        uniform: accuracy of guessing each genre equally often.
        majority: accuracy of always answering the genre with the most training tracks; None if those are unknown.
        level: the larger of the two.
        p_value: probability that guessing at this level is right at least as often as the model.
        least_accuracy: smallest accuracy whose `p_value` is below 0.05; None if even that of 100 % is not.
    """

    uniform: float
    majority: float | None
    level: float
    p_value: float
    least_accuracy: float | None


@dataclass(frozen=True)
class Component:
    """A part of the variance of an estimate.

    Attributes:
        variance: the variance.
        freedom: its degrees of freedom.
    """

    variance: float
    freedom: float


def total(components: Sequence[Component]) -> Component:
    """Add up components of a variance; degrees of freedom by Welch and Satterthwaite.

    Args:
        components: at least one, with a variance above 0.
    """
    parts = [part for part in components if part.variance > 0]
    variance = sum(part.variance for part in parts)
    return Component(variance, variance**2 / sum(part.variance**2 / part.freedom for part in parts))


def resample(counts: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Draw bootstrap samples of the groups, and add up the counts of each.

    Args:
        counts: counts of each group, `(groups, ...)`, of which scores of several groups can be computed by summing.
        n_resamples: number of samples; each has as many groups as `counts`, drawn with replacement.
        seed: seed of the draws.

    Returns:
        Sums of each sample, float64 `(n_resamples, ...)`.
    """
    n_groups = len(counts)
    draws = np.random.default_rng(seed).multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples)
    flat = counts.reshape(n_groups, -1).astype(np.float64)  # BLAS multiplies no integers
    return (draws.astype(np.float64) @ flat).reshape(n_resamples, *counts.shape[1:])


def interval(estimate: float, resampled: np.ndarray, sizes: np.ndarray, further: Sequence[Component] = ()) -> Interval:
    """Compute the confidence interval of a score.

    Args:
        estimate: score of all groups, in [0, 1].
        resampled: score of each bootstrap sample, `(resamples,)`; NaN if it is undefined.
        sizes: number of items in each group, `(groups,)`.
        further: variance of the score that has other causes than the choice of the groups, such as the seed.
    """
    from scipy import stats

    resampled = resampled[np.isfinite(resampled)]
    if not len(resampled):
        resampled = np.array([estimate])
    n, n_groups = float(sizes.sum()), len(sizes)
    variance = resampled.var() * n_groups / max(n_groups - 1, 1)
    freedom: float = max(n_groups - 1, 1)
    is_alike = variance < 1e-12 or n_groups == 1
    # If all groups score alike, that says nothing about their spread. Assume the worst case.
    effective = kish(sizes) if is_alike else min(n, estimate * (1 - estimate) / variance)
    if any(part.variance > 0 for part in further):
        whole = total([Component(estimate * (1 - estimate) / effective, freedom), *further])
        effective, freedom = estimate * (1 - estimate) / whole.variance, whole.freedom
        is_alike = False
    if not is_alike:
        effective *= float(stats.t.ppf(UPPER, max(n - 1, 1)) / stats.t.ppf(UPPER, freedom)) ** 2
    low, high = _clopper_pearson(estimate * effective, effective)
    first, last = np.quantile(resampled, [1 - UPPER, UPPER])
    return Interval(low, high, (float(first), float(last)))


def kish(sizes: np.ndarray) -> float:
    """Kish's effective sample size if a group counts as one item; groups may differ in size.

    Args:
        sizes: number of items in each group, `(groups,)`.
    """
    squares = sizes.astype(np.float64) ** 2
    return float(sizes.sum()) ** 2 / float(squares.sum())


def _clopper_pearson(successes: float, trials: float) -> tuple[float, float]:
    """Compute the exact binomial interval of a proportion; the counts need not be integers."""
    from scipy import stats

    failures = trials - successes
    low = float(stats.beta.ppf(1 - UPPER, successes, failures + 1)) if successes > 0 else 0.0
    high = float(stats.beta.ppf(UPPER, successes + 1, failures)) if failures > 0 else 1.0
    return low, high


def chance(correct: int, sizes: np.ndarray, uniform: float, majority: float | None) -> Chance:
    """Test whether a model is better than guessing.

    If every artist has one track, this is the exact binomial test. Otherwise, all tracks of an artist count as right or
    wrong together: tracks of one artist sound alike, so a guess by their sound does not succeed independently for each.

    Args:
        correct: number of tracks that the model has right.
        sizes: number of tracks of each artist, `(artists,)`.
        uniform: one over the number of genres.
        majority: see `Chance`.
    """
    from scipy import stats

    level = max(uniform, majority or 0.0)
    n_tracks = int(sizes.sum())
    # Probability of each number of right tracks: first of artists with one track, then artist by artist.
    right = stats.binom.pmf(np.arange(n_tracks + 1), np.sum(sizes == 1), level)
    for size in sizes[sizes > 1]:
        with_artist = np.zeros_like(right)
        with_artist[size:] = right[:-size]
        right = (1 - level) * right + level * with_artist
    at_least = np.minimum(np.cumsum(right[::-1])[::-1], 1)
    unlikely = np.flatnonzero(at_least < 1 - LEVEL)
    least = float(unlikely[0] / n_tracks) if len(unlikely) else None
    return Chance(uniform, majority, level, float(at_least[correct]), least)
