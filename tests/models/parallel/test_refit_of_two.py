"""The refit by two processes: both models, and the same weights after Ctrl-C and the death of a process."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from commands import MGC, mgc, tree
from stores import make_store

from mgc.models.runs.run import Run
from mgc.models.training.fitting import REFIT_STATE
from mgc.models.training.predict import predict
from mgc.pipeline.features import Mel
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

EPOCHS = 16


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("stores") / "mel", Mel(dtype="float32"), Slicing(seconds=3.0))


class Training:
    """`mgc train` by two processes, in a workspace with one run.

    Args:
        workspace: the workspace; the output is kept there.
        words: further words of the command.
    """

    def __init__(self, workspace: Path, *words: object) -> None:
        self.workspace = workspace
        workspace.mkdir(exist_ok=True)
        self._out, self._err = workspace / "out.txt", workspace / "err.txt"
        command = [str(MGC), "train", "--nproc", "2", "--data-dir", str(workspace), *map(str, words)]
        with self._out.open("w") as out, self._err.open("w") as err:
            self._process = subprocess.Popen(command, stdout=out, stderr=err)

    @property
    def checkpoint(self) -> tuple[int, ...]:
        """What tells one checkpoint of the refit from another; empty while there is none."""
        return tuple(path.stat().st_mtime_ns for path in self.workspace.glob(f"runs/*/{REFIT_STATE}"))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            assert self._process.poll() is None, self._err.read_text()
            time.sleep(0.01)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def kill(self, rank: int) -> None:
        """Kill one of the two processes."""
        processes = psutil.Process(self._process.pid).children()
        (found,) = (process for process in processes if process.environ()["RANK"] == str(rank))
        found.kill()

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; return exit code, stdout and stderr."""
        code = self._process.wait(timeout=120)
        return code, self._out.read_text(), self._err.read_text()


def run_in(workspace: Path) -> Run:
    (path,) = (workspace / "runs").iterdir()
    return Run.open(path)


@pytest.mark.slow
def test_ctrl_c_and_a_kill_in_a_refit_by_two_processes_change_no_weights(store: Store, tmp_path: Path) -> None:
    command = ("--model", "mgc/cnn", "--store", store.path, "--epochs", EPOCHS, "--seed", 1, "--keep-last")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    code, out, err = Training(whole, *command).end()
    assert code == 0, err
    assert "refit: 120 slices of 24 tracks, those for validation among them" in out

    training = Training(parts, *command)
    training.wait_until(lambda: bool(training.checkpoint))
    training.interrupt()
    code, out, err = training.end()
    assert (code, err.startswith("error: interrupted")) == (130, True), err
    assert "saved in refit, epoch " in out
    run = run_in(parts)
    first_model = run.read("best.pt"), run.read("history.jsonl")

    training = Training(parts, "--resume")
    before = training.checkpoint
    training.wait_until(lambda: training.checkpoint != before)
    training.kill(1)
    code, out, err = training.end()
    assert (code, err) == (
        1,
        f"run: {run.path}\nerror: process 2 of 2 was ended by SIGKILL; "
        "`mgc train --resume` goes on from the last checkpoint\n",
    )
    assert "continues in refit, epoch " in out
    assert not run.finished

    code, out, err = Training(parts, "--resume").end()
    assert code == 0, err
    assert "continues in refit, epoch " in out
    assert (run.read("best.pt"), run.read("history.jsonl")) == first_model  # it is not trained again

    expected = run_in(whole)
    assert tree(run.path).keys() == tree(expected.path).keys()
    for name in ("best.pt", "refit.pt"):
        state, wanted = run.load(name), expected.load(name)
        assert state["epoch"] == wanted["epoch"] == EPOCHS
        torch.testing.assert_close(state["model"], wanted["model"], atol=0, rtol=0)
    first, second = (expected.load(name)["model"] for name in ("best.pt", "refit.pt"))
    assert not all(torch.equal(first[key], second[key]) for key in first)
    assert expected.summary["refit"] == run.summary["refit"]
    assert expected.summary["refit"].items() >= {"slices": 120, "tracks": 24}.items()

    accuracies = {}
    for split in ("validation", "test"):
        assert predict(run, split=split, device="cpu") == predict(expected, split=split, device="cpu")
        outcome = mgc("evaluate", run.path, "--split", split, "--json")
        assert outcome.code == 0, outcome.err
        accuracies[split] = outcome.json["by_track"]["accuracy"]
    assert accuracies["validation"] == run.summary["best"]["validation_track_accuracy"]
    assert accuracies["test"] > 0.5  # genres are loud in different bands, and chance is a third
