"""Stores and runs that an earlier version wrote open, verify, train, continue and score as they did then.

`tests/fixtures/README.md` describes the files. Every test works on a copy of its own, which lies elsewhere than where
they were made.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from commands import Outcome, mgc, tree

from mgc.models.evaluation import tables
from mgc.models.runs.run import Run

V0_1 = Path(__file__).with_name("fixtures") / "v0.1"
EXPECTED = V0_1 / "expected"

MEL, VARIANTS, STATS = STORES = ("mel-0bc65c", "mel-0bc65c-21a2b9", "stats-a6309b")
RUNS = ("neural", "classical", "fold", "stats", "ensemble")

#: Of probabilities and scores that the same weights give. The machine that made the files gives the same bits; with
#: SSE4.1 instead of AVX-512, probabilities differ by up to 1.2e-6.
SAME = 1e-5
#: Of what trained weights give. The machine that made the files gives the same bits; with SSE4.1 or AVX2 a continued
#: run differs by up to 1e-5 in probabilities and scores, and by 5e-5 in weights. Where any part of its state is lost or
#: wrong, probabilities differ by 3e-2 and more.
TRAINED = 1e-3
#: The time all songs have in the manifests, ns.
SONGS_TIME = 1_767_225_600_000_000_000


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A copy of the workspace."""
    return Path(shutil.copytree(V0_1 / "workspace", tmp_path / "elsewhere" / "data"))


def done(workspace: Path, *arguments: object) -> Outcome:
    """A command that must succeed."""
    outcome = mgc(*arguments, "--data-dir", workspace)
    assert outcome.code == 0, outcome.err
    return outcome


def store_of(workspace: Path, name: str) -> Path:
    return workspace / "features" / "songs" / name


def assert_alike(ours: Any, theirs: Any, tolerance: float, where: str = "") -> None:
    """Equal, numbers but for a tolerance; ours may have further keys."""
    if isinstance(theirs, dict):
        assert theirs.keys() <= ours.keys(), where
        for key, value in theirs.items():
            assert_alike(ours[key], value, tolerance, f"{where}/{key}")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), where
        for number, value in enumerate(theirs):
            assert_alike(ours[number], value, tolerance, f"{where}/{number}")
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=tolerance), where
    else:
        assert ours == theirs, where


def scores(measured: dict[str, Any]) -> dict[str, Any]:
    """An evaluation without what names places, versions and how often it was made."""
    return {key: value for key, value in measured.items() if key not in ("runs", "versions", "evaluations")}


def assert_same_scores(run: Path, theirs: Path, tolerance: float, split: str = "") -> None:
    """A run's results are those in another folder: scores, and each slice's probabilities."""
    ours, expected = (json.loads((folder / f"metrics{split}.json").read_bytes()) for folder in (run, theirs))
    assert_alike(scores(ours), scores(expected), tolerance)
    predicted, known = (pq.read_table(folder / f"predictions{split}.parquet") for folder in (run, theirs))
    names = ["genre" if name == "true" else name for name in predicted.column_names]
    assert_same_rows(predicted.rename_columns(names), known, "probabilities")
    files = ((folder / f"predictions{split}.parquet").read_bytes() for folder in (run, theirs))
    ours, expected = (tables.read_predictions(data, Run.open(run), "predictions").probabilities for data in files)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance)


def assert_same_rows(ours: pa.Table, theirs: pa.Table, *besides: str) -> None:
    """Tables are equal but for some columns and their metadata; ours may have further columns."""
    names = [name for name in theirs.column_names if name not in besides]
    assert ours.select(names).replace_schema_metadata().equals(theirs.select(names).replace_schema_metadata())


def history(run: Path) -> list[dict[str, Any]]:
    """A run's epochs, without the seconds they took."""
    lines = (run / "history.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


# ---------------------------------------------------------------- stores


@pytest.mark.parametrize("name", STORES)
def test_a_store_holds_what_it_held(name: str, workspace: Path) -> None:
    store = store_of(workspace, name)
    said = done(workspace, "info", store, "--json").json
    assert_alike(said, json.loads((EXPECTED / f"{name}.json").read_bytes()) | {"store": str(store)}, tolerance=0)
    assert "19 of 20 in use" in done(workspace, "info", store).out
    assert done(workspace, "verify", store, "--json").json == {"store": str(store), "ok": True, "problems": []}


def test_damage_of_an_old_store_is_found(workspace: Path) -> None:
    data = store_of(workspace, MEL) / "shards" / "00000.zarr" / "mel" / "c" / "0" / "0"
    content = bytearray(data.read_bytes())
    content[1000] ^= 1
    data.write_bytes(content)
    outcome = mgc("verify", store_of(workspace, MEL), "--data-dir", workspace)
    assert outcome.code == 1
    assert "00000.zarr" in outcome.out


@pytest.mark.parametrize(("name", "cut"), [(MEL, "--slice 4 --overlap 0.5"), (VARIANTS, "--slice 3 --overlap 0")])
def test_it_can_be_cut_otherwise_and_back(name: str, cut: str, workspace: Path) -> None:
    store = store_of(workspace, name)
    before = pq.read_table(store / "slices.parquet"), pq.read_table(store / "tracks.parquet")
    lengths = [track["duration_s"] for track in before[1].to_pylist() if track["status"] == "ok"]
    said = done(workspace, "slice", store, "--slice", 2, "--overlap", 0, "--json").json
    assert said["slices"] == sum(int(length // 2) for length in lengths)
    assert done(workspace, "verify", store, "--json").json["ok"]
    done(workspace, "slice", store, *cut.split())
    after = pq.read_table(store / "slices.parquet"), pq.read_table(store / "tracks.parquet")
    assert_same_rows(after[0], before[0])
    assert_same_rows(after[1], before[1])


def moved(store: Path, songs: Path) -> None:
    """Have a store say that it was made of the songs where they are now, as if neither had been moved."""
    head = json.loads((store / "store.json").read_bytes())
    seal = head.pop("digest")
    assert seal == digest(head)
    head["dataset"] |= {"root": str(songs), "source": str(songs / "songs.csv")}
    (store / "store.json").write_bytes(written(head | {"digest": digest(head)}))


def written(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def digest(value: dict[str, Any]) -> str:
    return blake3.blake3(written(value)).hexdigest(length=16)


@pytest.fixture
def songs(workspace: Path) -> Path:
    """The songs, with the times that the manifests know."""
    for path in (workspace / "songs").rglob("*.*"):
        os.utime(path, ns=(SONGS_TIME, SONGS_TIME))
    return workspace / "songs"


def test_extraction_has_nothing_to_do(workspace: Path, songs: Path) -> None:
    for name in STORES:
        moved(store_of(workspace, name), songs)
    before = tree(workspace / "features")
    again = ("extract", "--dataset", songs / "songs.csv", "--feature", "mel:n_mels=16", "--json")
    for command in ((*again, "--feature", "stats"), (*again, "--augment", "noise")):
        stores = done(workspace, *command).json["stores"]
        assert [made["decoded"] for made in stores] == [0] * len(stores)
    assert tree(workspace / "features") == before


def test_an_extraction_that_was_killed_goes_on_to_the_same_store(workspace: Path, songs: Path, scheduler: str) -> None:
    whole, killed = store_of(workspace, MEL), workspace / "killed" / MEL
    shutil.copytree(V0_1 / "killed", workspace / "killed")
    moved(killed, songs)
    assert "unfinished" in mgc("info", killed, "--data-dir", workspace).error
    first = tree(killed / "shards" / "00000.zarr")
    command = ("extract", "--dataset", songs / "songs.csv", "--feature", "mel:n_mels=16", "--out", killed.parent)
    (made,) = done(workspace, *command, "--scheduler", scheduler, "--json").json["stores"]
    assert made["decoded"] == 6  # those for validation and test
    assert tree(killed / "shards" / "00000.zarr") == first
    assert done(workspace, "verify", killed, "--json").json["ok"]
    for name in ("tracks.parquet", "slices.parquet"):
        # Other processors round differently, and so may other values lie just outside the range of uint8.
        assert_same_rows(*(pq.read_table(store / name) for store in (killed, whole)), "saturated")
    for shard in range(3):
        ours, theirs = (
            zarr.open_array(store / "shards" / f"{shard:05}.zarr" / "mel", mode="r")[:].astype(int)
            for store in (killed, whole)
        )
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= 1  # half a decibel


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("name", [*RUNS, "unfinished"])
def test_a_run_is_what_it_was(name: str, workspace: Path) -> None:
    run = workspace / "runs" / name
    said = done(workspace, "info", run, "--json").json
    assert_alike(said, json.loads((run / "config.json").read_bytes()), tolerance=0)
    assert said["finished"] == (name != "unfinished")
    text = done(workspace, "info", run).out
    assert said["model"] in text
    assert "Ambient, Chiptune, Rock" in text


@pytest.mark.parametrize("name", RUNS)
def test_a_run_scores_as_it_did(name: str, workspace: Path) -> None:
    run = workspace / "runs" / name
    said = done(workspace, "evaluate", run, "--device", "cpu", "--json").json
    assert said["evaluations"] == 2  # the earlier version's was the first
    assert_same_scores(run, V0_1 / "workspace" / "runs" / name, SAME)


def test_the_mean_of_runs_scores_as_it_did(workspace: Path) -> None:
    runs = (workspace / "runs" / name for name in ("neural", "classical"))
    said = done(workspace, "evaluate", "--ensemble", *runs, "--device", "cpu", "--json").json
    assert_alike(scores(said), scores(json.loads((EXPECTED / "mean.json").read_bytes())), SAME)


def test_the_latest_run_and_store_are_still_known(workspace: Path) -> None:
    latest = json.loads((workspace / "latest.json").read_bytes())
    assert done(workspace, "info", "--json").json["store"] == str(workspace / latest["store"])
    said = done(workspace, "evaluate", "--split", "validation", "--device", "cpu", "--json").json
    assert said["runs"][0]["run"] == str(workspace / latest["run"])


def test_an_unfinished_run_keeps_its_test_tracks(workspace: Path) -> None:
    run = workspace / "runs" / "unfinished"
    assert "unfinished" in mgc("evaluate", run, "--data-dir", workspace).error
    done(workspace, "evaluate", run, "--split", "validation", "--device", "cpu")
    assert_same_scores(run, V0_1 / "workspace" / "runs" / "unfinished", SAME, "-validation")


def test_an_unfinished_run_continues_to_the_result_it_would_have_had(workspace: Path) -> None:
    run = workspace / "runs" / "unfinished"
    said = done(workspace, "train", "--resume", "--run", run).out
    assert "continues in epoch 2, after 3 of 13 batches" in said
    assert_alike(history(run), history(EXPECTED / "continued"), TRAINED)
    ended, expected = (json.loads((folder / "summary.json").read_bytes()) for folder in (run, EXPECTED / "continued"))
    assert (ended["epochs"], ended["best_epoch"]) == (expected["epochs"], expected["best_epoch"]) == (3, 3)
    assert_same_weights(run, json.loads((EXPECTED / "continued" / "weights.json").read_bytes()))
    done(workspace, "evaluate", run, "--device", "cpu")
    assert_same_scores(run, EXPECTED / "continued", TRAINED)


def assert_same_weights(run: Path, expected: dict[str, dict[str, list[float]]]) -> None:
    """The tensors of a run's checkpoints have the mean and the root mean square that they should have."""
    last = torch.load(run / "last.pt", weights_only=True)
    found = {
        "best": torch.load(run / "best.pt", weights_only=True)["model"],
        "last": last["model"],
        "averaged": last["averaged"],
        "square_avg": {str(number): state["square_avg"] for number, state in last["optimizer"]["state"].items()},
    }
    assert found.keys() == expected.keys()
    for part, tensors in expected.items():
        assert found[part].keys() == tensors.keys()
        # Moments of weights that batch norm makes useless are those of rounding errors: up to 1e-2 apart.
        tolerance = 5e-2 if part == "square_avg" else TRAINED
        for name, (mean, size) in tensors.items():
            tensor = found[part][name].double()
            assert tensor.mean().item() == pytest.approx(mean, abs=tolerance * size), f"{part}: {name}"
            assert tensor.square().mean().sqrt().item() == pytest.approx(size, rel=tolerance), f"{part}: {name}"


def test_training_on_an_old_store_begins_as_it_did(workspace: Path) -> None:
    """The first epoch of the finished network, whatever the number of epochs."""
    old = workspace / "runs" / "neural"
    settings = "--model vit2021/cnn --epochs 1 --batch-size 8 --lr 2e-3 --monitor loss --seed 3 --device cpu"
    done(workspace, "train", "--store", store_of(workspace, MEL), *settings.split())
    run = latest_run(workspace)
    assert_alike(history(run), history(old)[:1], TRAINED)
    ours, theirs = (json.loads((folder / "config.json").read_bytes()) for folder in (run, old))
    assert theirs.keys() <= ours.keys()
    assert_alike(ours["training"], theirs["training"] | {"epochs": 1}, tolerance=0)
    assert_alike(ours["store"], theirs["store"] | {"path": str(store_of(workspace, MEL))}, tolerance=0)


@pytest.mark.parametrize(
    ("name", "store", "settings"),
    [
        ("classical", MEL, "--model moments/svm --limit-tracks 2"),
        ("fold", MEL, "--model moments/logreg --folds 3:2 --search"),
        ("stats", STATS, "--model xu2022/logreg"),
    ],
)
def test_classical_systems_are_fitted_as_they_were(name: str, store: str, settings: str, workspace: Path) -> None:
    done(workspace, "train", "--store", store_of(workspace, store), "--device", "cpu", *settings.split())
    run, old = latest_run(workspace), V0_1 / "workspace" / "runs" / name
    ended, expected = (json.loads((folder / "summary.json").read_bytes()) for folder in (run, old))
    for summary in (ended, expected):
        summary.pop("seconds")
    assert_alike(ended, expected, TRAINED)
    done(workspace, "evaluate", run, "--device", "cpu")
    assert_same_scores(run, old, TRAINED)


def latest_run(workspace: Path) -> Path:
    """The run that the last command made."""
    return workspace / json.loads((workspace / "latest.json").read_bytes())["run"]
