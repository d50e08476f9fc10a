"""Baselines on moments of slices, from a store to probabilities, against scikit-learn on the same vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import fft, stats
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from stores import frames_of, make_store

from mgc.models.registry import systems
from mgc.models.training.predict import predict
from mgc.models.training.train import Options, train
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    torch.set_num_threads(1)
    return make_store(tmp_path_factory.mktemp("stores") / "mel", slicing=Slicing(seconds=3.0, overlap=0.0))


def reference_moments(store: Store, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Moments of every slice of a split, computed with NumPy and SciPy, and the slices' genres."""
    vectors, genres = [], []
    for row in store.slices.to_pylist():
        if row["split"] == split:
            track = next(track for track in store.tracks.to_pylist() if track["track_id"] == row["track_id"])
            first = row["first_frame"] - track["first_frame"]
            db = frames_of(store, row["track_id"])[first : first + row["n_frames"]].astype(np.float64)
            x = fft.dct(np.maximum(db, db.max() - 80), axis=1, norm="ortho")
            functions = (stats.kurtosis, np.max, np.mean, np.median, np.min, stats.skew, np.std)
            vectors.append(np.concatenate([function(x, axis=0) for function in functions]))
            genres.append(track["genre"])
    return np.array(vectors), np.array(genres)


@pytest.mark.parametrize(
    ("id", "classifier"),
    [("moments/knn", KNeighborsClassifier(15)), ("moments/logreg", LogisticRegression(max_iter=1000))],
)
def test_a_baseline_is_scikit_learns_on_the_same_vectors(
    id: str, classifier: object, store: Store, tmp_path: Path
) -> None:
    run = train([store], Options(id), tmp_path / "runs", echo=quiet)
    table = predict(run)
    x, genres = reference_moments(store, "training")
    x_test, true_genres = reference_moments(store, "test")
    reference = make_pipeline(StandardScaler(), classifier).fit(x, [run.classes.index(genre) for genre in genres])
    assert table["genre"].to_pylist() == true_genres.tolist()
    probabilities = np.stack(table["probabilities"].to_numpy())
    np.testing.assert_allclose(probabilities, reference.predict_proba(x_test), atol=2e-3)
    assert (np.array(run.classes)[probabilities.argmax(axis=1)] == true_genres).mean() > 0.6


@pytest.mark.parametrize("id", ["moments/knn-pca", "moments/svm-pca"])
def test_the_classifier_reads_30_float32_components(id: str) -> None:
    rng = np.random.default_rng(0)
    model = systems.get(id).build(3)
    x = rng.standard_normal((200, 140)).astype(np.float32)
    for step in ("standardise", "pca"):
        model[step].partial_fit(x if step == "standardise" else model[:1].transform(x))
    assert model[:-1].transform(x).shape == (200, 30)
    assert model[:-1].transform(x).dtype == np.float32
