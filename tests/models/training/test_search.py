"""Grid search: the same choice as scikit-learn's `GridSearchCV`, recorded in the run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from commands import mgc
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline

from mgc.models import classical
from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.training.options import Options
from mgc.models.training.preparation import prepare
from mgc.models.training.search import LabelledVectors, base_classifier, search
from mgc.pipeline.errors import ModelError, SpecError
from mgc.pipeline.store.store import Store

Data = tuple[np.ndarray, np.ndarray, list[str], list[str]]  # vectors, labels, tracks, artists


@pytest.fixture(scope="module")
def data() -> Data:
    """Three genres of 4 artists with 2 tracks of 4 slices each; one artist is so loud that it changes the scaling."""
    rng = np.random.default_rng(0)
    genre, artist, track = np.repeat(np.arange(3), 32), np.arange(96) // 8, np.arange(96) // 4
    x = sum(rng.standard_normal((n, 60))[i] for n, i in ((3, genre), (12, artist), (24, track)))
    x = (x + 2 * rng.standard_normal((96, 60))) * np.where(artist == 5, 30, 1)[:, None]
    return x.astype(np.float32), genre, [f"t{i}" for i in track], [f"a{i}" for i in artist]


def quiet(line: str) -> None:
    pass


def labelled(x: np.ndarray, y: np.ndarray, tracks: list[str], artists: list[str]) -> LabelledVectors:
    return LabelledVectors(lambda: [(np.arange(len(x)), x)], y, tracks, artists)


@pytest.mark.parametrize(
    ("id", "grid"),
    [
        ("moments/knn", {"n_neighbors": (3, 9, 30)}),
        ("moments/svm-pca", {"C": (0.1, 10.0), "gamma": ("scale", 0.001, 0.1)}),
        ("moments/logreg", {"C": (0.001, 10.0)}),
    ],
)
def test_the_choice_is_that_of_grid_search_cv(id: str, grid: dict, data: Data) -> None:
    x, y, tracks, artists = data
    model = systems.get(id).build(3)
    rows = np.random.default_rng(1).permutation(96)  # as batches come in the order of the shards
    batches = [(batch, x[batch]) for batch in np.array_split(rows, 7)]
    result = search(model, grid, LabelledVectors(lambda: batches, y, tracks, artists), quiet)
    uncalibrated = Pipeline([*systems.get(id).build(3).steps[:-1], ("classify", clone(base_classifier(model)))])
    folds = StratifiedGroupKFold(4).split(x, y, artists)  # as many as a genre has artists
    parameters = {f"classify__{name}": values for name, values in grid.items()}
    reference = GridSearchCV(uncalibrated, parameters, cv=folds).fit(x, y)
    expected = np.stack([reference.cv_results_[f"split{k}_test_score"] for k in range(4)], axis=1)
    np.testing.assert_allclose([each.accuracies for each in result.candidates], expected, atol=1e-12)
    assert len(np.unique(expected.mean(axis=1))) > 1
    assert {f"classify__{name}": value for name, value in result.best.values.items()} == reference.best_params_
    assert result.grouped_by == "artist"
    np.testing.assert_allclose([each.std for each in result.candidates], expected.std(axis=1, ddof=1))


def test_the_first_of_equal_candidates_is_chosen(data: Data) -> None:
    x, y, tracks, artists = data
    model = systems.get("moments/knn").build(3)
    result = search(model, {"leaf_size": (7, 3)}, labelled(x, y, tracks, artists), quiet)
    assert result.candidates[0].accuracies == result.candidates[1].accuracies
    assert result.best.values == {"leaf_size": 7}


def test_more_neighbours_than_a_fold_has_are_left_out(data: Data) -> None:
    x, y, tracks, artists = data
    lines: list[str] = []
    model = systems.get("moments/knn").build(3)
    result = search(model, {"n_neighbors": (72, 73)}, labelled(x, y, tracks, artists), lines.append)
    assert [dict(each.values) for each in result.candidates] == [{"n_neighbors": 72}]
    assert "1 candidates (1 left out: a fold has 72 slices)" in lines[0]
    with pytest.raises(ModelError, match="more neighbours than the 72 slices of a fold"):
        search(model, {"n_neighbors": (73,)}, labelled(x, y, tracks, artists), quiet)


def test_tracks_are_held_out_whole_where_a_genre_has_one_artist(data: Data) -> None:
    x, y, tracks, artists = data
    artists = ["alone" if genre == 0 else artist for genre, artist in zip(y, artists, strict=True)]
    model = systems.get("moments/knn").build(3)
    result = search(model, {"n_neighbors": (3,)}, labelled(x, y, tracks, artists), quiet)
    assert result.grouped_by == "artist or track"


def test_the_command_prints_and_records_the_result(store: Store, tmp_path: Path) -> None:
    words = ["train", "--model", "moments/svm", "--search", "--store", store.path, "--data-dir", tmp_path]
    outcome = mgc(*words)
    assert outcome.code == 0, outcome.err
    (path,) = (tmp_path / "runs").iterdir()
    run = Run.open(path)
    summary = run.summary["search"]
    assert summary["grouped_by"] == "artist"
    assert [tuple(row["values"].values()) for row in summary["candidates"]] == [
        (c, gamma) for c in (0.1, 1.0, 10.0) for gamma in ("scale", 0.001, 0.03)
    ]
    assert [len(row["accuracies"]) for row in summary["candidates"]] == [3] * 9  # one per artist of a genre
    best = max(summary["candidates"], key=lambda row: row["mean"])
    assert summary["chosen"] == best["values"]
    support = classical.load(path / "model.skops")[-1].calibrated_classifiers_[0].estimator
    assert {name: getattr(support, name) for name in ("C", "gamma")} == best["values"]
    lines = re.findall(r"^  C .*: accuracy by slice (\S+)% ± ", outcome.out, re.MULTILINE)
    means = [100 * row["mean"] for row in summary["candidates"]]
    assert [float(line) for line in lines] == pytest.approx(means, abs=0.051)
    assert "hyper-parameters by cross-validation" in run.config["differences"]
    assert f"search    C {best['values']['C']}, gamma" in mgc("info", path, "--data-dir", tmp_path).out


def test_networks_have_no_grid(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train", "--search", "--store", store.path, "--data-dir", tmp_path, "--model"]
    problem = "--search: vit2021/cnn is a network; leave it out: it is for kNN, SVM, logistic regression and "
    assert mgc(*words, "vit2021/cnn").error.startswith(problem)
    monkeypatch.setitem(vars(systems.get("moments/knn")), "grid", {})
    with pytest.raises(SpecError, match="--search: moments/knn has no grid of hyper-parameters"):
        prepare([store], Options("moments/knn", search=True), tmp_path / "runs", quiet)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("id", [system.id for system in systems.systems() if system.kind == "classical"])
def test_every_grid_contains_the_default_of_its_system(id: str) -> None:
    system = systems.get(id)
    parameters = base_classifier(system.build(3)).get_params()
    assert system.grid
    assert all(parameters[name] in values for name, values in system.grid.items())
