"""What the scikit-learn systems share: fitting, and probabilities from decision values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.pipeline import Pipeline

Folds = list[tuple[np.ndarray, np.ndarray]]


def calibrated(classifier: ClassifierMixin) -> CalibratedClassifierCV:
    """`classifier`, fitted on all of the training set, with probabilities learned from held-out decision values.

    Temperature scaling: one parameter, which a few tracks can settle, and the most probable class stays the one that
    the classifier decides for. Platt's method fits two per class and moves decisions. `fit` supplies the folds.
    """
    from sklearn.calibration import CalibratedClassifierCV

    return CalibratedClassifierCV(classifier, method="temperature", ensemble=False)


def fit(model: Pipeline, x: np.ndarray, y: np.ndarray, tracks: Sequence[str], artists: Sequence[str | None]) -> None:
    """Fit a classical system in place.

    Args:
        model: as its builder made it.
        x: float32 `(slices, values)`.
        y: class indices `(slices,)`.
        tracks: each slice's track.
        artists: each slice's artist; None where unknown.

    Raises:
        ModelError: too few slices, or tracks, of a genre.
    """
    from sklearn.calibration import CalibratedClassifierCV

    classifier = model[-1]
    neighbours = getattr(classifier, "n_neighbors", 0)
    if neighbours > len(x):
        raise ModelError(f"asks {neighbours} neighbours, and {len(x)} slices are all there are", "train on more tracks")
    calibrates = isinstance(classifier, CalibratedClassifierCV)
    if calibrates:
        classifier.set_params(cv=grouped_folds(y, tracks, artists))
    try:
        model.fit(x, y)
    except ValueError as error:
        raise ModelError(f"cannot be fitted on {len(x)} slices: {error}", "train on more tracks") from error
    if calibrates:
        classifier.set_params(cv=None)  # row numbers of the training set are no part of the model
    # Nor are an optimiser's moments, which are also of a type that a saved model may not hold.
    vars(classifier).pop("_optimizer", None)


def grouped_folds(y: np.ndarray, tracks: Sequence[str], artists: Sequence[str | None], n_folds: int = 5) -> Folds:
    """Row indices (training, held out) of cross-validation folds that no artist straddles.

    Where a genre has a single artist no track straddles them instead; where it has few, there are fewer folds. (As of
    scikit-learn 1.9 the calibrated classifier cannot hand groups on to a splitter, hence indices.)

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
    for groups in (np.asarray(known, dtype=str), np.asarray(tracks, dtype=str)):
        most = min(len(np.unique(groups[y == label])) for label in classes)
        for n in range(min(n_folds, most), 1, -1):
            folds = list(StratifiedGroupKFold(n).split(y, y, groups))
            if all(len(np.unique(y[training])) == len(classes) for training, _ in folds):
                return folds
    raise ModelError(
        "probabilities cannot be calibrated: a genre has a single training track", "add tracks of every genre"
    )
