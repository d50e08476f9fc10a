"""Scores of a system on tracks: of each of its trainings, their mean, and both in bootstrap samples of the artists."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mgc.models.evaluation import intervals, metrics
from mgc.models.evaluation.intervals import Component, Interval
from mgc.models.evaluation.metrics import Predictions


@dataclass(frozen=True)
class Items:
    """The tracks that systems are compared on.

    Attributes:
        truth: index of the true genre of each track, int64 `(tracks,)`.
        artists: index of the artist of each track, int64 `(tracks,)`; all numbers from 0 are taken.
        genres: names of the genres.
    """

    truth: np.ndarray
    artists: np.ndarray
    genres: tuple[str, ...]

    @cached_property
    def sizes(self) -> np.ndarray:
        """Number of tracks of each artist, `(artists,)`."""
        return np.bincount(self.artists)


@dataclass(frozen=True)
class SystemScores:
    """Scores of the trainings of one system, which differ in the seed or the fold.

    Attributes:
        right: whether each training has each track right, bool `(trainings, tracks)`.
        accuracies, macro_f1s: scores of each training, `(trainings,)`.
        resampled_accuracy, resampled_macro_f1: mean score of the trainings in each bootstrap sample, `(resamples,)`.
            All systems on the same tracks have the same samples.
    """

    right: np.ndarray
    accuracies: np.ndarray
    macro_f1s: np.ndarray
    resampled_accuracy: np.ndarray
    resampled_macro_f1: np.ndarray

    @property
    def accuracy(self) -> float:
        """Mean accuracy of the trainings."""
        return float(self.accuracies.mean())

    @property
    def macro_f1(self) -> float:
        """Mean macro F1 of the trainings."""
        return float(self.macro_f1s.mean())

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the accuracies of the trainings (n - 1); None for a single one."""
        return float(self.accuracies.std(ddof=1)) if len(self.accuracies) > 1 else None

    @property
    def macro_f1_deviation(self) -> float | None:
        """Standard deviation of the macro F1 of the trainings (n - 1); None for a single one."""
        return float(self.macro_f1s.std(ddof=1)) if len(self.macro_f1s) > 1 else None

    def intervals(self, items: Items) -> tuple[Interval, Interval]:
        """Compute the 95 % intervals of accuracy and macro F1, for other artists and other trainings."""
        accuracy = intervals.interval(
            self.accuracy, self.resampled_accuracy, items.sizes, training_variance(self.accuracies)
        )
        macro_f1 = intervals.interval(
            self.macro_f1, self.resampled_macro_f1, items.sizes, training_variance(self.macro_f1s)
        )
        return accuracy, macro_f1


def measure(items: Items, predicted: np.ndarray, *, n_resamples: int = 2000, seed: int = 0) -> SystemScores:
    """Score the trainings of a system.

    Args:
        items: the tracks.
        predicted: index of the genre that each training predicts for each track, int `(trainings, tracks)`.
        n_resamples: number of bootstrap samples.
        seed: seed of the bootstrap.
    """
    eye = np.eye(len(items.genres))
    ids, starts = np.arange(len(items.truth)), np.zeros(len(items.truth))
    whole, resampled = [], []
    for row in predicted:
        counts = metrics.tally(Predictions(items.genres, items.truth, eye[row], ids, starts, items.artists))
        whole.append(metrics.rates(counts.sum(axis=0)))
        resampled.append(metrics.rates(intervals.resample(counts, n_resamples, seed)))
    return SystemScores(
        right=np.asarray(predicted) == items.truth,
        accuracies=np.array([float(rates.accuracy) for rates in whole]),
        macro_f1s=np.array([float(rates.macro_f1) for rates in whole]),
        resampled_accuracy=np.mean([rates.accuracy for rates in resampled], axis=0),
        resampled_macro_f1=np.mean([rates.macro_f1 for rates in resampled], axis=0),
    )


def training_variance(scores: np.ndarray) -> tuple[Component, ...]:
    """Variance of the mean score of several trainings that is due to the choice of these; nothing for a single one."""
    n = len(scores)
    return (Component(float(scores.var(ddof=1)) / n, n - 1),) if n > 1 else ()
