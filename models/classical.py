"""Scikit-learn systems: fitting block by block, calibrated probabilities, and skops files.

A skops file holds names of types and arrays; reading it runs no code from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgc.models import skops_reader
from mgc.pipeline.errors import ModelError, RunError
from mgc.pipeline.storage import files

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.pipeline import Pipeline

#: Row indices (training, held out) of each fold.
Folds = list[tuple[np.ndarray, np.ndarray]]
#: Rows of the slice table, int64 `(n,)`, and the feature vectors of these slices, float32 `(n, values)`.
VectorBatch = tuple[np.ndarray, np.ndarray]
#: A function that yields the vectors of all slices each time it is called, in any order.
Vectors = Callable[[], Iterable[VectorBatch]]

#: Types that a file may contain besides those that skops trusts (scikit-learn's public estimators, NumPy's arrays): the
#: private parts of a classifier calibrated by temperature scaling.
TRUSTED = ("sklearn.calibration._CalibratedClassifier", "sklearn.calibration._TemperatureScaling")

#: Slices that are fitted or predicted at a time.
BLOCK = 512


def calibrate(classifier: ClassifierMixin) -> CalibratedClassifierCV:
    """Wrap a classifier to give probabilities, calibrated by temperature scaling on held-out decision values.

    The classifier itself is fitted on the whole training set. Temperature scaling has one parameter, for which a few
    tracks suffice, and the most probable class stays the one that the classifier decides for; Platt's method fits two
    parameters per class and changes decisions. `fit` supplies the folds.
    """
    from sklearn.calibration import CalibratedClassifierCV

    return CalibratedClassifierCV(classifier, method="temperature", ensemble=False)


def fit(model: Pipeline, vectors: Vectors, y: np.ndarray, tracks: Sequence[str], artists: Sequence[str | None]) -> None:
    """Fit a classical system in place: every step but the last block by block, the last on all transformed slices.

    Memory then holds `BLOCK` slices as vectors, and all slices as the input of the last step: principal components.

    Args:
        model: unfitted pipeline, whose steps but the last have `partial_fit`.
        vectors: yields the vectors of all slices.
        y: class indices, int64 `(slices,)`.
        tracks: track id of each slice.
        artists: artist id of each slice; None if unknown.

    Raises:
        ModelError: there are too few slices, or a genre has too few tracks.
    """
    from sklearn.calibration import CalibratedClassifierCV

    classifier = model[-1]
    neighbours = getattr(classifier, "n_neighbors", 0)
    if neighbours > len(y):
        problem = f"the model needs {neighbours} neighbours, the training split has only {len(y)} slices"
        raise ModelError(problem, "train on more tracks")
    is_calibrated = isinstance(classifier, CalibratedClassifierCV)
    if is_calibrated:
        classifier.set_params(cv=grouped_folds(y, tracks, artists))
    with fit_errors(len(y)):
        fit_steps(model, vectors)
        classifier.fit(map_blocks(model[:-1].transform, vectors(), len(y)), y)
    if is_calibrated:
        classifier.set_params(cv=None)  # row numbers of the training set do not belong to the model
    # Neither do the optimiser's moments, which have a type that a saved model may not contain.
    vars(classifier).pop("_optimizer", None)


def uses_seed(model: Pipeline) -> bool:
    """Whether fitting draws random numbers, so that the result depends on the seed."""
    return any(True for _ in _random_parts(model))


def set_seed(model: Pipeline, seed: int) -> None:
    """Seed the estimators of a pipeline that draw random numbers."""
    for estimator in _random_parts(model):
        estimator.set_params(random_state=seed)


def _random_parts(model: Pipeline) -> Iterator[Any]:
    """Yield the estimators of a pipeline that draw random numbers when they are fitted.

    Those have a parameter `random_state`; so have SVC and LogisticRegression, which draw random numbers only with
    settings that the systems of mgc do not use.
    """
    for step in model.named_steps.values():
        for estimator in (step, getattr(step, "estimator", None)):
            settings = estimator.get_params(deep=False) if estimator is not None else {}
            name = type(estimator).__name__
            is_exact = (name == "SVC" and settings.get("probability") is not True) or (
                name == "LogisticRegression" and settings.get("solver") in ("lbfgs", "newton-cg", "newton-cholesky")
            )
            if "random_state" in settings and not is_exact:
                yield estimator


@contextmanager
def fit_errors(n: int) -> Iterator[None]:
    """Translate the errors of scikit-learn while it fits on `n` slices to `ModelError`."""
    try:
        yield
    except ValueError as error:
        raise ModelError(f"the model cannot be fitted on {n} slices: {error}", "train on more tracks") from error


def fit_steps(model: Pipeline, vectors: Vectors) -> None:
    """Fit every step but the last in place, block by block."""
    for i in range(len(model) - 1):
        for _, x in _blocks(vectors()):
            model[i].partial_fit(model[:i].transform(x) if i else x)
        # C order, as `load` returns them: products of arrays in Fortran order are rounded differently.
        arrays = {name: value for name, value in vars(model[i]).items() if isinstance(value, np.ndarray)}
        vars(model[i]).update({name: np.array(value, order="C") for name, value in arrays.items()})


def predict_proba(model: Pipeline, vectors: Vectors, n: int) -> np.ndarray:
    """Predict class probabilities of `n` slices, float `(n, classes)`."""
    return map_blocks(model.predict_proba, vectors(), n)


def map_blocks(function: Callable[[np.ndarray], np.ndarray], batches: Iterable[VectorBatch], n: int) -> np.ndarray:
    """Apply a function to vectors block by block.

    Args:
        function: function from vectors `(block, values)` to `(block, ...)`.
        batches: vectors of `n` slices.
        n: number of slices.

    Returns:
        `(n, ...)`, each slice's result in its row.
    """
    result = np.empty(0)
    for rows, x in _blocks(batches):
        values = function(x)
        if not len(result):
            result = np.empty((n, *values.shape[1:]), values.dtype)
        result[rows] = values
    return result


def _blocks(batches: Iterable[VectorBatch]) -> Iterator[VectorBatch]:
    """Join batches to blocks of `BLOCK` rows. The last block has up to twice as many, as a PCA needs enough rows."""
    pending: list[VectorBatch] = []
    for batch in batches:
        pending.append(batch)
        if sum(len(rows) for rows, _ in pending) >= 2 * BLOCK:
            rows, x = _concatenate(pending)
            yield rows[:BLOCK], x[:BLOCK]
            pending = [(rows[BLOCK:], x[BLOCK:])]
    if pending:
        yield _concatenate(pending)


def _concatenate(batches: list[VectorBatch]) -> VectorBatch:
    rows, x = zip(*batches, strict=True)
    return np.concatenate(rows), np.concatenate(x)


def grouped_folds(y: np.ndarray, tracks: Sequence[str], artists: Sequence[str | None], n_folds: int = 5) -> Folds:
    """Split slices into cross-validation folds that keep artists together.

    For a genre with a single artist, only tracks are kept together; if that is not enough, this holds for all genres.
    There are fewer folds if a genre has fewer artists. (They are row indices, since the calibrated classifier of
    scikit-learn 1.9 cannot pass groups on to a splitter.)

    Args:
        y: class indices, int64 `(slices,)`.
        tracks: track id of each slice.
        artists: artist id of each slice; None if unknown, then its track counts as an artist.
        n_folds: maximum number of folds.

    Raises:
        ModelError: a genre has a single track.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    classes = np.unique(y)
    names = [track if artist is None else artist for track, artist in zip(tracks, artists, strict=True)]
    by_artist, by_track = np.asarray(names, dtype=str), np.asarray(tracks, dtype=str)
    single_artist = [label for label in classes if len(np.unique(by_artist[y == label])) == 1]
    for groups in (by_artist, np.where(np.isin(y, single_artist), by_track, by_artist), by_track):
        max_folds = min(len(np.unique(groups[y == label])) for label in classes)
        for n in range(min(n_folds, max_folds), 1, -1):
            folds = list(StratifiedGroupKFold(n).split(y, y, groups))
            if all(len(np.unique(y[training])) == len(classes) for training, _ in folds):
                return folds
    raise ModelError(
        "a genre has a single training track: none can be held out for calibration or --search",
        "add tracks of every genre",
    )


def save(model: Pipeline, path: Path) -> None:
    """Write a fitted classifier to a skops file, which is replaced atomically.

    Raises:
        ModelError: the classifier contains a type that `load` would refuse.
        MgcError: the file cannot be written.
    """
    with files.translate_write_errors(path):
        files.write_bytes(path, encode(model))


def encode(model: Pipeline) -> bytes:
    """Encode a fitted classifier as a skops file.

    Raises:
        ModelError: the classifier contains a type that `load` would refuse.
    """
    import skops.io

    data = skops.io.dumps(model)
    if foreign := _foreign_types(data):
        raise ModelError(f"a model with {foreign} cannot be loaded safely", "build it from scikit-learn's estimators")
    return data


def load(path: Path, data: bytes | None = None) -> Pipeline:
    """Load a classifier that `save` wrote.

    Args:
        path: the file.
        data: bytes of the file; None reads them.

    Raises:
        RunError: the file is missing or damaged, contains a type that is not trusted, or holds no fitted classifier.
    """
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    remedy, foreign = "train a new run", ""
    try:
        data = path.read_bytes() if data is None else data
        model = skops_reader.read(data)
        if model is None:
            import skops.io

            foreign = _foreign_types(data)
            model = None if foreign else skops.io.loads(data, trusted=TRUSTED)
    except FileNotFoundError:
        raise RunError(f"{path}: missing", remedy) from None
    except Exception as error:  # whatever zipfile, json, numpy and skops raise for foreign bytes
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"{path}: damaged ({first_line})", remedy) from error
    if foreign:
        raise RunError(f"{path}: not loaded, as it contains types that could run code ({foreign})", remedy)
    try:
        check_is_fitted(model)
    except (TypeError, NotFittedError):
        raise RunError(f"{path}: holds no fitted model", remedy) from None
    if not hasattr(model, "predict_proba"):
        raise RunError(f"{path}: holds a model that gives no probabilities", remedy)
    return model


def _foreign_types(data: bytes) -> str:
    """Types in a skops file that are not trusted, joined by commas. Nothing is imported or constructed."""
    import skops.io

    return ", ".join(sorted(set(skops.io.get_untrusted_types(data=data)).difference(TRUSTED)))
