"""Ensembles and systems of several stores, by the commands: choice of stores, members, predictions and errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from commands import mgc
from stores import make_store
from tiny import TINY
from twofold import TWOFOLD

from mgc.models.registry import systems
from mgc.models.registry.systems import System
from mgc.models.runs.run import Run
from mgc.models.training.ensemble import members_of
from mgc.pipeline.features import Mel, Stft, Waveform
from mgc.pipeline.storage import parquet
from mgc.pipeline.store.slicing import Slicing

pytestmark = pytest.mark.slow  # each trains several times

BOTH = System(
    "test/both",
    "ensemble",
    TWOFOLD.input,
    lambda n_classes: torch.nn.ModuleList([TWOFOLD.build(n_classes), TINY.build(n_classes)]),
    TINY.recipe_file,
    further=TWOFOLD.further,
    members=(TWOFOLD.id, TINY.id),
)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for system in (TINY, TWOFOLD, BOTH):
        monkeypatch.setitem(systems._systems, system.id, system)
    torch.set_num_threads(1)


def make_workspace(data: Path) -> Path:
    """A workspace with a waveform store and, the latest, a mel store."""
    for spec in (Waveform(), Mel(n_mels=8, n_fft=512, hop_length=256)):
        make_store(data / "features" / "synthetic" / spec.name, spec, seconds=(4.0,), root=data)
    return data


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a finished ensemble."""
    data = make_workspace(tmp_path_factory.mktemp("workspace") / "data")
    with pytest.MonkeyPatch.context() as patch:
        for system in (TINY, TWOFOLD, BOTH):
            patch.setitem(systems._systems, system.id, system)
        done = mgc("train", "--model", BOTH.id, "--epochs", 1, "--data-dir", data)
    assert done.code == 0, done.err
    return data


@pytest.fixture
def copy(workspace: Path, tmp_path: Path) -> Path:
    """A copy of the workspace, which a test may damage."""
    return Path(shutil.copytree(workspace, tmp_path / "copy"))


def runs_of(data: Path) -> dict[str, Run]:
    return {run.model: run for run in map(Run.open, sorted((data / "runs").iterdir()))}


# -- stores -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_stores_that_fit_are_found_and_named(tmp_path: Path) -> None:
    data = make_workspace(tmp_path)
    make_store(data / "features" / "synthetic" / "stft", Stft(n_fft=512), root=data)
    done = mgc("train", "--model", TWOFOLD.id, "--epochs", 1, "--data-dir", data)
    assert done.code == 0, done.err
    named = [line for line in done.err.splitlines() if line.startswith("store: ")]
    why = f"(the latest, stft, does not fit {TWOFOLD.id})"
    assert named == [f"store: {data / 'features' / 'synthetic' / name} {why}" for name in ("waveform", "mel")]


@pytest.mark.slow
def test_stores_may_be_named_in_any_order(tmp_path: Path) -> None:
    data = make_workspace(tmp_path)
    folder = data / "features" / "synthetic"
    common = ("--epochs", 1, "--data-dir", data)
    done = mgc("train", "--model", TWOFOLD.id, "--store", folder / "mel", "--store", folder / "waveform", *common)
    assert done.code == 0, done.err
    assert [source.path.name for source in runs_of(data)[TWOFOLD.id].sources] == ["waveform", "mel"]


def test_a_missing_store_is_an_error_with_the_command_that_extracts_it(tmp_path: Path) -> None:
    data = make_workspace(tmp_path)
    shutil.rmtree(data / "features" / "synthetic" / "waveform")
    for model in (TWOFOLD.id, BOTH.id):
        missing = mgc("train", "--model", model, "--data-dir", data)
        assert missing.error == (
            f"{TWOFOLD.id} needs waveform with 512 samples a frame, which no store in "
            f"{data / 'features' / 'synthetic'} holds: nearest is mel (mel for waveform); "
            f"extract it: `mgc extract --for {TWOFOLD.id}`"
        )
    assert not (data / "runs").exists()


@pytest.mark.slow
def test_a_named_store_that_is_not_used(workspace: Path) -> None:
    folder = workspace / "features" / "synthetic"
    named = [option for name in ("mel", "waveform") for option in ("--store", folder / name)]
    refused = mgc("train", "--model", TINY.id, *named, "--data-dir", workspace)
    assert refused.error.startswith(
        f"test/tiny does not read {folder / 'waveform'}, which holds waveform; leave it out"
    )


def test_a_recipe_takes_its_features_and_slicing_however_the_stores_are_cut(tmp_path: Path) -> None:
    data, folder = tmp_path, tmp_path / "features" / "fma_small"
    tracks = {"training": 16, "validation": 8, "test": 8}
    for name, spec in (("a", Waveform()), ("b", Mel(n_mels=8, n_fft=512, hop_length=256)), ("c", Mel(n_mels=8))):
        make_store(folder / name, spec, Slicing(seconds=3.7), seconds=(4.0,), tracks=tracks, fma=data)
    done = mgc("train", "--recipe", TWOFOLD.id, "--as-published", "--data-dir", data)
    assert done.code == 0, done.err
    run = runs_of(data)[TWOFOLD.id]
    assert [source.path.name for source in run.sources] == ["a", "b"]
    assert run.slicing == TWOFOLD.recipe.slicing
    assert run.config["differences"] == []
    assert mgc("evaluate", "--json", "--data-dir", data).json["n_tracks"] == 8
    shorter = mgc("train", "--recipe", TWOFOLD.id, "--as-published", "--epochs", 1, "--data-dir", data)
    assert "test/twofold would not be as published: epochs 1 for 4" in shorter.error
    shutil.rmtree(folder / "b")
    missing = mgc("train", "--recipe", TWOFOLD.id, "--data-dir", data)
    assert "needs mel sr=22050 n_fft=512 hop_length=256" in missing.error
    assert ": nearest is c (n_fft 2048 for 512, hop 512 for 256); " in missing.error
    remedy = f"extract it: `mgc extract --dataset {data / 'fma_small'} --for test/twofold`"
    assert missing.error.endswith(f"{remedy}, or compute it: --frontend device")


# -- ensembles --------------------------------------------------------------------------------------------------------


def test_an_ensemble_refers_to_its_members(workspace: Path) -> None:
    runs = runs_of(workspace)
    assert runs.keys() == {TWOFOLD.id, TINY.id, BOTH.id}
    ensemble = runs[BOTH.id]
    assert ensemble.finished
    for id, member in zip(BOTH.members, ensemble.config["members"], strict=True):
        assert member["model"] == id
        assert (ensemble.path / member["run"]).resolve() == runs[id].path.resolve()
        assert not Path(member["run"]).is_absolute()
    assert [run.model for run in members_of(ensemble)] == list(BOTH.members)
    assert ensemble.config["params"] == sum(runs[id].config["params"] for id in BOTH.members)
    assert "epochs 1 for 4" in ensemble.config["differences"]
    info = mgc("info", ensemble.path, "--data-dir", workspace)
    assert f"member    {TINY.id}" in info.out


def test_an_ensemble_predicts_the_mean_of_its_members(copy: Path) -> None:
    runs = runs_of(copy)
    texts = {}
    for id, run in runs.items():
        done = mgc("evaluate", run.path, "--by-genre", "--data-dir", copy)
        assert done.code == 0, done.err
        texts[id] = done.out
    assert texts[BOTH.id].startswith(f"{BOTH.id} on the test split of synthetic: 6 tracks")
    tables = {id: parquet.read_table(run.path / "predictions.parquet") for id, run in runs.items()}
    columns = [f"p_{genre}" for genre in runs[TINY.id].classes]
    probabilities = {id: np.stack([table[name].to_numpy() for name in columns]) for id, table in tables.items()}
    order = np.lexsort([tables[BOTH.id][name].to_numpy() for name in ("start_s", "track_id")])
    members = [probabilities[id] for id in BOTH.members]
    mean = tables[BOTH.id].sort_by([("track_id", "ascending"), ("start_s", "ascending")])
    np.testing.assert_allclose(probabilities[BOTH.id][:, order], np.mean(members, axis=0), atol=1e-6)
    for column in ("track_id", "start_s", "true", "artist_id", "split"):
        assert mean[column].equals(tables[TINY.id][column])
    metrics = json.loads((runs[BOTH.id].path / "metrics.json").read_text())
    assert metrics["evaluations"] == 1
    paths = [runs[id].path for id in BOTH.members]
    together = mgc("evaluate", "--ensemble", *paths, "--json", "--data-dir", copy).json
    assert together["by_track"] == metrics["by_track"]
    assert together["files"] == []
    assert mgc("evaluate", "--ensemble", *paths, "--data-dir", copy).out.endswith(
        "\n\nnothing is written: the mean belongs to no run\n"
    )
    each = mgc("evaluate", *paths, "--json", "--data-dir", copy).json
    assert [scores["runs"][0]["run"] for scores in each] == [str(path) for path in paths]
    for path, scores in zip(paths, each, strict=True):
        assert json.loads((path / "metrics.json").read_text()) | {"files": scores["files"]} == scores
        assert all(Path(file).exists() for file in scores["files"])
    table = mgc("evaluate", *paths, "--by-genre", "--data-dir", copy).out
    assert table.startswith("2 runs, each on its own test split; in brackets: 95 % intervals\n\nrun  model")
    assert max(map(len, table.split("\n\n")[1].splitlines())) <= 80
    assert f"\n  1  {BOTH.members[0]}  " in table
    assert "run 2: its test split has been evaluated 3 times." in table
    assert "OTHER TRACKS" not in table
    assert "\n\nF1 by track, in %      run 1   run 2\nFolk" in table
    assert table.endswith(f"\n  1  {paths[0]}\n  2  {paths[1]}\n")


def test_members_of_different_slicing_are_averaged_by_track(copy: Path) -> None:
    member = runs_of(copy)[TWOFOLD.id]
    done = mgc("slice", copy / "features" / "synthetic" / "mel", "--slice", 3, "--data-dir", copy)
    assert done.code == 0, done.err
    done = mgc("train", "--model", BOTH.id, "--member", member.path, "--epochs", 1, "--data-dir", copy)
    assert done.code == 0, done.err
    ensemble = Run.open(Path(done.out.splitlines()[-1].removeprefix("run: ").partition(";")[0]))
    assert ensemble.model == BOTH.id
    measured = mgc("evaluate", ensemble.path, "--json", "--data-dir", copy).json
    assert measured["by_slice"] is None
    assert measured["by_track"]["n"] == 6
    assert len(parquet.read_table(ensemble.path / "predictions.parquet")) == 6


@pytest.mark.parametrize("damage", ["changed", "missing", "no weights"])
def test_a_member_that_has_changed_or_is_missing(copy: Path, damage: str) -> None:
    runs = runs_of(copy)
    weights = runs[TINY.id].path / "best.pt"
    if damage == "changed":
        weights.write_bytes(weights.read_bytes() + b"\0")
    elif damage == "missing":
        shutil.rmtree(weights.parent)
    else:
        weights.unlink()
    refused = mgc("evaluate", runs[BOTH.id].path, "--data-dir", copy)
    problem = "has changed since: best.pt is another" if damage == "changed" else "is missing"
    assert f"its member {weights.parent.resolve()} {problem}; restore it, or make a new ensemble" in refused.error


def test_errors_of_members(copy: Path) -> None:
    runs = runs_of(copy)
    train = ("train", "--model", BOTH.id, "--data-dir", copy)
    assert "test/both is none of test/both" in mgc(*train, "--member", runs[BOTH.id].path).error
    tiny = runs[TINY.id].path
    assert "are both of test/tiny" in mgc(*train, "--member", tiny, "--member", tiny).error
    (tiny / "summary.json").unlink()
    assert "is unfinished; continue it: `mgc train --resume --run" in mgc(*train, "--member", tiny).error
    lone = mgc("train", "--model", TINY.id, "--member", tiny, "--data-dir", copy)
    assert lone.error.startswith("--member is for ensembles")
    twice = mgc("train", "--model", TINY.id, "--recipe", TINY.id, "--data-dir", copy)
    assert twice.error.startswith("--recipe names a system, and so does --model")


def test_members_of_other_tracks_make_no_ensemble(copy: Path) -> None:
    runs = runs_of(copy)
    tracks = runs[TINY.id].selection.tracks
    (runs[TINY.id].path / "sealed.json").unlink()
    parquet.write_table(
        runs[TINY.id].path / "tracks.parquet", tracks.filter(pc.not_equal(tracks["track_id"], "test-002"))
    )
    options = [option for id in BOTH.members for option in ("--member", runs[id].path)]
    refused = mgc("train", "--model", BOTH.id, *options, "--data-dir", copy)
    assert "make no ensemble: 1 tracks, such as test-002, are in the test split of one only" in refused.error
