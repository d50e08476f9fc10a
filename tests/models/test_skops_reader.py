"""Quick reading of skops files: the estimators that `skops.io.loads` returns, without its imports, or nothing."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from mgc.models import classical, skops_reader
from mgc.models.registry import systems

#: Systems whose files this module reads. Multilayer perceptrons have a random state, which is left to skops.
QUICK = ("moments/logreg", "moments/knn", "moments/knn-pca", "xu2022/knn", "moments/svm", "kth2020/svm")
SLOW = ("moments/mlp",)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """The file of each system, fitted on three genres."""
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    x = (rng.standard_normal((240, 60)) + y[:, None]).astype(np.float32)
    tracks = [f"t{i // 4}" for i in range(240)]
    encoded = {}
    for id in (*QUICK, *SLOW):
        model = systems.get(id).build(3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            classical.fit(model, lambda: [(np.arange(240), x)], y, tracks, tracks)
        encoded[id] = classical.encode(model)
    return encoded


def parts(value: Any, seen: frozenset[int] = frozenset()) -> Any:
    """All that an estimator consists of, as values that can be compared: types, and bytes of arrays."""
    if isinstance(value, np.ndarray | np.generic):
        return type(value), value.dtype, value.shape, np.ascontiguousarray(value).tobytes(), value.flags.f_contiguous
    if isinstance(value, list | tuple):
        return type(value), [parts(one) for one in value]
    if isinstance(value, dict):
        return type(value), {key: parts(one) for key, one in value.items()}
    if type(value).__module__.startswith("sklearn"):
        return type(value), parts(vars(value))
    return type(value), repr(value)


@pytest.mark.parametrize("id", QUICK)
def test_an_estimator_is_that_of_skops_part_by_part(id: str, files: dict[str, bytes]) -> None:
    ours = skops_reader.read(files[id])
    theirs = skops.io.loads(files[id], trusted=classical.TRUSTED)
    assert isinstance(ours, Pipeline)
    assert parts(ours) == parts(theirs)
    x = np.random.default_rng(1).standard_normal((50, 60)).astype(np.float32)
    assert ours.predict_proba(x).tobytes() == theirs.predict_proba(x).tobytes()


@pytest.mark.parametrize("id", SLOW)
def test_a_file_with_other_types_is_left_to_skops(id: str, files: dict[str, bytes], tmp_path: Path) -> None:
    assert skops_reader.read(files[id]) is None
    (tmp_path / "model.skops").write_bytes(files[id])
    assert classical.load(tmp_path / "model.skops").predict_proba(np.zeros((1, 60))).shape == (1, 3)


def changed(data: bytes, change: Any) -> bytes:
    """A file whose schema was changed by a function."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "schema.json":
                schema = json.loads(content)
                change(schema)
                content = json.dumps(schema).encode()
            new.writestr(name, content)
    return out.getvalue()


def test_nothing_of_a_foreign_file_is_built(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    data = files["moments/logreg"]

    def steps(schema: dict) -> list[dict]:
        return schema["content"]["content"]["steps"]["content"]

    def foreign_type(schema: dict) -> None:
        steps(schema)[1]["content"][1] |= {"__module__": "subprocess", "__class__": "Popen"}

    def foreign_scalar(schema: dict) -> None:
        scaler = steps(schema)[0]["content"][1]["content"]["content"]
        scaler["n_samples_seen_"]["__class__"] = "memmap"

    def foreign_key(schema: dict) -> None:
        schema["content"]["key_types"]["content"][0] |= {"__module__": "os", "__class__": "system"}

    def later_protocol(schema: dict) -> None:
        schema["protocol"] += 1

    def no_node(schema: dict) -> None:
        schema["content"] = 5

    assert skops_reader.read(changed(data, lambda schema: None)) is not None
    monkeypatch.setattr(skops_reader, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    for change in (foreign_type, foreign_scalar, foreign_key, later_protocol, no_node):
        assert skops_reader.read(changed(data, change)) is None, change.__name__
    bytecode = skops.io.dumps(FunctionTransformer(func=np.log))
    for foreign in (b"", data[:-100], data.replace(b"PK", b"KP"), bytecode):
        assert skops_reader.read(foreign) is None


def test_reading_imports_neither_skops_nor_what_it_imports(files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "model.skops").write_bytes(files["moments/logreg"])
    program = """
import sys
from pathlib import Path
from mgc.models import classical
model = classical.load(Path(sys.argv[1]))
print(type(model[-1]).__name__, [name for name in ("skops", "dask", "pytest", "torch") if name in sys.modules])
"""
    words = [sys.executable, "-c", program, tmp_path / "model.skops"]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    assert run.stdout == "LogisticRegression []\n"
