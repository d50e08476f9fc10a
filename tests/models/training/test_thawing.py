"""`--thaw`: which blocks are trained when, what stays frozen, and that an interruption changes nothing."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from stores import make_store
from tiny import TINY
from torch import Tensor, nn

from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.training import thawing
from mgc.models.training.optim import LOSSES
from mgc.models.training.options import Options
from mgc.models.training.train import resume, train
from mgc.pipeline.errors import SpecError
from mgc.pipeline.store.store import Store

#: Three blocks, one more every two epochs, with moments, momentum and an average of the weights.
OPTIONS: dict[str, Any] = {"model": TINY.id, "loop": {"thaw": 2, "ema": 0.9}, "epochs": 5, "keep_last": True}


@pytest.mark.parametrize(
    ("every", "expected"), [(0, [3, 3, 3, 3, 3]), (1, [1, 2, 3, 3, 3]), (2, [1, 1, 2, 2, 3]), (9, [1, 1, 1, 1, 1])]
)
def test_one_more_block_every_so_many_epochs(every: int, expected: list[int]) -> None:
    assert [thawing.n_thawed(3, every, epoch) for epoch in range(5)] == expected
    model = TINY.build(3)
    conv, norm, head = model[0], model[1], model[6]
    assert thawing.blocks(model) == [conv, norm, head]
    for epoch, n in enumerate(expected):
        assert thawing.set_training(model, every, epoch) == n
        for block, trained in zip((conv, norm, head), [n == 3, n >= 2, True], strict=True):
            assert block.training == trained
            assert all(weight.requires_grad == trained for weight in block.parameters())
        assert model[5].training  # dropout has no weights


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("stores") / "mel")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setitem(systems._systems, TINY.id, TINY)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    torch.save(TINY.build(5).state_dict(), tmp_path / "pretrained.pt")
    return tmp_path / "pretrained.pt"


def trained(store: Store, folder: Path, file: Path, **options: Any) -> Run:
    return train([store], Options(**OPTIONS | {"weights": file} | options), folder, lambda line: None)


def changed(run: Run, file: Path) -> set[str]:
    """Tensors of the last update that are not those of the file; the counters of batch norms aside."""
    last, first = run.load("last.pt")["model"], torch.load(file, weights_only=True)
    return {
        name
        for name, value in last.items()
        if "num_batches" not in name and (value.shape != first[name].shape or not torch.equal(value, first[name]))
    }


def test_frozen_blocks_stay_as_they_were(store: Store, tmp_path: Path, file: Path) -> None:
    head = {"6.weight", "6.bias"}
    norm = {"1.weight", "1.bias", "1.running_mean", "1.running_var"}
    for every, expected in ((2, head), (1, head | norm)):
        run = trained(store, tmp_path / str(every), file, epochs=2, loop={"thaw": every})
        assert changed(run, file) == expected
    assert run.config["training"]["loop"]["thaw"] == 1
    assert "thaw 1 for 0" in run.config["differences"]
    with pytest.raises(
        SpecError, match="--thaw 2 without --weights: the frozen layers would stay random; name weights"
    ):
        train([store], Options(**OPTIONS), tmp_path / "none", lambda line: None)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "step", [pytest.param(4, marks=pytest.mark.slow), 22, pytest.param(40, marks=pytest.mark.slow)]
)
def test_an_interruption_changes_no_weight(
    store: Store, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Nine updates an epoch: in the epochs of the first, the second and the third block."""
    whole = trained(store, tmp_path / "whole", file)
    steps = iter(range(1, 1000))

    def loss(logits: Tensor, labels: Tensor, **settings: Any) -> Tensor:
        if logits.requires_grad and next(steps) == step:
            signal.raise_signal(signal.SIGINT)
        return nn.functional.cross_entropy(logits, labels, **settings)

    with monkeypatch.context() as patch:
        patch.setitem(LOSSES, "cross-entropy", loss)
        with pytest.raises(KeyboardInterrupt):
            trained(store, tmp_path / "parts", file)
    (path,) = (tmp_path / "parts").iterdir()
    run = Run.open(path)
    progress = run.load("last.pt")["progress"]
    assert progress["epoch"] * 9 + progress["batch"] == step
    resume(run, echo=lambda line: None)
    assert "0.weight" in changed(run, file)
    for name in ("best.pt", "last.pt"):
        ours, theirs = run.load(name)["model"], whole.load(name)["model"]
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
