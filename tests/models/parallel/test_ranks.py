"""Two processes that train one network, on the CPU: same results as one process, errors, interruption and resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import MGC, mgc
from pair import PLAIN, PRETRAINED, STOPPED
from stores import make_store
from tiny import TINY

from mgc.models.data.stream import Batch
from mgc.models.network import Network
from mgc.models.parallel import launcher, ranks
from mgc.models.parallel.ranks import SINGLE_PROCESS, Ranks
from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.training.assembly import open_run, training_recipe
from mgc.models.training.learner import Learner
from mgc.models.training.optim import balanced_class_weights
from mgc.models.training.preparation import prepare
from mgc.models.training.train import Options, resume
from mgc.models.training.validation import validate
from mgc.pipeline.errors import MgcError, ModelError, RunError, SpecError
from mgc.pipeline.features import Mel
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

N_SLICES = 145  # odd, so that the parts of the two processes differ in size
STEPS = 10


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for system in (TINY, PLAIN):
        monkeypatch.setitem(systems._systems, system.id, system)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    # float32: for quantised levels each process would import librosa, which takes seconds.
    spec = Mel(n_mels=8, n_fft=512, dtype="float32")
    return make_store(tmp_path_factory.mktemp("stores") / "mel", spec, seconds=(*[9.0] * 17, 10.0))


@pytest.fixture(scope="module")
def pair(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the results of `pair.py` in two processes, the second of which kills itself in the end."""
    folder = tmp_path_factory.mktemp("pair")
    script = Path(__file__).parents[2] / "support" / "pair.py"
    torch.save(PLAIN.build(5).state_dict(), folder / PRETRAINED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(script.parent))
        with pytest.raises(RunError, match=r"^process 2 of 2 was ended by SIGKILL; `mgc train --resume` goes on"):
            launcher.launch([sys.executable, str(script), str(store.path), str(folder)], 2)
    return folder


def run_of(pair: Path, name: str) -> Run:
    (path,) = (pair / name).iterdir()
    return Run.open(path)


def results(pair: Path, name: str) -> list[Any]:
    """The JSON file of each rank."""
    return [json.loads((pair / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_two_processes_see_each_slice_once_an_epoch(pair: Path) -> None:
    first, second = results(pair, "rows")
    assert len(first) == len(second) == 2 * STEPS
    assert any(len(one) != len(other) for one, other in zip(first, second, strict=True))
    for epoch in range(2):
        sets = [
            [row for batch in batches[epoch * STEPS : (epoch + 1) * STEPS] for row in batch]
            for batches in (first, second)
        ]
        assert sorted(sets[0] + sets[1]) == list(range(N_SLICES))
    assert first[:STEPS] != first[STEPS:]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "thawed"])
def test_two_processes_learn_what_one_does_from_the_same_batches(pair: Path, store: Store, name: str) -> None:
    run = run_of(pair, name)
    assert run.config["processes"] == 2
    parts = [open_run(run, [store], Ranks(rank, 2)).training for rank in (0, 1)]
    data = open_run(run, [store])
    whole, validation = data.training, data.validation
    recipe = training_recipe(run)
    network = Network(PLAIN, [store.spec], 3)
    if name == "thawed":
        pretrained = torch.load(pair / PRETRAINED, weights_only=True)
        network.model[0].load_state_dict({key: pretrained[f"0.{key}"] for key in ("weight", "bias")})
    network.fit_standardisers(whole.stream)
    learner = Learner(network, recipe, STEPS, balanced_class_weights(whole.stream.labels, 3, torch.device("cpu")))
    for epoch in range(2):
        learner.train(epoch)
        losses, correct = [], 0
        for one, other in zip(*(part.stream.batches(epoch) for part in parts), strict=True):
            joined = Batch(
                torch.cat([one.frames, other.frames]), torch.cat([one.labels, other.labels]),
                np.concatenate([one.rows, other.rows]), np.concatenate([one.draws, other.draws]), one.number,
            )  # fmt: skip
            loss, batch_correct = learner.update(joined, epoch).read()
            losses.append(loss * len(joined.rows))
            correct += batch_correct
        entry = run.history[epoch]
        assert entry["train_loss"] == pytest.approx(sum(losses) / N_SLICES, rel=1e-4)
        assert entry["train_accuracy"] == pytest.approx(correct / N_SLICES, abs=1.5 / N_SLICES)
        scores = validate(network, recipe, validation)
        assert entry["validation_loss"] == pytest.approx(scores["loss"], rel=1e-4)
    checkpoint = run.load("last.pt")
    for key, expected in network.model.state_dict().items():
        torch.testing.assert_close(checkpoint["model"][key], expected, atol=2e-5, rtol=1e-3)
    torch.testing.assert_close(checkpoint["inputs"], network.inputs.state_dict(), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "system"), [("plain", PLAIN), ("whole", TINY)])
def test_scores_are_those_of_one_process(pair: Path, store: Store, name: str, system: systems.System) -> None:
    run = run_of(pair, name)
    validation = open_run(run, [store]).validation
    network = Network(system, [store.spec], 3)
    network.load(run.load("best.pt"))
    scores = validate(network, training_recipe(run), validation)
    for metric in ("accuracy", "track_accuracy"):
        assert run.summary["best"][f"validation_{metric}"] == scores[metric]
    assert run.summary["best"]["validation_loss"] == pytest.approx(scores["loss"], rel=1e-5)


@pytest.mark.slow
def test_ctrl_c_in_one_stops_both_and_resume_gives_the_same_bits(pair: Path) -> None:
    assert [ended["parts"] for ended in results(pair, "ended")] == ["finished", "finished"]  # after the resume
    whole, parts = run_of(pair, "whole"), run_of(pair, "parts")
    expected, resumed = whole.load("last.pt"), parts.load("last.pt")
    assert len(expected["others"]) == 1
    assert not torch.equal(expected["others"][0]["cpu"], expected["random"]["cpu"])  # each has its own dropout
    for name in ("model", "averaged", "random"):
        torch.testing.assert_close(resumed[name], expected[name], atol=0, rtol=0)
    torch.testing.assert_close(resumed["others"], expected["others"], atol=0, rtol=0)
    histories = [[{**epoch, "seconds": None} for epoch in run.history] for run in (whole, parts)]
    assert histories[0] == histories[1]
    stopped = json.loads((pair / "stopped.json").read_text())
    assert stopped["epoch"] * STEPS + stopped["batch"] == STOPPED


@pytest.mark.slow
def test_an_error_in_one_stops_both(pair: Path, store: Store) -> None:
    ended = results(pair, "ended")
    assert ended[0]["nan"] == ended[1]["nan"]
    assert ended[0]["nan"].startswith("RunError: the loss became nan in epoch 1, step 5, on the slices in ")
    run = run_of(pair, "nan")
    report = json.loads((run.path / "not-finite.json").read_text())
    parts = [open_run(run, [store], Ranks(rank, 2)).training for rank in (0, 1)]
    rows = np.concatenate([list(part.stream.batches(0))[4].rows for part in parts])
    table = parts[0].slices.select(["track_id", "variant", "start_s"])
    assert report["slices"] == table.take(rows).to_pylist()
    assert ended[0]["damaged"] == ended[1]["damaged"] == "StoreError: 00003.zarr: damaged; repair it"
    assert run_of(pair, "damaged").load("last.pt")["progress"]["epoch"] == 1
    assert "dead" not in ended[0]  # it exited at once, and the launcher reported the error
    assert not run_of(pair, "dead").finished


@pytest.mark.slow
def test_a_run_is_resumed_by_as_many_processes_as_it_began_with(pair: Path) -> None:
    run = run_of(pair, "damaged")
    with pytest.raises(RunError, match=r"started with --nproc 2, and this is --nproc 1; continue it with --nproc 2"):
        resume(run, echo=lambda text: None)


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "options", "problem"),
    [
        (2, {"model": "kth2020/knn"}, "--nproc 2: kth2020/knn is fitted in one step"),
        (
            5,
            {"model": "kth2020/cnn", "batch_size": 20},
            "--nproc 5: 6 validation tracks are fewer than 2 for each process",
        ),
        (2, {"model": "kth2020/cnn", "batch_size": 7}, "--nproc 2: 7 slices per update are fewer than 4 for each"),
        (2, {"model": "kth2020/cnn", "skip_damaged": True}, "--nproc 2 does not go with --skip-damaged"),
    ],
)
def test_work_that_processes_cannot_share(tmp_path: Path, size: int, options: dict[str, Any], problem: str) -> None:
    store = make_store(tmp_path / "store", Mel(), Slicing(seconds=3.0))
    kind = ModelError if "tracks" in problem else SpecError
    with pytest.raises(kind, match=problem):
        prepare([store], Options(**options), tmp_path / "runs", ranks=Ranks(size=size))
    assert not (tmp_path / "runs").exists()


def test_options_that_contradict_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = mgc("train", "--find-lr", "--nproc", 2)
    assert (outcome.code, outcome.error) == (2, "--nproc 2: one process finds the learning rate; leave out --nproc")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    outcome = mgc("train", "--nproc", 2)
    assert (outcome.code, outcome.error) == (2, "--nproc 2: this is one of 3 processes; leave the option out")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with ranks.join() as processes:
        assert processes is SINGLE_PROCESS


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    processes = Ranks(size=2, local_size=2)
    with pytest.raises(MgcError, match=r"--nproc 2: this machine has 1 GPU; leave --nproc out"):
        processes.device("cuda")
    with pytest.raises(SpecError, match=r"--device cuda:1: each of 2 processes needs its own GPU"):
        processes.device("cuda:1")
    assert processes.device("cpu").type == "cpu"
    assert SINGLE_PROCESS.device("cuda:1").index == 1
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert Ranks(3, 4, local_rank=1, local_size=2).device("cuda") == torch.device("cuda", 1) == chosen[0]


def test_reseed_gives_each_process_other_random_numbers() -> None:
    drawn = []
    for rank in range(3):
        torch.manual_seed(7)
        Ranks(rank, 3).reseed(7)
        drawn.append(torch.rand(4).tolist())
    torch.manual_seed(7)
    assert drawn[0] == torch.rand(4).tolist()
    assert len({tuple(one) for one in drawn}) == 3


# -- the commands -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_and_torchrun(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", Mel(dtype="float32"), Slicing(seconds=3.0))
    here = ["--data-dir", str(tmp_path)]
    command = [str(MGC), "train", "--nproc", "2", "--model", "vit2021/cnn", "--epochs", "400", "--patience", "400"]
    group: dict[str, Any] = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "process_group": 0}
    with subprocess.Popen([*command, "--store", str(store.path), *here], **group) as running:
        assert running.stdout
        out = ""
        while "epoch " not in (line := running.stdout.readline()):
            assert line, running.communicate()[1]
            out += line
        running.send_signal(signal.SIGINT)
        rest, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "2 processes, each on cpu" in out
    assert err.splitlines()[-1].startswith("error: interrupted")
    assert len(err.splitlines()) == 1, err
    with pytest.raises(ProcessLookupError):
        os.killpg(running.pid, 0)
    (path,) = (tmp_path / "runs").iterdir()
    assert f"`mgc train --resume --run {path}` goes on from there" in rest
    config = json.loads((path / "config.json").read_text())
    config["training"]["epochs"] = Run.open(path).load("last.pt")["progress"]["epoch"] + 1
    (path / "config.json").write_text(json.dumps(config))
    (path / "sealed.json").unlink()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "mgc"]
    outcome = subprocess.run(
        [*torchrun, "train", "--resume", *here],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.count("validation accuracy ") == 1  # only rank 0 prints
    assert Run.open(path).finished
    assert len(Run.open(path).history) == config["training"]["epochs"]
