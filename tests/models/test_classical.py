"""Classical systems: fitting block by block, folds and calibration by artist, and skops files."""

import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from mgc.models.classical import (
    BLOCK,
    Vectors,
    calibrate,
    fit,
    grouped_folds,
    load,
    predict_proba,
    save,
    set_seed,
    uses_seed,
)
from mgc.models.registry import systems
from mgc.pipeline.errors import ModelError, RunError

CLASSICAL = [system.id for system in systems.systems() if system.kind == "classical"]

#: Vectors, class indices, track ids and artist ids of slices.
Data = tuple[np.ndarray, np.ndarray, list[str], list[str | None]]


@pytest.fixture
def data() -> Data:
    """Three genres of 4 artists with 2 tracks of 4 slices each: the vectors depend on genre, artist and track."""
    rng = np.random.default_rng(0)
    genre = np.repeat(np.arange(3), 32)
    artist, track = np.arange(96) // 8, np.arange(96) // 4
    x = sum(rng.standard_normal((n, 200))[i] for n, i in ((3, genre), (12, artist), (24, track)))
    x = (x + rng.standard_normal((96, 200))).astype(np.float32)
    return x, genre, [f"t{i}" for i in track], [f"a{i}" for i in artist]


def in_one_batch(x: np.ndarray) -> Vectors:
    return lambda: [(np.arange(len(x)), x)]


@pytest.mark.parametrize("id", CLASSICAL)
def test_a_fit_is_accurate_and_reproducible(id: str, data: Data) -> None:
    # Repeat the 96 slices eight times: xu2022/knn needs 200 neighbours.
    x, y, tracks, artists = np.tile(data[0], (8, 1)), np.tile(data[1], 8), data[2] * 8, data[3] * 8

    def probabilities_with(seed: int) -> np.ndarray:
        model = systems.get(id).build(3)
        set_seed(model, seed)
        fit(model, in_one_batch(x), y, tracks, artists)
        return model.predict_proba(x)

    probabilities = probabilities_with(0)
    assert probabilities.shape == (768, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert (probabilities.argmax(axis=1) == y).mean() > 0.9
    # `mgc train --seeds` trains those that do not depend on the seed once.
    depends = systems.get(id).uses_seed
    assert depends == id.endswith("/mlp")
    np.testing.assert_array_equal(probabilities_with(0 if depends else 1), probabilities)
    if depends:
        assert not np.array_equal(probabilities_with(1), probabilities)


def test_an_estimator_that_draws_random_numbers_depends_on_the_seed(data: Data) -> None:
    """Also where its author left the seed open, or within a calibrated classifier, or a step before the last."""
    for step in (RandomForestClassifier(5), calibrate(RandomForestClassifier(5)), SVC(probability=True)):
        assert uses_seed(Pipeline([("scale", StandardScaler()), ("classify", step)]))
    assert uses_seed(Pipeline([("pca", PCA(5)), ("classify", SVC())]))
    assert uses_seed(Pipeline([("classify", LogisticRegression(solver="saga"))]))
    x, y, *names = data
    forests = [Pipeline([("scale", StandardScaler()), ("classify", RandomForestClassifier(5))]) for _ in range(3)]
    for forest, seed in zip(forests, (1, 1, 2), strict=True):
        set_seed(forest, seed)
        fit(forest, in_one_batch(x), y, *names)
    first, same, other = (forest.predict_proba(x) for forest in forests)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_components_fitted_block_by_block_are_those_of_all_slices() -> None:
    """Equal to scikit-learn's PCA of all slices at once, although batches come in the order of the shards."""
    rng = np.random.default_rng(0)
    n, width = 5 * BLOCK + 7, 60
    x = rng.standard_normal((n, 15)) * 1.3 ** np.arange(15, 0, -1) @ rng.standard_normal((15, width))
    x = (x + 0.1 * rng.standard_normal((n, width))).astype(np.float32)
    y = np.arange(n) % 3
    order = rng.permutation(n)
    sizes: list[int] = []

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows in np.array_split(order, 90):
            sizes.append(len(rows))
            yield rows, x[rows]

    model = systems.get("kth2020/knn").build(3)
    fit(model, batches, y, [str(i) for i in range(n)], [None] * n)
    assert max(sizes) < 30
    assert len(sizes) == 3 * 90  # one pass each for the scaler, the components, and the transformed slices
    scaled = StandardScaler().fit_transform(x)
    expected = PCA(15).fit(scaled)
    overlap = np.linalg.svd(model[1].components_ @ expected.components_.T, compute_uv=False)
    np.testing.assert_allclose(overlap, 1, atol=1e-3)
    np.testing.assert_allclose(model[0].transform(x), scaled, atol=1e-4)
    np.testing.assert_allclose(model[1].explained_variance_, expected.explained_variance_, rtol=1e-3)
    np.testing.assert_allclose(predict_proba(model, batches, n), model.predict_proba(x), atol=1e-6)


def test_calibration_does_not_change_decisions(data: Data) -> None:
    x, y, tracks, artists = data
    model = systems.get("kth2020/svm").build(3)
    fit(model, in_one_batch(x), y, tracks, artists)
    support = model[-1].calibrated_classifiers_[0].estimator
    query = np.random.default_rng(1).standard_normal((500, 200)).astype(np.float32)
    decisions = support.predict(model[:-1].transform(query))
    np.testing.assert_array_equal(model.predict_proba(query).argmax(axis=1), decisions)


def test_model_does_not_keep_the_rows_of_its_folds(data: Data) -> None:
    model = systems.get("kth2020/svm").build(3)
    fit(model, in_one_batch(data[0]), *data[1:])
    assert model[-1].cv is None


def straddling(folds: list, groups: list) -> set:
    """Groups that are on both sides of a fold."""
    groups = np.asarray(groups)
    return {group for training, held_out in folds for group in set(groups[training]) & set(groups[held_out])}


def test_no_artist_straddles_a_fold(data: Data) -> None:
    _, y, tracks, artists = data
    folds = grouped_folds(y, tracks, artists)
    assert len(folds) == 4  # the number of artists of a genre
    assert not straddling(folds, artists)
    assert sorted(np.concatenate([held_out for _, held_out in folds])) == list(range(96))


def test_unknown_artists_count_as_one_per_track(data: Data) -> None:
    _, y, tracks, _ = data
    folds = grouped_folds(y, tracks, [None] * 96)
    assert len(folds) == 5
    assert not straddling(folds, tracks)


def test_folds_of_a_genre_with_one_artist_keep_tracks_together(data: Data) -> None:
    _, y, tracks, artists = data
    artists = ["alone" if genre == 0 else artist for genre, artist in zip(y, artists, strict=True)]
    folds = grouped_folds(y, tracks, artists)
    assert len(folds) == 4  # the number of artists of the other genres, which are kept together
    assert not straddling(folds, tracks)
    assert straddling(folds, artists) == {"alone"}
    assert all(len(np.unique(y[training])) == 3 for training, _ in folds)


def test_a_genre_of_one_track_cannot_be_calibrated(data: Data) -> None:
    x, y, tracks, artists = data
    tracks = ["only" if genre == 0 else track for genre, track in zip(y, tracks, strict=True)]
    artists = ["alone" if genre == 0 else artist for genre, artist in zip(y, artists, strict=True)]
    with pytest.raises(ModelError, match="single training track"):
        fit(systems.get("kth2020/svm").build(3), in_one_batch(x), y, tracks, artists)


def test_too_few_slices_are_refused(data: Data) -> None:
    x, y, tracks, artists = data
    with pytest.raises(ModelError, match="10 slices"):
        fit(systems.get("kth2020/knn").build(3), in_one_batch(x[:10]), y[:10], tracks[:10], artists[:10])


def test_more_neighbours_than_slices_are_refused(data: Data) -> None:
    with pytest.raises(ModelError, match="needs 200 neighbours, the training split has only 96 slices"):
        fit(systems.get("xu2022/knn").build(3), in_one_batch(data[0]), *data[1:])


@pytest.mark.parametrize("n_classes", [2, 8])
def test_number_of_parameters_of_the_multilayer_perceptron(n_classes: int) -> None:
    rng, y = np.random.default_rng(0), np.arange(32) % n_classes
    model = systems.get("xu2022/mlp").build(n_classes)
    fit(
        model,
        in_one_batch(rng.standard_normal((32, 518)).astype(np.float32)),
        y,
        [f"t{i}" for i in range(32)],
        [None] * 32,
    )
    n_params = sum(array.size for array in [*model[-1].coefs_, *model[-1].intercepts_])
    assert systems.get("xu2022/mlp").params(n_classes) == n_params
    assert n_params == {2: 52_001, 8: 52_708}[n_classes]


# -- skops files -----------------------------------------------------------------------------------------------------


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
    probabilities = load(tmp_path / "model.skops").predict_proba(x)
    np.testing.assert_array_equal(probabilities, fitted[id].predict_proba(x))
    assert probabilities.shape == (50, 3)


class Trap:
    """An object whose pickle runs code when it is loaded."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("sprung"),)


def test_a_pickle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    """Its classifier has another type, which skops would have to import."""
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
def test_a_file_without_a_fitted_classifier_is_refused(content: object, tmp_path: Path) -> None:
    skops.io.dump(content, tmp_path / "model.skops")
    with pytest.raises(RunError, match=r"no fitted model|no probabilities"):
        load(tmp_path / "model.skops")


def test_missing_and_truncated_files_are_refused(fitted: dict, tmp_path: Path) -> None:
    file = tmp_path / "model.skops"
    with pytest.raises(RunError, match="missing"):
        load(file)
    save(fitted["kth2020/knn"], file)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(RunError, match="damaged"):
        load(file)


class Homemade(BaseEstimator):
    """A classifier from outside scikit-learn."""


def test_a_classifier_that_load_would_refuse_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Homemade"):
        save(Homemade(), tmp_path / "model.skops")
    assert not list(tmp_path.iterdir())
