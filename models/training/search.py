"""Grid search: hyper-parameters of a classical system, chosen by cross-validation of the training split.

The choice is that of scikit-learn's `GridSearchCV` with its defaults: accuracy by slice, the unweighted mean over the
folds, and the first of equal candidates. Other than there, the steps before the classifier are fitted block by block,
and the vectors of one fold are in memory at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mgc.models.classical import Folds, VectorBatch, Vectors, fit_errors, fit_steps, grouped_folds, map_blocks
from mgc.models.training.loop import Echo
from mgc.pipeline.errors import ModelError

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.pipeline import Pipeline


class LabelledVectors(NamedTuple):
    """Slices to fit a classical system on, in the order of the arguments of `mgc.models.classical.fit`.

    Attributes:
        vectors: returns the vectors of all slices in batches, anew at each call.
        labels: class index of each slice, int `(slices,)`.
        tracks: track id of each slice.
        artists: artist id of each slice; None where unknown.
    """

    vectors: Vectors
    labels: np.ndarray
    tracks: Sequence[str]
    artists: Sequence[str | None]


@dataclass(frozen=True)
class Candidate:
    """One point of the grid and its scores.

    Attributes:
        values: parameters of the classifier, by name.
        accuracies: accuracy by slice on the held-out slices of each fold.
    """

    values: Mapping[str, Any]
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean accuracy over the folds."""
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float:
        """Sample standard deviation (n - 1) of the accuracies of the folds."""
        return float(np.std(self.accuracies, ddof=1))

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.values.items())


@dataclass(frozen=True)
class SearchResult:
    """Result of a grid search.

    Attributes:
        grouped_by: `artist` if no artist is in two folds; `artist or track` if tracks were grouped instead for genres
            with a single artist.
        candidates: points of the grid, in its order.
    """

    grouped_by: str
    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate:
        """The first candidate with the highest mean accuracy."""
        return max(self.candidates, key=lambda candidate: candidate.mean)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain values, for the summary of the run."""
        rows = [
            {"values": dict(each.values), "mean": each.mean, "std": each.std, "accuracies": list(each.accuracies)}
            for each in self.candidates
        ]
        return {"grouped_by": self.grouped_by, "candidates": rows, "chosen": dict(self.best.values)}


def search(
    model: Pipeline, grid: Mapping[str, Sequence[Any]], data: LabelledVectors, echo: Echo = print
) -> SearchResult:
    """Score every point of a grid by cross-validation; `model` itself is not fitted.

    Since the grid holds parameters of the classifier only, the steps before it are fitted once per fold, on the
    training part, for all candidates; each step takes one pass over the slices. A calibrated classifier is scored
    without calibration, which changes no decision.

    Args:
        model: unfitted pipeline of a system.
        grid: values of each parameter, by name. Candidates are all combinations; the last parameter varies fastest.
        data: slices of the training split.
        echo: prints a line for each candidate.

    Raises:
        ModelError: a genre has a single track, or the folds have too few slices for any candidate.
    """
    folds = grouped_folds(data.labels, data.tracks, data.artists)
    grouped_by = "artist or track" if _splits_artists(folds, data.artists) else "artist"
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    n_fit = min(len(training) for training, _ in folds)
    feasible = [point for point in points if point.get("n_neighbors", 0) <= n_fit]
    if not feasible:
        problem = f"every candidate asks for more neighbours than the {n_fit} slices of a fold"
        raise ModelError(problem, "train on more tracks")
    left_out = f" ({len(points) - len(feasible)} left out: a fold has {n_fit} slices)" if feasible != points else ""
    by = f"grouped by {grouped_by}"
    echo(f"search: {len(feasible)} candidates{left_out}, {len(folds)} folds of the training tracks, {by}")
    scores = np.stack([_score_fold(model, feasible, data, fold) for fold in folds], axis=1)
    pairs = zip(feasible, map(tuple, scores.tolist()), strict=True)
    result = SearchResult(grouped_by, tuple(Candidate(*pair) for pair in pairs))
    for candidate in result.candidates:
        percentages = " ".join(f"{100 * accuracy:.1f}" for accuracy in candidate.accuracies)
        echo(f"  {candidate}: accuracy by slice {candidate.mean:.1%} ± {100 * candidate.std:.1f} ({percentages})")
    echo(f"search: {result.best}")
    return result


def base_classifier(model: Pipeline) -> ClassifierMixin:
    """Return the classifier of a pipeline; if it is calibrated, the one inside `CalibratedClassifierCV`."""
    from sklearn.calibration import CalibratedClassifierCV

    classifier = model[-1]
    return classifier.estimator if isinstance(classifier, CalibratedClassifierCV) else classifier


def _score_fold(
    model: Pipeline, points: Sequence[Mapping[str, Any]], data: LabelledVectors, fold: tuple[np.ndarray, np.ndarray]
) -> list[float]:
    """Fit each candidate on the training rows of a fold; return its accuracy on the held-out rows."""
    from sklearn.base import clone

    training, held_out = fold
    labels, n = data.labels, len(data.labels)
    pipeline = clone(model)
    accuracies = []
    with fit_errors(len(training)):
        fit_steps(pipeline, lambda: _take_rows(data.vectors(), training, n))
        rows = np.concatenate([training, held_out])
        x = map_blocks(pipeline[:-1].transform, _take_rows(data.vectors(), rows, n), n)
        x_training, x_held_out = x[: len(training)], x[len(training) :]
        for point in points:
            classifier = clone(base_classifier(model)).set_params(**point).fit(x_training, labels[training])
            accuracies.append(float(np.mean(classifier.predict(x_held_out) == labels[held_out])))
    return accuracies


def _take_rows(batches: Any, selected: np.ndarray, n: int) -> Iterator[VectorBatch]:
    """Yield the batches reduced to the selected rows, each renumbered to its position in `selected`.

    Args:
        batches: row numbers and vectors.
        selected: row numbers, int64 `(selected,)`.
        n: number of all rows.
    """
    position = np.full(n, -1)
    position[selected] = np.arange(len(selected))
    for rows, x in batches:
        mask = position[rows] >= 0
        if mask.any():
            yield position[rows][mask], x[mask]


def _splits_artists(folds: Folds, artists: Sequence[str | None]) -> bool:
    """Return True if a known artist is on both sides of a fold."""
    ids = np.asarray(["" if artist is None else artist for artist in artists])
    return any(set(ids[training]) & set(ids[held_out]) - {""} for training, held_out in folds)
