"""Labels that out-of-fold probabilities contradict: swapped ones are named, and the definition is the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Outcome, mgc
from stores import GENRES, make_store

from mgc.models.audit import confident
from mgc.pipeline.features import Mel

SWAPPED = [f"training-{number:03d}" for number in (3, 10, 17, 24, 31, 38, 45)]
SWAPPED += ["validation-004", "test-002", "test-009"]


def next_genre(row: dict[str, Any]) -> dict[str, Any]:
    swapped = GENRES[(GENRES.index(row["genre"]) + 1) % 3]
    return {"genre": swapped} if row["track_id"] in SWAPPED else {}


def trained(folder: Path, relabel: Any = lambda row: {}, *options: object) -> tuple[Path, list[Path]]:
    """A store of 90 tracks, whose genres are easy to tell apart, and the runs of its training."""
    tracks = {"training": 60, "validation": 15, "test": 15}
    store = make_store(folder / "mel", Mel(), tracks=tracks, seconds=(2.1,), relabel=relabel)
    options = ("--model", "moments/svm", "--store", store.path, "--data-dir", folder / "data", *options)
    assert mgc("train", *options).code == 0
    return store.path, sorted((folder / "data" / "runs").iterdir())


def audit(store: Path, runs: list[Path], *options: object) -> Outcome:
    return mgc("audit", store, *(word for run in runs for word in ("--runs", run)), *options)


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    return trained(tmp_path_factory.mktemp("swapped"), next_genre, "--folds", 3)


def labels_in(outcome: Outcome) -> list[dict[str, Any]]:
    return [finding for finding in outcome.json["findings"] if finding["kind"] == "label"]


@pytest.mark.slow
def test_every_swapped_label_is_named_and_none_of_a_clean_store(
    swapped: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    outcome = audit(*swapped, "--json")
    assert outcome.code == 0, outcome.err  # a suspicion does not fail
    found = labels_in(outcome)
    assert sorted(finding["tracks"][0] for finding in found) == sorted(SWAPPED)
    for finding in found:
        assert GENRES.index(finding["label"]) == (GENRES.index(finding["suggestion"]) + 1) % 3
    margins = [finding["probability"] - finding["label_probability"] for finding in found]
    assert margins == sorted(margins, reverse=True)
    summary = outcome.json["labels"]
    assert (summary["covered"], summary["tracks"], summary["runs"]) == (90, 90, 3)
    assert summary["accuracy"] == pytest.approx(80 / 90)
    assert summary["noise"] == pytest.approx(10 / 90, abs=0.02)
    assert labels_in(audit(*trained(tmp_path, lambda row: {}, "--folds", 3), "--json")) == []


def test_predictions_of_an_evaluation_are_taken_and_nothing_is_written(swapped: tuple[Path, list[Path]]) -> None:
    store, runs = swapped
    before = labels_in(audit(store, runs, "--json"))
    for split in ("validation", "test"):
        assert mgc("evaluate", runs[0], "--split", split).code == 0
    assert labels_in(audit(store, runs, "--json")) == before
    assert not (runs[1] / "predictions.parquet").exists()
    text = audit(store, runs)
    assert "info: label (10)" in text.out
    assert max(len(line) for line in text.out.splitlines()[1:]) <= 80


def test_coverage_is_said(swapped: tuple[Path, list[Path]]) -> None:
    """One run of three folds judges its fold and the test split only."""
    store, runs = swapped
    outcome = audit(store, runs[:1])
    covered = audit(store, runs[:1], "--json").json["labels"]["covered"]
    assert 15 < covered < 90
    flat = " ".join(outcome.out.split())
    assert f"Labels: {covered} of 90 tracks have out-of-fold probabilities, from 1 run, which agree" in flat
    assert "`mgc train --folds 5` and --runs for each of its runs cover all" in flat


def test_runs_that_cannot_judge_are_refused(swapped: tuple[Path, list[Path]], tmp_path: Path) -> None:
    store, (run, *_) = swapped
    other = make_store(tmp_path / "other", Mel(), relabel=lambda row: {"content_hash": f"other {row['track_id']}"})
    problem = f"error: no run holds out a track of the store: {run.name}; name runs that were trained on it"
    assert audit(other.path, [run]).err.startswith(problem)
    foreign = make_store(tmp_path / "foreign", Mel(), genres=("Folk", "Rock"))
    mgc("train", "--model", "moments/svm", "--store", foreign.path, "--data-dir", tmp_path / "data")
    outcome = audit(store, [run, *(tmp_path / "data" / "runs").iterdir()])
    assert outcome.code == 1
    assert "know different genres; name runs of one dataset" in outcome.err


def test_the_confident_joint_of_a_worked_example() -> None:
    """Thresholds (0.9 + 0.8 + 0.3) / 3 and (0.8 + 0.4) / 2; the last item reaches neither; no item is of class 2."""
    probabilities = np.array([[0.9, 0.1, 0], [0.8, 0.1, 0.1], [0.3, 0.7, 0], [0.2, 0.8, 0], [0.6, 0.4, 0]])
    labels = np.array([0, 0, 0, 1, 1])
    joint = confident.confident_joint(probabilities, labels)
    assert joint.thresholds[:2] == pytest.approx([2 / 3, 0.6])
    assert np.isnan(joint.thresholds[2])
    assert joint.counts.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert (joint.suspects.tolist(), joint.labels.tolist(), joint.margins.tolist()) == ([2], [1], pytest.approx([0.4]))
    # The calibrated joint is [[0.4, 0.2], [0, 0.4]].
    assert confident.noise(joint, labels) == pytest.approx(0.2)


def test_a_label_that_is_the_most_probable_is_no_suspect() -> None:
    """Thresholds 0.725 and 0.3: item 1 is confidently of class 1, though 0 is more probable; item 3 is a suspect."""
    probabilities = np.array([[0.9, 0.1], [0.55, 0.45], [0.6, 0.4], [0.8, 0.2]])
    labels = np.array([0, 0, 1, 1])
    joint = confident.confident_joint(probabilities, labels)
    assert joint.counts.tolist() == [[1, 1], [1, 1]]
    assert joint.suspects.tolist() == [3]
    assert confident.noise(joint, labels) == pytest.approx(0.5)
