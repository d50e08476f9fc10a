"""A run on another dataset: genres, tracks that it has heard, result files, and stores that do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from commands import Outcome, mgc
from music import write_list
from stores import make_store
from tiny import TINY

from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.pipeline.features import Chroma, Mel
from mgc.pipeline.storage import parquet


class Place(NamedTuple):
    """A run on real clips, the store of another dataset, and a workspace."""

    workspace: Path
    run: Path
    own: Path
    other: Path


def extract(folder: Path, name: str, rows: list[dict], scheduler: str) -> Path:
    write_list(folder / f"{name}.csv", rows)
    options = ("--dataset", folder / f"{name}.csv", "--audio-root", "/", "--name", name, "--duplicates", "keep")
    outcome = mgc("extract", *options, "--scheduler", scheduler, "--data-dir", folder, "--json")
    assert outcome.code == 0, outcome.err
    return Path(outcome.json["stores"][0]["store"])


@pytest.mark.slow
@pytest.mark.parametrize("genre_map", [True, False])
def test_genres_and_files_of_a_store_without_bands(
    genre_map: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight bands cannot be compared; six of the other store's tracks are files of the run's training tracks."""
    monkeypatch.setitem(systems._systems, TINY.id, TINY)
    own, names = make_store(tmp_path / "own"), {"Folk": "FOLK ", "Rock": "Metal", "Ambient": "Drone"}

    def relabel(row: dict[str, Any]) -> dict[str, Any]:
        again = row["split"] == "training" and int(row["track_id"][-3:]) < 6
        hash = row["content_hash"] if again else f"other {row['content_hash']}"
        return {"genre": names[row["genre"]], "content_hash": hash}

    other = make_store(tmp_path / "other", Mel(n_mels=8, n_fft=512, dtype="float16"), relabel=relabel)
    outcome = mgc("train", "--model", TINY.id, "--store", own.path, "--data-dir", tmp_path, "--epochs", 1)
    assert outcome.code == 0, outcome.err
    (tmp_path / "map.csv").write_text("genre,as\nmetal,Rock\n")
    options = ("--map", tmp_path / "map.csv") if genre_map else ()
    measured = mgc("evaluate", next((tmp_path / "runs").iterdir()), "--store", other.path, *options, "--json").json
    assert measured["n_tracks"] == (20 - 4 if genre_map else 10 - 2)
    assert measured["other"]["unknown_genres"] == {"Drone": 10} | ({} if genre_map else {"Metal": 10})
    assert {copy["kind"] for copy in measured["other"]["heard"]} == {"file"}
    assert measured["other"]["recordings_not_compared"].startswith("mel frames have too few")


@pytest.fixture(scope="module")
def place(corpus: Path, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run on 12 clips, and a dataset of four others, four relatives of its clips, and one of an unknown genre."""
    folder = tmp_path_factory.mktemp("other").resolve()
    clips = sorted((corpus / "fma_debian").glob("*/*.mp3"))[:18]
    splits = ("training", "training", "validation", "test")
    rows = [
        {"track_id": f"own-{i}", "path": path, "genre": ("Folk", "Rock")[i % 2], "split": splits[i // 2 % 4]}
        for i, path in enumerate(clips[:12])
    ]
    others = [
        {
            "track_id": f"new-{i}",
            "path": path,
            "genre": ("folk", "Hard Rock")[i % 2],
            "split": ("training", "test")[i // 2],
        }
        for i, path in enumerate(clips[12:16])
    ]
    others.append({"track_id": "stranger", "path": clips[16], "genre": "<i>Jazz</i>", "split": "test"})
    for row, name in ((rows[1], "louder.ogg"), (rows[4], "trimmed.ogg"), (rows[6], "heard-in-test.ogg")):
        samples, rate = soundfile.read(row["path"], dtype="float32", always_2d=True)
        start = 70_000 if name == "trimmed.ogg" else 0
        soundfile.write(folder / name, np.clip(1.4 * samples[start:], -1, 1), rate)
        others.append({"track_id": name, "path": folder / name, "genre": "Folk", "split": "test"})
    (folder / "again.mp3").write_bytes(clips[0].read_bytes())
    others.append({"track_id": "again", "path": folder / "again.mp3", "genre": "Folk", "split": "test"})
    for row in rows + others:
        row["path"] = row["path"].resolve().relative_to("/").as_posix()
    own, other = extract(folder, "own", rows, scheduler), extract(folder, "other", others, scheduler)
    outcome = mgc("train", "--model", "moments/logreg", "--store", own, "--data-dir", folder)
    assert outcome.code == 0, outcome.err
    (folder / "map.csv").write_text("genre,as\nhard rock,Rock\n")
    return Place(folder, next((folder / "runs").iterdir()), own, other)


def evaluate(place: Place, *options: object, run: Path | None = None) -> Outcome:
    store = () if "--store" in options else ("--store", place.other)
    return mgc("evaluate", run or place.run, "--map", place.workspace / "map.csv", *store, *options)


@pytest.mark.slow
def test_what_the_run_has_heard_and_what_it_does_not_know_is_left_out(place: Place) -> None:
    outcome = evaluate(place, "--json")
    assert outcome.code == 0, outcome.err
    measured = outcome.json
    assert (measured["dataset"], measured["trained_on"], measured["split"]) == ("other", "own", "all")
    assert measured["leaky"] is False
    # own-6 is a test track, which the run has not heard.
    ids = {f"new-{i}" for i in range(4)} | {"heard-in-test.ogg"}
    results = parquet.read_table(place.run / "track-predictions-other.parquet")
    assert set(results["track_id"].to_pylist()) == ids
    assert set(results["true"].to_pylist()) == {"Folk", "Rock"}
    assert measured["other"]["unknown_genres"] == {"<i>Jazz</i>": 1}
    heard = {copy["track"]: (copy["of"], copy["kind"]) for copy in measured["other"]["heard"]}
    assert heard == {
        "again": ("own-0", "file"),
        "louder.ogg": ("own-1", "near-duplicate"),
        "trimmed.ogg": ("own-4", "near-duplicate"),
    }
    assert max(copy["error"] for copy in measured["other"]["heard"]) < 0.25
    assert measured["other"]["recordings_not_compared"] is None
    text = " ".join(evaluate(place).out.split())
    assert "moments/logreg on all tracks of other (trained on own): 5 tracks" in text
    assert "1 track of genres that the run does not know, or the map leaves out: <i>Jazz</i> (1)." in text
    assert "Left out: 3 tracks that the run has heard in training (1 the same file, 2 the recording in another" in text
    assert not (place.run / "metrics.json").exists()
    assert json.loads((place.run / "metrics-other.json").read_text())["evaluations"] == 2
    assert mgc("verify", place.run).code == 0


@pytest.mark.slow
def test_one_split_of_the_dataset_and_several_runs(place: Place) -> None:
    measured = evaluate(place, "--split", "training", "--json").json
    assert (measured["split"], measured["n_tracks"]) == ("training", 2)
    assert [Path(file).name for file in measured["files"]][-1] == "metrics-other-training.json"
    assert "NOT A TEST" not in evaluate(place, "--split", "training").out
    table = mgc("evaluate", place.run, place.run, "--store", place.other, "--map", place.workspace / "map.csv")
    assert "2 runs, each on all tracks of other (trained on own)" in table.out
    assert "OTHER TRACKS" not in table.out


@pytest.mark.slow
def test_runs_are_compared_on_the_other_dataset(place: Place) -> None:
    where = ("--store", place.own, "--data-dir", place.workspace)
    trained = mgc("train", "--model", "moments/knn", *where)
    assert trained.code == 0, trained.err
    (second,) = (place.workspace / "runs").glob("*moments-knn")
    words = ("compare", place.run, second, "--on", "other", "--data-dir", place.workspace)
    evaluate(place)
    outcome = mgc(*words)
    assert outcome.error == (
        f"{second} has not been evaluated on tracks of other; `mgc evaluate {second} --store STORE` does it"
    )
    measured = evaluate(place, "--json", run=second).json["by_track"]["accuracy"]
    text = mgc(*words).out
    assert text.startswith("2 systems on other: 5 tracks by ")
    comparison = mgc(*words, "--json").json
    assert {row["model"]: row["accuracy"] for row in comparison["rows"]}["moments/knn"] == pytest.approx(measured)
    assert (comparison["split"], comparison["dataset"]) == ("all", "other")
    found = mgc("compare", "--on", "other", "--data-dir", place.workspace)
    assert "runs: 2 evaluated runs on the tracks of other\n" in found.err
    assert mgc("compare", "--on", "other", "--split", "validation", "--data-dir", place.workspace).code == 1


@pytest.mark.slow
def test_a_run_whose_store_is_gone_finds_equal_files_only(place: Place, tmp_path: Path) -> None:
    run = tmp_path / "runs" / place.run.name
    shutil.copytree(place.run, run)
    config = json.loads((run / "config.json").read_text())
    (run / "sealed.json").unlink()
    config["store"] |= {"path": str(tmp_path / "gone"), "from_runs": None}
    (run / "config.json").write_text(json.dumps(config | {"sealed": False}))
    outcome = evaluate(place, "--json", run=run)
    assert outcome.code == 0, outcome.err
    assert [copy["track"] for copy in outcome.json["other"]["heard"]] == ["again"]
    assert "gone: no feature store" in outcome.json["other"]["recordings_not_compared"]
    assert "were not looked for" in " ".join(evaluate(place, run=run).out.split())


@pytest.mark.slow
def test_what_does_not_fit_is_refused_in_one_line(place: Place, tmp_path: Path) -> None:
    spec = Run.open(place.run).spec
    assert isinstance(spec, Mel)
    other_hop = make_store(tmp_path / "hop", Mel(hop_length=604))
    assert "another feature than the run was trained on: hop_length 604 for 512" in refusal(
        place, "--store", other_hop.path
    )
    chroma = make_store(tmp_path / "chroma", Chroma())
    assert "chroma for mel" in refusal(place, "--store", chroma.path)
    unknown = make_store(tmp_path / "unknown", Mel(), genres=["Polka", "Ska"])
    assert "no track to score: its genres Polka, Ska are not the run's" in refusal(place, "--store", unknown.path)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("genre,as\nfolk,Volk\n")
    outcome = mgc("evaluate", place.run, "--store", place.other, "--map", wrong)
    assert (outcome.code, outcome.error) == (
        1,
        "--map: the run has no genre Volk; its genres are Folk, Rock",
    )
    assert mgc("evaluate", place.run, "--map", wrong).code == 2
    assert mgc("evaluate", place.run, "--store", tmp_path).code == 1


def refusal(place: Place, *options: object) -> str:
    outcome = evaluate(place, *options)
    assert outcome.code == 1
    return outcome.error


@pytest.mark.slow
def test_its_own_dataset_leaves_the_test_tracks(place: Place) -> None:
    measured = evaluate(place, "--store", place.own, "--json").json
    assert {copy["kind"] for copy in measured["other"]["heard"]} == {"file"}
    assert measured["n_tracks"] == 2
