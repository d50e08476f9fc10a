"""What the scikit-learn systems share: fitting out of core, and probabilities from decision values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.pipeline import Pipeline

Folds = list[tuple[np.ndarray, np.ndarray]]
#: Rows of the slice table, int64 `(n,)`, and their vectors, float32 `(n, values)`.
Batch = tuple[np.ndarray, np.ndarray]
Vectors = Callable[[], Iterable[Batch]]

#: Slices that are fitted, or predicted, at a time.
BLOCK = 512


def calibrated(classifier: ClassifierMixin) -> CalibratedClassifierCV:
    """`classifier`, fitted on all of the training set, with probabilities learned from held-out decision values.

    Temperature scaling: one parameter, which a few tracks can settle, and the most probable class stays the one that
    the classifier decides for. Platt's method fits two per class and moves decisions. `fit` supplies the folds.
    """
    from sklearn.calibration import CalibratedClassifierCV

    return CalibratedClassifierCV(classifier, method="temperature", ensemble=False)


def fit(model: Pipeline, vectors: Vectors, y: np.ndarray, tracks: Sequence[str], artists: Sequence[str | None]) -> None:
    """Fit a classical system in place: each step but the last block by block, the last on what they leave of a slice.

    So what is held in memory is `BLOCK` slices, and of all others what the classifier is given: principal components.

    Args:
        model: as its builder made it; its first steps have `partial_fit`.
        vectors: of all slices, each time it is called.
        y: class indices `(slices,)`.
        tracks: each slice's track.
        artists: each slice's artist; None where unknown.

    Raises:
        ModelError: too few slices, or tracks, of a genre.
    """
    from sklearn.calibration import CalibratedClassifierCV

    classifier = model[-1]
    neighbours = getattr(classifier, "n_neighbors", 0)
    if neighbours > len(y):
        raise ModelError(f"asks {neighbours} neighbours, and {len(y)} slices are all there are", "train on more tracks")
    calibrates = isinstance(classifier, CalibratedClassifierCV)
    if calibrates:
        classifier.set_params(cv=grouped_folds(y, tracks, artists))
    with fitting(len(y)):
        fit_steps(model, vectors)
        classifier.fit(in_blocks(model[:-1].transform, vectors(), len(y)), y)
    if calibrates:
        classifier.set_params(cv=None)  # row numbers of the training set are no part of the model
    drop_optimiser(classifier)


def drop_optimiser(classifier: ClassifierMixin) -> None:
    """Take the optimiser out of a fitted perceptron: it is no part of the model, and a saved model may not hold it.

    scikit-learn keeps it under a private name. It is what is of scikit-learn's own types and yet no estimator.
    """
    from sklearn.base import BaseEstimator
    from sklearn.neural_network import MLPClassifier

    if isinstance(classifier, MLPClassifier):
        for name, value in list(vars(classifier).items()):
            if type(value).__module__.startswith("sklearn.") and not isinstance(value, BaseEstimator):
                delattr(classifier, name)


@contextmanager
def fitting(n: int) -> Iterator[None]:
    """Raise `ModelError` where scikit-learn cannot fit something on `n` slices."""
    try:
        yield
    except ValueError as error:
        raise ModelError(f"cannot be fitted on {n} slices: {error}", "train on more tracks") from error


def fit_steps(model: Pipeline, vectors: Vectors) -> None:
    """Fit each step but the last in place, block by block."""
    for i in range(len(model) - 1):
        for _, x in _blocks(vectors()):
            model[i].partial_fit(model[:i].transform(x) if i else x)
        # As a file gives them back: arrays in another order are multiplied in another one, and rounded accordingly.
        arrays = {name: value for name, value in vars(model[i]).items() if isinstance(value, np.ndarray)}
        vars(model[i]).update({name: np.array(value, order="C") for name, value in arrays.items()})


def probabilities(model: Pipeline, vectors: Vectors, n: int) -> np.ndarray:
    """What a fitted system makes of `n` slices: `(n, classes)`."""
    return in_blocks(model.predict_proba, vectors(), n)


def in_blocks(function: Callable[[np.ndarray], np.ndarray], batches: Iterable[Batch], n: int) -> np.ndarray:
    """`(n, ...)`: the values of a function of the vectors, each in its row."""
    made = np.empty(0)
    for rows, x in _blocks(batches):
        values = function(x)
        if not len(made):
            made = np.empty((n, *values.shape[1:]), values.dtype)
        made[rows] = values
    return made


def _blocks(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches, joined to `BLOCK` rows; what would be left of them goes with the last, as components want enough."""
    held: list[Batch] = []
    for batch in batches:
        held.append(batch)
        if sum(len(rows) for rows, _ in held) >= 2 * BLOCK:
            rows, x = _joined(held)
            yield rows[:BLOCK], x[:BLOCK]
            held = [(rows[BLOCK:], x[BLOCK:])]
    if held:
        yield _joined(held)


def _joined(batches: list[Batch]) -> Batch:
    rows, x = zip(*batches, strict=True)
    return np.concatenate(rows), np.concatenate(x)


def grouped_folds(y: np.ndarray, tracks: Sequence[str], artists: Sequence[str | None], n_folds: int = 5) -> Folds:
    """Row indices (training, held out) of cross-validation folds that no artist straddles.

    Of a genre that has a single artist no track straddles them instead, and of no genre where even that is not enough;
    where one has few, there are fewer folds. (As of scikit-learn 1.9 the calibrated classifier cannot hand groups on to
    a splitter, hence indices.)

    Args:
        y: class indices `(slices,)`.
        tracks: each slice's track.
        artists: each slice's artist; None where unknown.
        n_folds: folds at most.

    Raises:
        ModelError: a genre has a single track.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    classes = np.unique(y)
    known = [track if artist is None else artist for track, artist in zip(tracks, artists, strict=True)]
    by_artist, by_track = np.asarray(known, dtype=str), np.asarray(tracks, dtype=str)
    lone = [label for label in classes if len(np.unique(by_artist[y == label])) == 1]
    for groups in (by_artist, np.where(np.isin(y, lone), by_track, by_artist), by_track):
        most = min(len(np.unique(groups[y == label])) for label in classes)
        for n in range(min(n_folds, most), 1, -1):
            folds = list(StratifiedGroupKFold(n).split(y, y, groups))
            if all(len(np.unique(y[training])) == len(classes) for training, _ in folds):
                return folds
    raise ModelError(
        "nothing can be held out to calibrate or to choose by: a genre has a single training track",
        "add tracks of every genre",
    )
