"""mgc/cnn in the training loop: it learns, and a resumed run ends with the same weights despite its random layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stores import make_store

from mgc.models.runs.run import Run
from mgc.models.training.learner import Learner
from mgc.models.training.options import Options
from mgc.models.training.train import resume, train
from mgc.pipeline.features import Mel
from mgc.pipeline.store.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    torch.set_num_threads(1)
    return make_store(tmp_path_factory.mktemp("stores") / "mel", Mel(), seconds=(6.0,))


@pytest.fixture(scope="module")
def whole(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(store, tmp_path_factory.mktemp("runs"))


def trained(store: Store, folder: Path) -> Run:
    options = Options("mgc/cnn", epochs=3, batch_size=16, keep_last=True)
    return train([store], options, folder, echo=lambda text: None)


def test_it_learns(whole: Run) -> None:
    losses = [entry["train_loss"] for entry in whole.history]
    assert losses[-1] < 0.8 * losses[0]
    assert whole.history[-1]["validation_accuracy"] > 0.5  # two genres or more, told apart by their levels


def test_an_interrupted_run_continues_to_the_same_weights(
    store: Store, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, n_updates = Learner.update, 0

    def interrupt(*arguments: object) -> object:
        nonlocal n_updates
        n_updates += 1
        if n_updates == 5:
            raise KeyboardInterrupt
        return update(*arguments)

    monkeypatch.setattr(Learner, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trained(store, tmp_path)
    monkeypatch.undo()
    (path,) = tmp_path.iterdir()
    run = Run.open(path)
    assert not run.finished
    resume(run, echo=lambda text: None)
    assert n_updates == 5
    for name in ("best.pt", "last.pt"):
        state, expected = run.load(name)["model"], whole.load(name)["model"]
        assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_the_last_epoch_is_kept(whole: Run) -> None:
    assert whole.config["training"]["loop"]["select"] == "last"
    assert whole.load("best.pt")["epoch"] == whole.summary["best_epoch"] == 3
