"""Quick reading of the skops files of common estimators.

`import skops.io` asks scikit-learn for all its estimators to know which types it trusts. That imports every module of
scikit-learn, Dask's arrays and pytest: 1.1 CPU seconds of each `mgc evaluate` or `mgc predict`. This module knows the
types of the systems of mgc only, and returns what `skops.io.loads` would return for them. Any other file is left to
skops, which reads it or says what is wrong with it.

Format (protocol 2): a ZIP archive with `schema.json`, a tree of nodes that name their types, and an .npy file for each
array. Nodes with equal `__id__` are one object.
"""

from __future__ import annotations

import io
import json
from importlib import import_module
from typing import Any
from zipfile import ZipFile

import numpy as np

#: Protocol of skops whose nodes this module knows.
PROTOCOL = 2
#: Types that may be constructed. skops trusts the public estimators, too, and mgc the private parts of a classifier
#: calibrated by temperature scaling (`classical.TRUSTED`).
ESTIMATORS = frozenset(
    {
        ("sklearn.pipeline", "Pipeline"),
        ("sklearn.preprocessing._data", "StandardScaler"),
        ("sklearn.preprocessing._label", "LabelBinarizer"),
        ("sklearn.decomposition._incremental_pca", "IncrementalPCA"),
        ("sklearn.linear_model._logistic", "LogisticRegression"),
        ("sklearn.neighbors._classification", "KNeighborsClassifier"),
        ("sklearn.svm._classes", "SVC"),
        ("sklearn.calibration", "CalibratedClassifierCV"),
        ("sklearn.calibration", "_CalibratedClassifier"),
        ("sklearn.calibration", "_TemperatureScaling"),
    }
)
_SCALARS = frozenset({"bool", "int32", "int64", "float32", "float64"})


class UnknownNode(Exception):
    """A file has a node that this module does not know."""


def read(data: bytes) -> Any:
    """Read an estimator from the bytes of a skops file.

    Returns:
        The estimator; None if the file holds anything that this module does not know, or is damaged: let skops read it.
    """
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            schema = json.loads(archive.read("schema.json"))
            if type(schema["protocol"]) is not int or schema["protocol"] != PROTOCOL:
                return None
            _require_known(schema)
            return _Reader(archive).build(schema)
    except Exception:  # whatever zipfile, json, NumPy and scikit-learn raise; skops will say what is wrong
        return None


def _require_known(node: Any) -> None:
    """Raise `UnknownNode` unless all types in a tree are known, before anything of it is constructed."""
    kind, type_ = node["__loader__"], (node["__module__"], node["__class__"])
    children: list[Any] = []
    if kind == "ObjectNode" and type_ in ESTIMATORS:
        children = [node["content"]]
    elif kind == "DictNode" and type_ == ("builtins", "dict"):
        keys = node["key_types"]
        key_types = [(key["__loader__"], key["__module__"], key["__class__"]) for key in keys["content"]]
        if set(key_types) - {("TypeNode", "builtins", "str")} or len(key_types) != len(node["content"]):
            raise UnknownNode("keys that are no text")
        children = list(node["content"].values())
    elif (kind, type_) in (("ListNode", ("builtins", "list")), ("TupleNode", ("builtins", "tuple"))):
        children = node["content"]
    elif kind == "NdArrayNode" and node["type"] == "numpy" and type_[0] == "numpy":
        if type_[1] != "ndarray" and type_[1] not in _SCALARS:
            raise UnknownNode(type_[1])
    elif kind != "JsonNode":
        raise UnknownNode(kind)
    for child in children:
        _require_known(child)


class _Reader:
    """Builds the objects of a tree whose types are known.

    Args:
        archive: the file, for its arrays.
    """

    def __init__(self, archive: ZipFile) -> None:
        self._archive = archive
        self._built: dict[int, Any] = {}

    def build(self, node: dict[str, Any]) -> Any:
        """Build the object of a node, once for each `__id__`."""
        key = node["__id__"]
        if key not in self._built:
            self._built[key] = self._new(node)
        return self._built[key]

    def _new(self, node: dict[str, Any]) -> Any:
        kind = node["__loader__"]
        if kind == "JsonNode":
            return json.loads(node["content"])
        if kind == "NdArrayNode":
            array = np.load(io.BytesIO(self._archive.read(node["file"])), allow_pickle=False)
            return array if node["__class__"] == "ndarray" else getattr(np, node["__class__"])(array)
        if kind == "DictNode":
            return {name: self.build(value) for name, value in node["content"].items()}
        if kind != "ObjectNode":
            return (list if kind == "ListNode" else tuple)(self.build(value) for value in node["content"])
        estimator_type = getattr(import_module(node["__module__"]), node["__class__"])
        estimator = estimator_type.__new__(estimator_type)
        state = self.build(node["content"])
        if hasattr(estimator, "__setstate__"):
            estimator.__setstate__(state)
        else:
            vars(estimator).update(state)
        return estimator
