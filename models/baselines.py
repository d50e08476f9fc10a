"""Classical systems on disk: skops files, which name types and hold arrays, and are read without running code."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import ModelError, RunError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


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
    with files.output_errors(path):
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
        model = None if foreign else skops.io.loads(data, trusted=_calibration_types())
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
    """Types in a skops file that are not allowed, joined by commas. Nothing of it is imported or constructed."""
    import skops.io

    untrusted = set(skops.io.get_untrusted_types(data=data))
    return ", ".join(sorted(untrusted.difference(_calibration_types() if untrusted else ())))


@functools.cache
def _calibration_types() -> tuple[str, ...]:
    """What may be in a file besides the types skops trusts by itself (scikit-learn's public estimators, arrays).

    They are the parts of a classifier calibrated by temperature. Their names are private to scikit-learn, so they are
    those in the file of a small classifier that is fitted here.
    """
    import skops.io
    from sklearn.linear_model import RidgeClassifier

    from models.classical import calibrated

    example = calibrated(RidgeClassifier()).set_params(cv=2).fit([[-2.0], [-1.0], [1.0], [2.0]], [0, 0, 1, 1])
    return tuple(skops.io.get_untrusted_types(data=skops.io.dumps(example)))
