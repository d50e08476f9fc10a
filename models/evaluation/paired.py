"""The difference of two systems on the same tracks: its confidence interval, and whether it may be chance.

Each track has a difference, the correctness of the first system less that of the second: -1, 0 or 1; or a value between
them if a system was trained several times, with other seeds, and its correctness is the mean over these.

**Interval.** Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on
paired data", Journal of Educational and Behavioral Statistics 37, 2012: add one track that the first alone has right
and one that the second alone has, then take the normal interval. It has a width even if the systems never differ. The
number of tracks in its formula is the effective one: as many independent tracks as would have the variance that the
bootstrap over artists gives (as in `mgc.models.evaluation.intervals`). The quantile is that of Student's t.

**Test.** McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
Psychometrika 12, 1947, in its exact form: if the systems are equally good, each track that only one of them has right
is as likely to be the other's. Tracks of an artist tend to be right together, so the test exchanges the two systems for
all tracks of an artist at once. With one track per artist, this is the binomial test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mgc.models.evaluation.intervals import UPPER, Component, kish, total


@dataclass(frozen=True)
class Span:
    """A difference of two scores, and its 95 % confidence interval, all in [-1, 1].

    Attributes:
        difference: score of the first system less that of the second.
        low, high: ends of the interval.
        percentiles: 2.5th and 97.5th percentile of the bootstrap, without the variance of seeds.
    """

    difference: float
    low: float
    high: float
    percentiles: tuple[float, float]

    def reversed(self) -> Span:
        """The difference of the second score less the first."""
        first, last = self.percentiles
        return Span(0.0 - self.difference, 0.0 - self.high, 0.0 - self.low, (0.0 - last, 0.0 - first))


@dataclass(frozen=True)
class Error:
    """The sampling error of a difference.

    Attributes:
        shrinkage: factor of the difference, which gives the centre of the interval.
        variance: variance of the centre, with its degrees of freedom, of artists and seeds.
        inflation: variance of the centre due to artists over the bootstrap's; None if that is 0.
    """

    shrinkage: float
    variance: Component
    inflation: float | None


def accuracy_error(
    differences: np.ndarray, resampled: np.ndarray, sizes: np.ndarray, seeds: Sequence[Component] = ()
) -> Error:
    """Compute the error of a difference of accuracies.

    Args:
        differences: difference of each track, `(tracks,)`, in [-1, 1].
        resampled: difference of the accuracies in each bootstrap sample of the artists, `(resamples,)`.
        sizes: number of tracks of each artist, `(artists,)`.
        seeds: for each system that was trained several times: the variance of its mean accuracy over the trainings.
    """
    n, n_groups = float(len(differences)), len(sizes)
    mean, squares = float(differences.mean()), float((differences**2).mean())
    bootstrap = _variance(resampled, n_groups)
    if bootstrap > 1e-12 and n_groups > 1:
        n = min(n, (squares - mean**2) / bootstrap)
    else:  # all artists differ alike, which says nothing about their spread: assume that each counts as one track
        n = kish(sizes)
    shrinkage = n / (n + 2)
    variance = ((n * squares + 2) / (n + 2) - (shrinkage * mean) ** 2) / (n + 2)
    whole = total([Component(variance, max(n_groups - 1, 1)), *seeds])
    return Error(shrinkage, whole, variance / bootstrap if bootstrap > 1e-12 else None)


def score_error(error: Error, resampled: np.ndarray, n_groups: int, seeds: Sequence[Component] = ()) -> Error:
    """Compute the error of a difference of other scores, such as macro F1, from that of the accuracies.

    Their bootstrap variance is enlarged by the same factor as that of the accuracies, and their difference shrunk
    likewise: there is no formula for small samples of their own.

    Args:
        error: error of the difference of the accuracies.
        resampled: difference of the scores in each bootstrap sample, `(resamples,)`.
        n_groups: number of artists.
        seeds: variance of the mean score of each system that was trained several times.
    """
    if error.inflation is None:
        return error
    own = Component(error.inflation * _variance(resampled, n_groups), max(n_groups - 1, 1))
    return Error(
        error.shrinkage, total([own, *seeds]) if own.variance > 0 or seeds else error.variance, error.inflation
    )


def span(difference: float, error: Error, resampled: np.ndarray) -> Span:
    """Compute the confidence interval of a difference from its error."""
    from scipy import stats

    centre = error.shrinkage * difference
    half = float(stats.t.ppf(UPPER, error.variance.freedom)) * error.variance.variance**0.5
    first, last = np.nanquantile(resampled, [1 - UPPER, UPPER])
    # The interval contains the difference itself, from which shrinkage moves it away if there are few artists.
    low, high = min(centre - half, difference), max(centre + half, difference)
    return Span(difference, max(low, -1.0), min(high, 1.0), (float(first), float(last)))


def p_value(difference: float, error: Error) -> float:
    """Probability of a difference at least as large if the systems are equally good, by Student's t."""
    from scipy import stats

    quantile = abs(error.shrinkage * difference) / error.variance.variance**0.5
    return float(2 * stats.t.sf(quantile, error.variance.freedom))


def mcnemar(only_first: np.ndarray, only_second: np.ndarray) -> float:
    """Compute the two-sided p-value of McNemar's exact test, in which groups of tracks are exchanged together.

    Args:
        only_first: number of tracks that the first system alone has right, of each group, int `(groups,)`.
        only_second: the same of the second system.

    Returns:
        Probability of at least the observed imbalance. If no group has more than one such track, this is the binomial
        test. Probabilities below 1e-12 are inaccurate.
    """
    balance = np.asarray(only_first, np.int64) - np.asarray(only_second, np.int64)
    sizes, counts = np.unique(np.abs(balance[balance != 0]), return_counts=True)
    largest = int((sizes * counts).sum())
    if not largest:
        return 1.0
    # The distribution of a sum of ±sizes, from the product of its characteristic functions.
    length = 2 * largest + 1
    frequencies = 2 * np.pi * np.arange(length) / length
    product = np.ones(length)
    for size, count in zip(sizes, counts, strict=True):
        product *= np.cos(size * frequencies) ** count
    probabilities = np.fft.fft(product).real / length  # of the sums 0 ... largest, then -largest ... -1
    observed = abs(int(balance.sum()))
    if not observed:
        return 1.0
    return float(np.clip(2 * probabilities[observed : largest + 1].sum(), 0, 1))


def _variance(resampled: np.ndarray, n_groups: int) -> float:
    """Variance of a bootstrapped score; samples in which it is undefined are left out."""
    defined = resampled[np.isfinite(resampled)]
    return float(defined.var()) * n_groups / max(n_groups - 1, 1) if len(defined) else 0.0
