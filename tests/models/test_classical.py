"""Fitting classical systems, and calibration that keeps artists and tracks whole."""

from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from mgc.models.classical import BLOCK, Vectors, fit, grouped_folds, predict_proba
from mgc.models.registry import systems
from mgc.pipeline.errors import ModelError

CLASSICAL = [system.id for system in systems.systems() if system.kind == "classical"]

Data = tuple[np.ndarray, np.ndarray, list[str], list[str | None]]


@pytest.fixture
def data() -> Data:
    """Three genres of 4 artists with 2 tracks of 4 slices each: genre, artist and track are all audible."""
    rng = np.random.default_rng(0)
    genre = np.repeat(np.arange(3), 32)
    artist, track = np.arange(96) // 8, np.arange(96) // 4
    x = sum(rng.standard_normal((n, 200))[i] for n, i in ((3, genre), (12, artist), (24, track)))
    x = (x + rng.standard_normal((96, 200))).astype(np.float32)
    return x, genre, [f"t{i}" for i in track], [f"a{i}" for i in artist]


def whole(x: np.ndarray) -> Vectors:
    return lambda: [(np.arange(len(x)), x)]


@pytest.mark.parametrize("id", CLASSICAL)
def test_probabilities(id: str, data: Data) -> None:
    # Eight times, so that the 200 neighbours that xu2022/knn asks are not all there are.
    x, y, tracks, artists = np.tile(data[0], (8, 1)), np.tile(data[1], 8), data[2] * 8, data[3] * 8
    model = systems.get(id).build(3)
    fit(model, whole(x), y, tracks, artists)
    p = model.predict_proba(x)
    assert p.shape == (768, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    assert (p.argmax(axis=1) == y).mean() > 0.9
    again = systems.get(id).build(3)
    fit(again, whole(x), y, tracks, artists)
    np.testing.assert_array_equal(again.predict_proba(x), p)


def test_components_fitted_block_by_block_are_those_of_all_slices() -> None:
    """As scikit-learn finds them in one piece; and batches come in the order of the shards, not of the table."""
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
    assert len(sizes) == 3 * 90  # for the deviations, the components, and what is kept of each slice
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
    fit(model, whole(x), y, tracks, artists)
    support = model[-1].calibrated_classifiers_[0].estimator
    query = np.random.default_rng(1).standard_normal((500, 200)).astype(np.float32)
    decided = support.predict(model[:-1].transform(query))
    np.testing.assert_array_equal(model.predict_proba(query).argmax(axis=1), decided)


def test_model_does_not_keep_the_rows_of_its_folds(data: Data) -> None:
    model = systems.get("kth2020/svm").build(3)
    fit(model, whole(data[0]), *data[1:])
    assert model[-1].cv is None


def straddling(folds: list, groups: list) -> set:
    groups = np.asarray(groups)
    return {group for training, held_out in folds for group in set(groups[training]) & set(groups[held_out])}


def test_no_artist_straddles_a_fold(data: Data) -> None:
    _, y, tracks, artists = data
    folds = grouped_folds(y, tracks, artists)
    assert len(folds) == 4  # as many as a genre has artists
    assert not straddling(folds, artists)
    assert sorted(np.concatenate([held_out for _, held_out in folds])) == list(range(96))


def test_unknown_artists_are_one_a_track(data: Data) -> None:
    _, y, tracks, _ = data
    folds = grouped_folds(y, tracks, [None] * 96)
    assert len(folds) == 5
    assert not straddling(folds, tracks)


def test_tracks_are_kept_whole_where_a_genre_has_one_artist(data: Data) -> None:
    _, y, tracks, artists = data
    artists = ["alone" if genre == 0 else artist for genre, artist in zip(y, artists, strict=True)]
    folds = grouped_folds(y, tracks, artists)
    assert len(folds) == 4  # as many as the other genres have artists, which stay whole
    assert not straddling(folds, tracks)
    assert straddling(folds, artists) == {"alone"}
    assert all(len(np.unique(y[training])) == 3 for training, _ in folds)


def test_a_genre_of_one_track_cannot_be_calibrated(data: Data) -> None:
    x, y, tracks, artists = data
    tracks = ["only" if genre == 0 else track for genre, track in zip(y, tracks, strict=True)]
    artists = ["alone" if genre == 0 else artist for genre, artist in zip(y, artists, strict=True)]
    with pytest.raises(ModelError, match="single training track"):
        fit(systems.get("kth2020/svm").build(3), whole(x), y, tracks, artists)


def test_too_few_slices_are_a_data_error(data: Data) -> None:
    x, y, tracks, artists = data
    with pytest.raises(ModelError, match="10 slices"):
        fit(systems.get("kth2020/knn").build(3), whole(x[:10]), y[:10], tracks[:10], artists[:10])


def test_more_neighbours_than_slices_are_refused(data: Data) -> None:
    with pytest.raises(ModelError, match="asks 200 neighbours, and 96 slices are all there are"):
        fit(systems.get("xu2022/knn").build(3), whole(data[0]), *data[1:])


@pytest.mark.parametrize("n_classes", [2, 8])
def test_parameters_of_the_multilayer_perceptron(n_classes: int) -> None:
    rng, y = np.random.default_rng(0), np.arange(32) % n_classes
    model = systems.get("xu2022/mlp").build(n_classes)
    fit(model, whole(rng.standard_normal((32, 518)).astype(np.float32)), y, [f"t{i}" for i in range(32)], [None] * 32)
    fitted = sum(part.size for part in [*model[-1].coefs_, *model[-1].intercepts_])
    assert systems.get("xu2022/mlp").params(n_classes) == fitted
    assert fitted == {2: 52_001, 8: 52_708}[n_classes]
