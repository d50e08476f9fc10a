"""Options of `mgc train`: every setting, several seeds, the learning rate finder, and Ctrl-C."""

from __future__ import annotations

import dataclasses
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import mgc
from stores import make_store
from tiny import TINY

from mgc.models.registry import systems
from mgc.models.registry.settings import Loop, loop_settings
from mgc.models.runs.run import Run
from mgc.models.training import rate_finder, repeats
from mgc.models.training.optim import LOSSES
from mgc.pipeline.errors import RunError, SpecError
from mgc.pipeline.store.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("stores") / "mel")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(systems._systems, TINY.id, TINY)
    torch.set_num_threads(1)


def train(store: Store, data: Path, *words: object) -> Any:
    return mgc("train", "--model", TINY.id, "--store", store.path, "--data-dir", data, *words)


LOOP = Loop(
    schedule="cosine", plateau_factor=0.3, plateau_patience=4, warmup=3, label_smoothing=0.2, class_weights=True,
    clip=2.0, ema=0.5, amp="bf16", channels_last=False, compile=False, balance="track", crop=True,
    select="last",
)  # fmt: skip


def words(name: str, value: object) -> list[str]:
    option = name.replace("_", "-")
    return [f"--{option}" if value else f"--no-{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]


def test_every_setting_is_an_option_and_in_the_configuration(store: Store, tmp_path: Path) -> None:
    assert [setting.name for setting in loop_settings()] == [field.name for field in dataclasses.fields(Loop)]
    loop = [word for name, value in dataclasses.asdict(LOOP).items() for word in words(name, value)]
    own = ["--optimizer", "sgd", "--weight-decay", 0.01, "--monitor", "track_accuracy", "--patience", 1, "--epochs", 2]
    outcome = train(store, tmp_path, *own, *loop, "--residency", "stream", "--skip-damaged", "--tensorboard")
    assert outcome.code == 0, outcome.err
    assert "streamed from disk (--residency stream)" in outcome.out
    (path,) = (tmp_path / "runs").glob("*-test-tiny")
    config = Run.open(path).config
    assert config["training"]["loop"] == dataclasses.asdict(LOOP)
    assert config["training"]["optimizer"] == {
        "name": "sgd", "lr": 0.01, "eps": None, "betas": None, "rho": None, "momentum": 0.9, "decay": 0.01,
        "weight_decay": 0.01,
    }  # fmt: skip
    assert [config["training"][name] for name in ("monitor", "patience", "epochs")] == ["track_accuracy", 1, 2]
    assert (config["residency"], config["skip_damaged"]) == ("stream", True)
    assert {"optimiser sgd for adam", "monitored track_accuracy for loss"} < set(config["differences"])
    assert f"curves: {path / 'curves.png'}" in outcome.out
    assert (path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(path.glob("events/events.out.tfevents.*"))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ema", 1], "--ema 1; it must be at least 0 and less than 1"),
        (["--label-smoothing", -0.1], "--label-smoothing -0.1; it must be at least 0 and less than 1"),
        (["--plateau-factor", 1], "--plateau-factor 1; it must be between 0 and 1"),
        (["--clip", "nan"], "--clip nan; it must be 0 or a positive number"),
        (["--weight-decay", -1], "--weight-decay -1; it must be 0 or a positive number"),
        (["--amp", "fp16", "--device", "cpu"], "--amp fp16 needs a CUDA GPU, and this trains on cpu; choose bf16 or"),
        (["--seeds", "0,x"], "--seeds 0,x; write different whole numbers, such as 0,1,2"),
        (["--find-lr", "--evaluate"], "--evaluate tests runs, and --find-lr trains none; leave one of them out"),
        (["--seeds", "0,1", "--seed", 2], "--seeds names seeds to train with; leave out --seed and --find-lr"),
    ],
)
def test_errors(store: Store, tmp_path: Path, options: list[object], message: str) -> None:
    outcome = train(store, tmp_path, *options)
    assert outcome.code == 2
    assert outcome.error.startswith(message)
    assert not (tmp_path / "runs").exists()


def test_classical_systems_have_no_loop_settings(store: Store, tmp_path: Path) -> None:
    for option in (["--clip", 1], ["--skip-damaged"], ["--monitor", "loss"]):
        outcome = mgc("train", "--model", "kth2020/knn", "--store", store.path, "--data-dir", tmp_path, *option)
        assert outcome.error == f"{option[0]}: kth2020/knn is fitted in one step; leave the option out"


@pytest.mark.slow
def test_several_seeds_and_their_spread(store: Store, tmp_path: Path) -> None:
    outcome = train(store, tmp_path, "--seeds", "3,5", "--epochs", 1, "--lr", 0.0005)
    assert outcome.code == 0, outcome.err
    runs = sorted((Run.open(path) for path in (tmp_path / "runs").glob("*-tiny*")), key=lambda run: run.config["seed"])
    assert [run.config["seed"] for run in runs] == [3, 5]
    first, second = (100 * run.summary["best"]["validation_accuracy"] for run in runs)
    printed = re.search(r"by slice of 2 seeds: (\S+) % ± (\S+) \((\S+) to (\S+)\)", outcome.out)
    assert printed is not None
    expected = [(first + second) / 2, abs(first - second) / 2**0.5, min(first, second), max(first, second)]
    assert [float(value) for value in printed.groups()] == pytest.approx(expected, abs=0.051)
    assert outcome.out.endswith(f"\nto test them:\nmgc evaluate {runs[0].path} {runs[1].path}\n")
    assert not any((run.path / "metrics.json").exists() for run in runs)


def test_a_system_without_random_numbers_is_trained_once(store: Store, tmp_path: Path) -> None:
    here = ("--model", "moments/logreg", "--store", store.path, "--data-dir", tmp_path)
    outcome = mgc("train", "--seeds", "4,1,2", *here)
    assert outcome.code == 0, outcome.err
    said = "--seeds 4,1,2: moments/logreg does not depend on the seed, it is trained once"
    assert outcome.out.splitlines()[0] == said
    (run,) = (tmp_path / "runs").iterdir()
    assert f"run: {run}; `mgc evaluate --by-genre` tests it" in outcome.out
    # The seed chooses the tracks.
    outcome = mgc("train", "--seeds", "0,1", "--limit-tracks", 3, *here, "--evaluate")
    assert outcome.code == 0, outcome.err
    assert "does not depend" not in outcome.out
    assert len(list((tmp_path / "runs").iterdir())) == 3
    assert re.search(r"\ntest accuracy by track of 2 seeds: \S+ % ± \S+ \(\S+ to \S+\): \S+, \S+\n", outcome.out)


def test_parse_seeds() -> None:
    for text in ("", "1,1", "-1", "1,,2", "01,1"):
        with pytest.raises(SpecError, match="--seeds"):
            repeats.parse(text)
    assert repeats.parse("2, 10") == (2, 10)


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_and_130(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter(range(1, 1000))

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if next(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        return torch.nn.functional.cross_entropy(logits, labels)

    monkeypatch.setitem(LOSSES, "cross-entropy", loss)
    outcome = train(store, tmp_path, "--seeds", "0,7,8", "--epochs", 1)
    assert outcome.code == 130
    assert outcome.error.startswith("interrupted; finished work is kept")
    assert "seeds that are left: 7,8" in outcome.out
    (path,) = (tmp_path / "runs").glob("*-test-tiny")
    assert Run.open(path).load("last.pt")["progress"]["batch"] == 3
    monkeypatch.undo()
    monkeypatch.setitem(systems._systems, TINY.id, TINY)
    assert mgc("train", "--resume", "--data-dir", tmp_path).code == 0
    assert Run.open(path).finished


# -- the learning rate finder -----------------------------------------------------------------------------------------


def test_the_steepest_rate_is_where_the_loss_falls_fastest() -> None:
    rates = np.geomspace(1e-7, 1.0, 200)
    falls = 2 / (1 + np.exp(3 * np.log(rates / 3e-4)))  # steepest at 3e-4
    losses = falls + 5 * rates**2  # rises at the end
    assert rate_finder.steepest(rates, losses) == pytest.approx(3e-4, rel=0.1)
    with pytest.raises(RunError, match="does not fall"):
        rate_finder.steepest(rates, np.linspace(1, 2, 200))


def test_it_finds_a_rate_and_leaves_no_run(store: Store, tmp_path: Path) -> None:
    outcome = train(store, tmp_path, "--find-lr")
    assert outcome.code == 0, outcome.err
    printed = re.search(r"the loss falls fastest at (\S+); try --lr (\S+)$", outcome.out.strip())
    assert printed is not None
    assert 1e-4 < float(printed[1]) < 0.3  # the recipe's rate is 0.01
    assert not (tmp_path / "runs").exists()
    assert (
        "kth2020/knn is fitted in one step"
        in mgc("train", "--model", "kth2020/knn", "--store", store.path, "--data-dir", tmp_path, "--find-lr").err
    )
