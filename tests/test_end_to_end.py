"""The commands of the README, as typed, on real music."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import done_in

from mgc.pipeline.demo.tracks import BROKEN_TRACKS

DEFAULTS = {"stft": "mgc/stft", "mel": "mgc/cnn", "mfcc": "mgc/mfcc"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def data(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that holds nothing but the corpus, as links."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("fma_debian", "fma_metadata"):
        (folder / name).symlink_to(corpus / name)
    return folder


@pytest.mark.corpus
@pytest.mark.parametrize("feature", DEFAULTS)
def test_the_three_commands_work_as_typed_one_after_the_other(feature: str, data: Path):
    done_in(data, "extract", "--feature", feature, "--slice", "4", "--overlap", "0.5")
    said = done_in(data, "train", "--epochs", "1", "--limit-tracks", "4").out
    assert DEFAULTS[feature] in said
    text = done_in(data, "evaluate", "--by-genre").out
    assert "12 tracks by 10 artists" in text
    measured = done_in(data, "evaluate", "--json").json
    assert measured["runs"][0]["model"] == DEFAULTS[feature]
    assert measured["n_tracks"] == 12
    low, high = (measured["by_track"]["accuracy_interval"][end] for end in ("low", "high"))
    assert 0 <= low <= measured["by_track"]["accuracy"] <= high <= 1


@pytest.mark.corpus
@pytest.mark.parametrize("model", ["kth2020/svm", "padova2023/cnn2d-mel"])
def test_other_models_train_on_mel(model: str, data: Path):
    done_in(data, "extract", "--feature", "mel", "--slice", "6")
    done_in(data, "train", "--model", model, *(["--epochs", "1"] if "cnn" in model else []))
    measured = done_in(data, "evaluate", "--json").json
    assert measured["runs"][0]["model"] == model
    assert np.asarray(measured["by_track"]["confusion"]).sum() == 12


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("recipe", "least", "widest"),
    [
        ("--model vit2021/cnn --lr 2e-3 --ema 0.99 --monitor accuracy --patience 20 --epochs 20", 0.99, 0.05),
        ("--model kth2020/cnn --epochs 4", 0.95, 0.2),
    ],
    ids=["trained", "as good as untrained"],
)
def test_quantisation_does_not_change_decisions(recipe: str, least: float, widest: float, data: Path):
    """Trained from uint8, a model gives the slices of a float32 store the same class, all but those it wavers at.

    How many these are is the model's: one that has learned little wavers at many (`docs/decisions.md` has figures).
    """
    from mgc.models.runs.run import Run
    from mgc.models.training.predict import predict

    stores = [
        done_in(data, "extract", "--feature", "mel", "--slice", "4", "--dtype", dtype, "--json").json
        for dtype in ("uint8", "float32")
    ]
    quantised, precise = (Path(found["stores"][0]["store"]) for found in stores)
    done_in(data, "train", "--store", quantised, *recipe.split())
    run = Run.open(sorted((data / "runs").iterdir())[-1])
    same = []
    for split in ("training", "validation", "test"):
        tables = [predict(run, split=split, store=path) for path in (quantised, precise)]
        assert tables[0].select(["track_id", "start_s"]).equals(tables[1].select(["track_id", "start_s"]))
        ours, theirs = (np.stack(table["probabilities"].to_numpy()) for table in tables)
        same.append(ours.argmax(axis=1) == theirs.argmax(axis=1))
        second, first = np.sort(ours, axis=1)[:, -2:].T
        assert (first - second)[~same[-1]].max(initial=0) < widest
    assert np.concatenate(same).size == 1014 + 2 * 156
    assert np.concatenate(same).mean() >= least
    assert np.concatenate(same[1:]).mean() >= least  # of those it has not seen


def test_the_demo_ends_as_it_says(tmp_path: Path):
    said = done_in(tmp_path, "demo", "--epochs", "3").out
    assert "nothing beyond that" in said
    (manifest,) = tmp_path.glob("features/fma_demo/mel-*/tracks.parquet")
    rows = {int(row["track_id"]): row for row in pq.read_table(manifest).to_pylist()}
    assert {track: rows[track]["reason"] or rows[track]["status"] for track in BROKEN_TRACKS} == BROKEN_TRACKS
    dropped = {track for track, row in rows.items() if row["status"] == "dropped"}
    assert dropped == {track for track, end in BROKEN_TRACKS.items() if end != "ok"}
    (run,) = (tmp_path / "runs").iterdir()
    for name in ("config.json", "history.jsonl", "metrics.json", "predictions.parquet", "confusion.png"):
        assert (run / name).stat().st_size > 0
