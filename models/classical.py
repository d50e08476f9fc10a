"""What the scikit-learn systems share: fitting out of core, probabilities from decision values, and skops files.

skops files name types and hold arrays; they are read without running code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mgc.pipeline.errors import ModelError, RunError
from mgc.pipeline.storage import files

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.pipeline import Pipeline

Folds = list[tuple[np.ndarray, np.ndarray]]
#: Rows of the slice table, int64 `(n,)`, and their vectors, float32 `(n, values)`.
VectorBatch = tuple[np.ndarray, np.ndarray]
Vectors = Callable[[], Iterable[VectorBatch]]

#: What may be in a file besides the types skops trusts by itself (scikit-learn's public estimators, NumPy's arrays):
#: the private parts of a classifier calibrated by temperature.
TRUSTED = ("sklearn.calibration._CalibratedClassifier", "sklearn.calibration._TemperatureScaling")

#: Slices that are fitted, or predicted, at a time.
BLOCK = 512


def calibrate(classifier: ClassifierMixin) -> CalibratedClassifierCV:
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
    with fit_errors(len(y)):
        fit_steps(model, vectors)
        classifier.fit(map_blocks(model[:-1].transform, vectors(), len(y)), y)
    if calibrates:
        classifier.set_params(cv=None)  # row numbers of the training set are no part of the model
    # Nor are an optimiser's moments, which are also of a type that a saved model may not hold.
    vars(classifier).pop("_optimizer", None)


@contextmanager
def fit_errors(n: int) -> Iterator[None]:
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


def predict_proba(model: Pipeline, vectors: Vectors, n: int) -> np.ndarray:
    """What a fitted system makes of `n` slices: `(n, classes)`."""
    return map_blocks(model.predict_proba, vectors(), n)


def map_blocks(function: Callable[[np.ndarray], np.ndarray], batches: Iterable[VectorBatch], n: int) -> np.ndarray:
    """`(n, ...)`: the values of a function of the vectors, each in its row."""
    made = np.empty(0)
    for rows, x in _blocks(batches):
        values = function(x)
        if not len(made):
            made = np.empty((n, *values.shape[1:]), values.dtype)
        made[rows] = values
    return made


def _blocks(batches: Iterable[VectorBatch]) -> Iterator[VectorBatch]:
    """The batches, joined to `BLOCK` rows; what would be left of them goes with the last, as components want enough."""
    held: list[VectorBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(len(rows) for rows, _ in held) >= 2 * BLOCK:
            rows, x = _joined(held)
            yield rows[:BLOCK], x[:BLOCK]
            held = [(rows[BLOCK:], x[BLOCK:])]
    if held:
        yield _joined(held)


def _joined(batches: list[VectorBatch]) -> VectorBatch:
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


def save(model: Pipeline, path: Path) -> None:
    """Replace a file atomically by a fitted classifier.

    Raises:
        ModelError: the classifier has a part that `load` would refuse.
        MgcError: the file cannot be written.
    """
    import skops.io

    data = skops.io.dumps(model)
    if foreign := _foreign_types(data):
        raise ModelError(f"a model with {foreign} cannot be loaded safely", "build it of scikit-learn's estimators")
    with files.translate_write_errors(path):
        files.write_bytes(path, data)


def load(path: Path) -> Pipeline:
    """The classifier that `save` wrote.

    Raises:
        RunError: the file is missing or damaged, holds a type that is not allowed, or no fitted classifier.
    """
    import skops.io
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    remedy = "train a new run"
    try:
        data = path.read_bytes()
        foreign = _foreign_types(data)
        model = None if foreign else skops.io.loads(data, trusted=TRUSTED)
    except FileNotFoundError:
        raise RunError(f"{path}: missing", remedy) from None
    except Exception as error:  # whatever zipfile, json, numpy and skops raise for foreign bytes
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"{path}: damaged ({first_line})", remedy) from error
    if foreign:
        raise RunError(f"{path}: not loaded, since what it holds could run code ({foreign})", remedy)
    try:
        check_is_fitted(model)
    except (TypeError, NotFittedError):
        raise RunError(f"{path}: holds no fitted model", remedy) from None
    if not hasattr(model, "predict_proba"):
        raise RunError(f"{path}: holds a model that gives no probabilities", remedy)
    return model


def _foreign_types(data: bytes) -> str:
    """Types in a skops file that are not allowed, joined by commas. Nothing is imported or constructed."""
    import skops.io

    return ", ".join(sorted(set(skops.io.get_untrusted_types(data=data)).difference(TRUSTED)))
