"""Hyper-parameters of a classical system, chosen by cross-validation of the training split.

As scikit-learn's `GridSearchCV` with its defaults chooses them (accuracy by slice, the plain mean over the folds, of
equals the first), but with steps fitted block by block, and in memory that holds one fold's vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mgc.models.classical import Batch, Folds, Vectors, fit_steps, fitting, grouped_folds, in_blocks
from mgc.models.training.loop import Echo
from mgc.pipeline.errors import ModelError

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True)
class Candidate:
    """One point of a grid.

    Attributes:
        values: of the classifier's parameters, by name.
        accuracies: by slice, of each fold's held-out slices.
    """

    values: Mapping[str, Any]
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the folds."""
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float:
        """Standard deviation over the folds, of a sample (n - 1)."""
        return float(np.std(self.accuracies, ddof=1))

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.values.items())


@dataclass(frozen=True)
class Search:
    """What cross-validation found.

    Attributes:
        grouped_by: what no fold shares with another one: `artist`, or where a genre has a single one `artist or track`.
        candidates: in the order of the grid.
    """

    grouped_by: str
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate:
        """The one with the best mean; of equals the first."""
        return max(self.candidates, key=lambda candidate: candidate.mean)

    def as_dict(self) -> dict[str, Any]:
        """For the run's summary."""
        rows = [
            {"values": dict(one.values), "mean": one.mean, "std": one.std, "accuracies": list(one.accuracies)}
            for one in self.candidates
        ]
        return {"grouped_by": self.grouped_by, "candidates": rows, "chosen": dict(self.chosen.values)}


def search(
    model: Pipeline,
    grid: Mapping[str, Sequence[Any]],
    vectors: Vectors,
    y: np.ndarray,
    tracks: Sequence[str],
    artists: Sequence[str | None],
    echo: Echo = print,
) -> Search:
    """Choose parameters of a system's classifier; nothing is fitted in `model` itself.

    Steps before the classifier are fitted on the training part of each fold, once for all candidates, since the grid is
    of the classifier alone: as many passes over the slices as there are steps, for each fold. What is held in memory is
    what the classifier is given of each slice, of one fold at a time. A calibrated classifier is tried without
    calibration, which changes no decision.

    Args:
        model: as its builder made it.
        grid: values by name; candidates are all combinations, the last name's values changing first.
        vectors, y, tracks, artists: see `mgc.models.classical.fit`; of the training split.
        echo: prints a line for each candidate.

    Raises:
        ModelError: a genre has a single track, or there are too few slices for any candidate.
    """
    from sklearn.base import clone

    folds = grouped_folds(y, tracks, artists)
    by = "artist or track" if _straddled(folds, artists) else "artist"
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    least = min(len(training) for training, _ in folds)
    possible = [point for point in points if point.get("n_neighbors", 0) <= least]
    if not possible:
        raise ModelError(f"the grid asks more neighbours than the {least} slices of a fold", "train on more tracks")
    left_out = f" ({len(points) - len(possible)} left out: a fold has {least} slices)" if possible != points else ""
    echo(f"search: {len(possible)} candidates{left_out}, {len(folds)} folds of the training tracks, grouped by {by}")
    scores = np.zeros((len(possible), len(folds)))
    for k, (training, held_out) in enumerate(folds):
        fold = clone(model)
        order = np.concatenate([training, held_out])
        with fitting(len(training)):
            fit_steps(fold, lambda rows=training: _only(rows, vectors(), len(y)))  # type: ignore[misc]
            x = in_blocks(fold[:-1].transform, _only(order, vectors(), len(y)), len(y))
            for i, point in enumerate(possible):
                classifier = clone(decider(model)).set_params(**point).fit(x[: len(training)], y[training])
                scores[i, k] = np.mean(classifier.predict(x[len(training) :]) == y[held_out])
    found = Search(by, tuple(Candidate(*pair) for pair in zip(possible, map(tuple, scores.tolist()), strict=True)))
    for one in found.candidates:
        each = " ".join(f"{100 * accuracy:.1f}" for accuracy in one.accuracies)
        echo(f"  {one}: accuracy by slice {one.mean:.1%} ± {100 * one.std:.1f} ({each})")
    echo(f"search: {found.chosen}")
    return found


def decider(model: Pipeline) -> ClassifierMixin:
    """The classifier that makes a system's decisions: the one inside where probabilities are calibrated."""
    from sklearn.calibration import CalibratedClassifierCV

    classifier = model[-1]
    return classifier.estimator if isinstance(classifier, CalibratedClassifierCV) else classifier


def _only(order: np.ndarray, batches: Any, n: int) -> Iterator[Batch]:
    """Of `n` slices those in `order`, each with its place in it as its row."""
    place = np.full(n, -1)
    place[order] = np.arange(len(order))
    for rows, x in batches:
        kept = place[rows] >= 0
        if kept.any():
            yield place[rows][kept], x[kept]


def _straddled(folds: Folds, artists: Sequence[str | None]) -> bool:
    """Whether a known artist is on both sides of a fold."""
    known = np.asarray(["" if artist is None else artist for artist in artists])
    return any(set(known[training]) & set(known[held_out]) - {""} for training, held_out in folds)
