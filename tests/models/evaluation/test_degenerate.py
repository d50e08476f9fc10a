"""Datasets at the edge, from training to report: each gives a result or one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Outcome, mgc
from stores import make_store
from tiny import TINY

from mgc.models.registry import systems
from mgc.pipeline.features import Mel, Stats
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

pytestmark = pytest.mark.slow

#: HTML, a right-to-left script, and a name that begins like a formula.
NAMES = ('<b>Rock</b> & "Pop"', "موسيقى", "=Folk")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setitem(systems._systems, TINY.id, TINY)


def store_of(folder: Path, genres: Sequence[str], **options: Any) -> Store:
    """A store with two training tracks of each genre, and one for validation and one for test."""
    n = len(genres)
    tracks = {"training": 2 * n, "validation": n, "test": n}
    return make_store(folder, tracks=tracks, genres=genres, tracks_per_shard=64, **options)


def train(store: Store, folder: Path, *options: object, model: str = TINY.id) -> Outcome:
    return mgc("train", "--model", model, "--store", store.path, "--data-dir", folder, *options)


def evaluate(folder: Path, *options: object) -> Outcome:
    return mgc("evaluate", next((folder / "runs").iterdir()), *options)


@pytest.mark.parametrize("n", [3, 161])
def test_names_and_numbers_of_genres(n: int, tmp_path: Path) -> None:
    genres = [*NAMES, *(f"genre {k}" for k in range(n - 3))]
    assert train(store_of(tmp_path / "store", genres, seconds=(3.1,)), tmp_path, "--epochs", 1).code == 0
    outcome = evaluate(tmp_path, "--by-genre")
    assert outcome.code == 0, outcome.err
    run = next((tmp_path / "runs").iterdir())
    assert max(len(line) for line in outcome.out.splitlines() if str(tmp_path) not in line) <= 80
    assert NAMES[1] in outcome.out
    measured = json.loads((run / "metrics.json").read_text())
    assert list(measured["by_track"]["by_genre"]) == genres
    assert measured["by_track"]["top_k"]["5"] is (None if n == 3 else measured["by_track"]["top_k"]["5"])
    assert len((run / "track-predictions.csv").read_text().splitlines()) == 1 + n


def test_one_genre(tmp_path: Path) -> None:
    """It cannot be trained on, but a run can be tested on it."""
    alone = store_of(tmp_path / "alone", ["Rock"], relabel=lambda row: {"content_hash": f"new {row['content_hash']}"})
    outcome = train(alone, tmp_path)
    assert (outcome.code, outcome.error.split("; ")[1]) == (1, "a classifier needs tracks of two genres or more")
    assert train(store_of(tmp_path / "two", ["Rock", "Folk"]), tmp_path, "--epochs", 1).code == 0
    measured = evaluate(tmp_path, "--store", alone.path, "--json").json["by_track"]
    assert measured["n"] == 4
    assert (measured["roc_auc"], measured["average_precision"], measured["mcc"]) == (None, None, 0)
    assert "ROC-AUC / AP            – / – %" in evaluate(tmp_path, "--store", alone.path).out


def test_one_artist(tmp_path: Path) -> None:
    """The splits keep an artist's tracks together, so that nothing is left to validate; but slices can be split."""
    store = make_store(tmp_path / "store", tracks={"training": 6}, relabel=lambda row: {"artist_id": "one"})
    outcome = train(store, tmp_path)
    assert outcome.code == 1
    assert "no validation tracks to choose the best epoch by" in outcome.error
    assert train(store, tmp_path, "--split-unit", "slice", "--epochs", 1).code == 0
    text = " ".join(evaluate(tmp_path).out.split())
    assert "by 1 artist" in text
    assert "[" in text


def test_a_store_that_is_gone(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", ["Rock", "Folk"])
    assert train(store, tmp_path, "--epochs", 1).code == 0
    store.path.rename(tmp_path / "elsewhere")
    outcome = evaluate(tmp_path)
    assert outcome.code == 1
    assert "no feature store, but" in outcome.error
    moved = evaluate(tmp_path, "--store", tmp_path / "elsewhere", "--split", "test", "--json")
    assert moved.json["n_tracks"] == 2


def test_a_store_of_statistics_only(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", ["Rock", "Folk"], spec=Stats(), slicing=Slicing(seconds=None, whole=True))
    assert train(store, tmp_path, model="xu2022/logreg").code == 0
    assert evaluate(tmp_path).code == 0
    measured = evaluate(tmp_path, "--store", store.path, "--json").json
    assert measured["n_tracks"] == 2
    assert measured["other"]["recordings_not_compared"].startswith("stats frames have too few")
    outcome = train(store, tmp_path, "--split-unit", "slice", model="xu2022/logreg")
    assert (outcome.code, "each track has one slice only" in outcome.error) == (1, True)
    mel = store_of(tmp_path / "mel", ["Rock", "Folk"], spec=Mel())
    assert "mel for stats" in evaluate(tmp_path, "--store", mel.path).error
