"""`mgc reproduce` with tiny systems on synthetic clips: results, repetition, kills, limits, refusals, table."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Outcome, mgc, tree
from music import write_genres
from stores import make_store
from tiny import TINY, build

from mgc.models.registry import systems
from mgc.models.registry.systems import System
from mgc.models.reproduction import differences, report, results, table
from mgc.models.reproduction.jobs import Job, Limits
from mgc.models.runs.run import Run
from mgc.models.training.options import Options
from mgc.pipeline.errors import ModelError
from mgc.pipeline.workspace import Workspace

#: The same system; its study dealt slices to splits.
LEAKING = dataclasses.replace(
    TINY, id="test/leaking", recipe_file=Path(__file__).parents[2] / "support" / "leaking.toml"
)


def both(n_classes: int) -> Any:
    from torch import nn

    return nn.ModuleList([build(n_classes), build(n_classes)])


PAIR = System("test/pair", "ensemble", TINY.input, both, TINY.recipe_file, members=(TINY.id, LEAKING.id))


@pytest.fixture(autouse=True)
def tiny_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    for system in (TINY, LEAKING, PAIR):
        monkeypatch.setitem(systems._systems, system.id, system)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_genres(tmp_path_factory.mktemp("music") / "songs", tracks=10, seconds=3.1)


@pytest.fixture(scope="module")
def extracted(songs: Path, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the store that the tiny systems read."""
    data = tmp_path_factory.mktemp("extracted") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems._systems, TINY.id, TINY)
        outcome = mgc("extract", songs, "--for", TINY.id, "--scheduler", scheduler, "--data-dir", data)
    assert outcome.code == 0, outcome.err
    return data


@pytest.fixture
def data(extracted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(extracted, tmp_path / "data"))


@pytest.fixture
def reproduce(data: Path, songs: Path) -> Iterator[Any]:
    def run(name: str, *words: object) -> Outcome:
        return mgc("reproduce", name, "--dataset", songs, "--epochs", 1, *words, "--data-dir", data)

    return run


def lines(data: Path) -> list[dict[str, Any]]:
    """The results of a workspace; every line must be one."""
    text = (data / "results.jsonl").read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_a_result_stands_beside_the_published_one_and_is_recorded(reproduce: Any, data: Path):
    outcome = reproduce(TINY.id)
    assert outcome.code == 0, outcome.err
    (result,) = lines(data)
    run = Run.open(data / result["run"])
    measured = json.loads(run.read("metrics.json"))
    assert result["scores"]["test"]["by_track"]["accuracy"] == measured["by_track"]["accuracy"]
    assert result["scores"]["test"]["n_tracks"] == result["tracks"]["test"] == 2
    assert (result["system"], result["protocol"], result["seed"], result["leaky"]) == (TINY.id, "leak-free", 0, False)
    assert (result["limits"], result["epochs"]) == ({"epochs": 1, "tracks": None}, 1)
    assert result["digests"]["manifests"] == [run.sources[0].manifest_digest]
    assert result["versions"] == run.config["versions"]
    assert result["hardware"]["processor"]
    assert result["seconds"]["training"] > 0
    interval = "–".join(f"{100 * end:.1f}" for end in result["scores"]["test"]["by_track"]["accuracy_interval"])
    accuracy = 100 * measured["by_track"]["accuracy"]
    assert f"{'accuracy, test tracks':42}         –   {accuracy:.1f} % [{interval}]" in outcome.out
    assert "chance by track is 50.0 %" in outcome.out


@pytest.mark.slow
def test_what_differs_and_what_was_chosen_is_listed(reproduce: Any, data: Path):
    outcome = reproduce(TINY.id, "--limit-tracks", 3, "--json")
    (result,) = outcome.json
    assert result["differences"] == [
        "dataset songs for fma_small",
        "epochs 1 for 6",
        "at most 3 training tracks of each genre",
    ]
    assert result["chosen"]["training.optimizer.lr"] == "0.01"
    assert result["chosen"]["features.n_mels"] == "8"
    text = " ".join(report.text(result).split())
    assert "differs from the study: dataset songs for fma_small; epochs 1 for 6; at most 3 training" in text
    assert "chosen here, as the study does not say: dataset.name fma_small;" in text
    assert max(map(len, report.text(result).split("\n"))) <= 80


def test_what_nobody_asked_for_is_refused(tmp_path: Path):
    store = make_store(tmp_path / "mel", fma=tmp_path / "fma")
    job, options = Job(TINY, "leak-free", 0, Limits(epochs=1)), Options(model=TINY.id, epochs=1, as_sliced=True)
    assert differences.compare(job, [store], options)[1] == ["epochs 1 for 6"]
    metadata = tmp_path / "fma" / "fma_metadata" / "tracks.csv"
    metadata.write_text(metadata.read_text().replace("1000,training", "1000,test"))
    with pytest.raises(ModelError, match="not be as published: 1 tracks in other splits than the official ones"):
        differences.compare(job, [store], options)


@pytest.mark.slow
def test_a_finished_result_is_not_repeated_unless_asked_for(reproduce: Any, data: Path):
    assert reproduce(TINY.id).code == 0
    before = tree(data)
    again = reproduce(TINY.id)
    assert "--redo repeats it" in again.out
    assert tree(data) == before
    assert reproduce(TINY.id, "--redo").code == 0
    first, second = lines(data)
    assert first["key"] == second["key"]
    assert first["run"] != second["run"]
    assert len(results.newest(results.read(Workspace(data)))) == 1


@pytest.mark.slow
def test_other_seeds_and_limits_are_other_results(reproduce: Any, data: Path):
    assert reproduce(TINY.id, "--seeds", "0,1").code == 0
    assert mgc("reproduce", TINY.id, "--table", "--data-dir", data).out.count(TINY.id) == 1
    assert reproduce(TINY.id, "--epochs", 2).code == 0
    assert [(line["seed"], line["limits"]["epochs"]) for line in lines(data)] == [(0, 1), (1, 1), (0, 2)]
    ((_, rows),) = table.rows(lines(data))
    assert [[result["seed"] for result in row.results] for row in rows] == [[0, 1], [0]]
    tried = [json.loads(Run.open(data / line["run"]).read("metrics.json"))["other_seeds"] for line in lines(data)]
    assert tried == [False, True, False]


@pytest.mark.slow
def test_both_protocols_of_a_study_that_dealt_slices(reproduce: Any, data: Path):
    outcome = reproduce(LEAKING.id)
    assert outcome.code == 0, outcome.err
    leaky, clean = lines(data)
    assert (leaky["protocol"], leaky["leaky"]) == ("published", True)
    assert (clean["protocol"], clean["leaky"]) == ("leak-free", False)
    assert Run.open(data / leaky["run"]).config["split_unit"] == "slice"
    assert outcome.out.count("LEAKY") == 1
    assert any("instead of 80/10/10 at random over slices" in line for line in clean["differences"])
    assert not any("instead of" in line for line in leaky["differences"])
    text = mgc("reproduce", "--table", "--data-dir", data).out
    assert text.count(" LEAKY ") == 1
    markdown = mgc("reproduce", "--table", "--markdown", "--data-dir", data).out
    assert markdown.count("**leaky**") == 1
    assert reproduce(LEAKING.id, "--protocol", "published").out.count("--redo repeats it") == 1
    assert len(lines(data)) == 2


@pytest.mark.slow
def test_an_ensemble_is_joined_from_the_runs_of_its_members(reproduce: Any, data: Path):
    outcome = reproduce(PAIR.id, "--protocol", "leak-free")
    assert outcome.code == 0, outcome.err
    *members, pair = lines(data)
    assert [member["system"] for member in members] == [LEAKING.id, TINY.id]
    config = Run.open(data / pair["run"]).config
    assert {Path(member["run"]).name for member in config["members"]} == {Path(m["run"]).name for m in members}


@pytest.mark.slow
def test_a_limit_also_limits_what_is_extracted(songs: Path, scheduler: str, tmp_path: Path):
    def run(*words: object) -> list[dict[str, Any]]:
        command = ("reproduce", TINY.id, "--dataset", songs, "--epochs", 1, "--scheduler", scheduler, *words)
        outcome = mgc(*command, "--data-dir", tmp_path)
        assert outcome.code == 0, outcome.err
        return lines(tmp_path)

    def in_use() -> int:
        (store,) = tmp_path.glob("features/songs-limited/mel-*")
        return json.loads(mgc("info", store, "--json").out)["ok"]

    run("--limit-tracks", 1)
    few = in_use()
    run("--limit-tracks", 5)
    assert few < in_use() < 20
    results = run("--limit-tracks", 1)  # the tracks are those of the first call, though the store has more now
    assert len(results) == 2
    assert results[0]["tracks"] == {"training": 2, "validation": 2, "test": 2}


class TestErrors:
    def test_an_unknown_system_or_study(self, reproduce: Any):
        outcome = reproduce("test/tinny")
        assert (outcome.code, "test/tiny" in outcome.error) == (2, True)
        assert reproduce("kth2021").code == 2

    def test_nothing_is_named(self, data: Path):
        assert mgc("reproduce", "--data-dir", data).code == 2
        assert mgc("reproduce", TINY.id, "--markdown", "--data-dir", data).code == 2

    def test_no_dataset(self, tmp_path: Path):
        outcome = mgc("reproduce", TINY.id, "--data-dir", tmp_path)
        assert (outcome.code, outcome.error[:13]) == (1, "no dataset in")

    def test_a_dataset_that_is_not_the_studys_must_be_named(self, data: Path, songs: Path):
        shutil.copytree(songs, data / "songs")
        outcome = mgc("reproduce", TINY.id, "--data-dir", data)
        assert outcome.code == 1
        assert "test/tiny was published on fma_small" in outcome.error
        assert "--dataset" in outcome.error
        assert not (data / "results.jsonl").exists()

    def test_a_dataset_of_one_genre(self, data: Path, scheduler: str, tmp_path: Path):
        lone = write_genres(tmp_path / "lone", tracks=10, genres=["blues"], seconds=3.1)
        outcome = mgc("reproduce", TINY.id, "--dataset", lone, "--scheduler", scheduler, "--data-dir", data)
        assert outcome.code == 1
        assert "only tracks of blues to train on" in outcome.error

    @pytest.mark.slow
    def test_one_error_does_not_keep_others_from_their_results(
        self, reproduce: Any, data: Path, monkeypatch: pytest.MonkeyPatch
    ):
        deep = dataclasses.replace(LEAKING, id="test/deep", input=dataclasses.replace(TINY.input, min_frames=1000))
        monkeypatch.setitem(systems._systems, deep.id, deep)
        monkeypatch.setattr(systems, "ids", lambda: [deep.id, TINY.id])
        outcome = reproduce("test", "--protocol", "leak-free")
        assert outcome.code == 1
        assert "needs slices of at least 1000 frames" in outcome.err
        assert "1 of 2 are not reproduced: test/deep, leak-free split, seed 0" in outcome.err
        assert [line["system"] for line in lines(data)] == [TINY.id]

    def test_no_results(self, data: Path):
        outcome = mgc("reproduce", "--table", "--data-dir", data)
        assert (outcome.code, "no result; make one" in outcome.error) == (1, True)


@pytest.mark.slow
def test_lines_of_other_programs_do_no_harm(reproduce: Any, data: Path):
    (data / "results.jsonl").write_text('{"format": 1, "key": "cut o\nnot JSON\n[]\n{"format": 99}')
    assert reproduce(TINY.id).code == 0
    text = (data / "results.jsonl").read_text()
    assert len(text.splitlines()) == 5
    assert [result["system"] for result in results.read(Workspace(data))] == [TINY.id]


APPENDING = """
import sys
from pathlib import Path
from mgc.models.reproduction import results
from mgc.pipeline.workspace import Workspace

folder, name = sys.argv[1:]
for number in range(20):
    results.append(Workspace(Path(folder)), {"format": 1, "key": f"{name}{number}", "filling": name * 5000})
"""


def test_processes_do_not_mix_their_lines(tmp_path: Path):
    writers = [subprocess.Popen([sys.executable, "-c", APPENDING, tmp_path, name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    keys = [line["key"] for line in lines(tmp_path)]
    assert sorted(keys) == sorted(f"{name}{number}" for name in "ab" for number in range(20))


KILLED = """
import os, signal, sys
sys.path.insert(0, {here!r})
import torch
from tiny import TINY
from mgc import cli
from mgc.models.registry import systems
from mgc.models.reproduction import reproduce, results
from mgc.models.runs.run import Run
from mgc.models.training import checkpoint, loop

torch.set_num_threads(1)
systems._systems[TINY.id] = TINY

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

{how}
cli.main({words!r})
"""

DEATHS = {
    "in the training": """
loop.CHECKPOINT_SECONDS = 0.0
whole = checkpoint.save
checkpoint.save = lambda run, learner, progress, name: (
    whole(run, learner, progress, name), progress.epoch == 2 and kill()
)
""",
    "before the training": "reproduce.Reproducer._train = kill",
    "before the evaluation": "reproduce.evaluate = kill",
    "before the result": "results.append = kill",
    "within the result": """
whole = results.files.replace_file
results.files.replace_file = lambda temporary, path: (path.name == "results.jsonl" and kill(), whole(temporary, path))
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("death", DEATHS)
def test_the_same_command_continues_after_a_kill(death: str, reproduce: Any, data: Path, songs: Path):
    words = ["reproduce", TINY.id, "--dataset", str(songs), "--epochs", "3", "--data-dir", str(data)]
    here = str(Path(__file__).parents[2] / "support")
    command = [sys.executable, "-c", KILLED.format(here=here, how=DEATHS[death], words=words)]
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
    begun = list((data / "runs").glob("*")) if (data / "runs").exists() else []
    assert not results.read(Workspace(data))
    outcome = mgc(*words)
    assert outcome.code == 0, outcome.err
    (result,) = lines(data)
    assert result["epochs"] == 3
    assert len(list((data / "runs").glob("*"))) == 1
    if begun:
        assert data / result["run"] == begun[0]
        assert "continued: " in outcome.out
    assert json.loads(Run.open(data / result["run"]).read("metrics.json"))["evaluations"] == 1


@pytest.mark.slow
def test_a_job_that_another_process_works_on_is_left_to_it(reproduce: Any, data: Path):
    import filelock

    assert reproduce(TINY.id).code == 0
    (lock,) = (data / ".reproductions").glob("*.lock")
    with filelock.FileLock(lock):
        outcome = reproduce(TINY.id, "--redo")
    assert (outcome.code, "another process works on it" in outcome.error) == (1, True)
    assert len(lines(data)) == 1
