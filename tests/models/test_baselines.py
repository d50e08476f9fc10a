"""Saved classical systems: equal probabilities after the round trip, and nothing else gets in."""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mgc.models.classical import fit, load, save
from mgc.models.registry import systems
from mgc.pipeline.errors import ModelError, RunError

CLASSICAL = [system.id for system in systems.systems() if system.kind == "classical"]


@pytest.fixture(scope="module")
def fitted() -> dict:
    """Every classical system on three genres of 24 tracks with 4 slices each."""
    rng = np.random.default_rng(0)
    genre, track = np.arange(288) % 3, np.arange(288) // 12 * 3 + np.arange(288) % 3
    x = (rng.standard_normal((288, 60)) + 2 * np.eye(3, 60)[genre]).astype(np.float32)
    models = {id: systems.get(id).build(3) for id in CLASSICAL}
    for model in models.values():
        fit(model, lambda: [(np.arange(288), x)], genre, [f"t{i}" for i in track], [None] * 288)
    return models


@pytest.mark.parametrize("id", CLASSICAL)
def test_probabilities_survive_the_file(id: str, fitted: dict, tmp_path: Path) -> None:
    save(fitted[id], tmp_path / "model.skops")
    assert [path.name for path in tmp_path.iterdir()] == ["model.skops"]
    x = np.random.default_rng(1).standard_normal((50, 60)).astype(np.float32)
    found = load(tmp_path / "model.skops").predict_proba(x)
    np.testing.assert_array_equal(found, fitted[id].predict_proba(x))
    assert found.shape == (50, 3)


class Trap:
    """What a pickle would run when it is opened."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("sprung"),)


def test_a_pickle_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "model.skops"
    file.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(RunError, match=r"model\.skops: damaged"):
        load(file)
    assert not Path("sprung").exists()


def test_a_foreign_type_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "model.skops"
    skops.io.dump(FunctionTransformer(func=Path.touch), file)
    with pytest.raises(RunError, match=r"not loaded.*pathlib"):
        load(file)


def test_a_tampered_file_is_refused(fitted: dict, tmp_path: Path) -> None:
    """The classifier's type is changed into one that skops would have to import."""
    file, tampered = tmp_path / "model.skops", tmp_path / "tampered.skops"
    save(fitted["kth2020/svm"], file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tampered, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "schema.json":
                schema = json.loads(data)
                schema["__class__"], schema["__module__"] = "Popen", "subprocess"
                data = json.dumps(schema).encode()
            new.writestr(name, data)
    with pytest.raises(RunError, match=r"not loaded.*subprocess\.Popen"):
        load(tampered)


@pytest.mark.parametrize("content", [{"no": "model"}, StandardScaler(), StandardScaler().fit([[0.0], [1.0]])])
def test_what_is_no_fitted_classifier_is_refused(content: object, tmp_path: Path) -> None:
    skops.io.dump(content, tmp_path / "model.skops")
    with pytest.raises(RunError, match=r"no fitted model|no probabilities"):
        load(tmp_path / "model.skops")


def test_missing_and_cut_files_are_data_errors(fitted: dict, tmp_path: Path) -> None:
    file = tmp_path / "model.skops"
    with pytest.raises(RunError, match="missing"):
        load(file)
    save(fitted["kth2020/knn"], file)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(RunError, match="damaged"):
        load(file)


class Homemade(BaseEstimator):
    """A classifier from outside scikit-learn."""


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Homemade"):
        save(Homemade(), tmp_path / "model.skops")
    assert not list(tmp_path.iterdir())
