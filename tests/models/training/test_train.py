"""Training: accuracy and history of a run, bit-identical repetition and resumption, and errors."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from commands import tree
from stores import GENRES, make_store
from tiny import TINY
from torch import Tensor

from mgc.models.data import split_data
from mgc.models.parallel.transfer import Transfer
from mgc.models.registry import systems
from mgc.models.registry.augmentation import Augmentation
from mgc.models.registry.settings import Loop
from mgc.models.runs import seal
from mgc.models.runs.run import Run
from mgc.models.training import loop, progress
from mgc.models.training.assembly import open_run
from mgc.models.training.learner import Learner, Outcome
from mgc.models.training.optim import LOSSES
from mgc.models.training.predict import predict
from mgc.models.training.preparation import prepare
from mgc.models.training.train import Options, resume, train
from mgc.models.training.validation import accuracies
from mgc.pipeline.errors import ModelError, RunError, SpecError, StoreError
from mgc.pipeline.features import Mel
from mgc.pipeline.storage.remote import RemotePath
from mgc.pipeline.store.cuts import with_cut
from mgc.pipeline.store.manifest import publish
from mgc.pipeline.store.recut import change_cuts, reslice
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

CHANCE = 1 / len(GENRES)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(systems._systems, TINY.id, TINY)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("stores") / "mel")


@pytest.fixture(scope="module")
def reference(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems._systems, TINY.id, TINY)
        torch.set_num_threads(1)
        return quiet(store, tmp_path_factory.mktemp("runs"))


def quiet(store: Store, folder: Path, **options: object) -> Run:
    return train([store], Options(**{"model": TINY.id, "keep_last": True, **options}), folder, echo=lambda text: None)


def printed_by(store: Store, folder: Path, **options: object) -> str:
    lines: list[str] = []
    train([store], Options(**{"model": TINY.id, **options}), folder, echo=lines.append)
    return "\n".join(lines)


def assert_same_weights(run: Run, expected: Run) -> None:
    for name in ("best.pt", "last.pt"):
        weights, expected_weights = run.load(name)["model"], expected.load(name)["model"]
        assert weights.keys() == expected_weights.keys()
        for key in weights:
            assert torch.equal(weights[key], expected_weights[key]), f"{name}: {key}"
    histories = [[{**epoch, "seconds": None} for epoch in each.history] for each in (run, expected)]
    assert histories[0] == histories[1]


# -- what it trains on -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_cut_that_it_trains_on_is_said_and_recorded(tmp_path: Path) -> None:
    """The recipe's, 2 s with half overlap, is taken unasked only if `mgc extract --for` made it for the system."""
    store = make_store(tmp_path / "store", slicing=Slicing(seconds=3.0))
    lines: list[str] = []

    def trained(**options: object) -> tuple[Slicing, str]:
        run = prepare(
            [Store.open(store.path)], Options(**{"model": TINY.id} | options), tmp_path / "runs", lines.append
        )
        return run.slicing, lines[-1]

    assert trained() == (Slicing(seconds=3.0), "cut: 3s-50 (slices of 3 s, 50% overlap), the default")
    change_cuts(store, lambda cuts: with_cut(cuts, Slicing(seconds=2.0)))
    default = "cut: 3s-50 (slices of 3 s, 50% overlap), the default; others: 2s-50 (--cut NAME)"
    assert trained() == (Slicing(seconds=3.0), default)
    assert trained(cut="2s-50") == (Slicing(seconds=2.0), "cut: 2s-50 (slices of 2 s, 50% overlap)")
    change_cuts(store, lambda cuts: with_cut(cuts, Slicing(seconds=2.0), system="test"))
    slicing, line = trained()
    assert slicing == Slicing(seconds=2.0)
    made = "cut: 2s-50 (slices of 2 s, 50% overlap), made by `mgc extract --for`; "
    assert line == made + "--cut 3s-50 takes the default, 3 s, 50 %"
    assert trained(cut="3s-50")[0] == Slicing(seconds=3.0)
    assert trained(as_sliced=True)[1] == "cut: slices of 2 s, 50% overlap, as studied"
    with pytest.raises(StoreError, match=r"store: no cut is called 9s; choose from 3s-50 \(the default\), 2s-50"):
        trained(cut="9s")
    with pytest.raises(SpecError, match="--cut 2s-50: --recipe cuts as the study did"):
        trained(cut="2s-50", as_sliced=True)


@pytest.mark.slow
def test_a_cut_has_its_own_tracks(tmp_path: Path) -> None:
    """Half of the tracks are too short for the default, which drops them in the manifest, and not for the other cut."""
    store = make_store(tmp_path / "store", slicing=Slicing(seconds=3.0), seconds=(9.0, 2.5))
    store, _ = change_cuts(store, lambda cuts: with_cut(cuts, Slicing(seconds=2.0), name="short"))
    runs = {
        cut: prepare([store], Options(model=TINY.id, cut=cut), tmp_path / "runs", lambda line: None)
        for cut in ("3s-50", "short")
    }
    assert {cut: len(run.selection.tracks) for cut, run in runs.items()} == {"3s-50": 15, "short": 30}
    for cut, run in runs.items():
        slices, _ = run.selection.slices(store, run.slicing, "training")
        apart = make_store(tmp_path / cut, slicing=run.slicing, seconds=(9.0, 2.5))
        assert slices.equals(apart.slices.filter(pc.equal(apart.slices["split"], "training")))


# -- accuracy and history --------------------------------------------------------------------------------------------


def test_it_learns_what_there_is_to_learn(reference: Run) -> None:
    last = reference.history[-1]
    assert last["train_accuracy"] > 0.9
    assert last["validation_accuracy"] > 0.9
    assert last["validation_track_accuracy"] == 1.0
    assert last["train_loss"] < reference.history[0]["train_loss"]
    table = predict(reference)
    assert set(table["split"].to_pylist()) == {"test"}
    probabilities = np.stack(table["probabilities"].to_numpy())
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    classes = np.array(reference.selection.classes)
    assert np.mean(classes[probabilities.argmax(axis=1)] == table["genre"].to_numpy()) > CHANCE + 0.5


def test_history_has_the_numbers_of_each_epoch(reference: Run, store: Store) -> None:
    assert [epoch["epoch"] for epoch in reference.history] == list(range(1, 7))
    updates = 9  # per epoch: 144 slices in batches of 16
    for number, epoch in enumerate(reference.history, 1):
        assert epoch["lr"] == pytest.approx(0.01 / (1 + 0.01 * updates * number))
        assert epoch["seconds"] > 0
    assert set(reference.history[0]) == {
        "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "validation_track_accuracy",
        "lr", "seconds",
    }  # fmt: skip


def test_the_best_epoch_is_kept(reference: Run) -> None:
    best = 1 + int(np.argmin([epoch["validation_loss"] for epoch in reference.history]))
    assert reference.summary["best_epoch"] == best == reference.load("best.pt")["epoch"]
    assert reference.summary["best"] == reference.history[best - 1]


def test_predicting_the_validation_split_gives_the_validation_accuracy(reference: Run) -> None:
    table = predict(reference, split="validation")
    classes = np.array(reference.selection.classes)
    predicted = classes[np.stack(table["probabilities"].to_numpy()).argmax(axis=1)]
    assert np.mean(predicted == table["genre"].to_numpy()) == reference.summary["best"]["validation_accuracy"]


@pytest.mark.slow
def test_early_stopping(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([0.2, 0.5, 0.4, 0.5, 0.3, 0.9])
    scores = {"loss": 1.0, "track_accuracy": 0.0}
    monkeypatch.setattr(loop, "validate", lambda *_: scores | {"accuracy": next(accuracies)})
    patient = dataclasses.replace(TINY.recipe.training, monitor="accuracy", patience=3)
    recipe = dataclasses.replace(TINY.recipe, training=patient)
    monkeypatch.setitem(systems._systems, TINY.id, system := dataclasses.replace(TINY))
    system.__dict__["recipe"] = recipe  # in place of the cached property
    run = quiet(store, tmp_path)
    assert [epoch["validation_accuracy"] for epoch in run.history] == [0.2, 0.5, 0.4, 0.5, 0.3]
    assert run.summary["best_epoch"] == 2


@pytest.mark.parametrize(("monitor", "best"), [("accuracy", 3), ("loss", 2)])
def test_the_monitored_metric_chooses(monitor: str, best: int) -> None:
    recipe = dataclasses.replace(TINY.recipe.training, monitor=monitor)
    counters = progress.Progress()
    for loss, accuracy in ((3.0, 0.1), (1.0, 0.2), (2.0, 0.3), (2.0, 0.3)):
        counters.add_batch(1.0, 1, 1, 0.0)
        counters.end_epoch({"loss": loss, "accuracy": accuracy, "track_accuracy": 0.0}, 0.1, 0.0, recipe)
    assert counters.best_epoch == best


def test_accuracy_by_track_is_that_of_the_mean_probabilities() -> None:
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], [0.2, 0.8]])
    scores = accuracies(probabilities, np.array([1, 1, 1, 0]), np.array([0, 0, 0, 1]))
    assert scores == {"accuracy": 0.25, "track_accuracy": 0.5}


def test_lines_of_epochs_fit_80_columns() -> None:
    recipe = dataclasses.replace(systems.get("kth2020/cnn").recipe.training, epochs=12_000)
    largest = {
        "epoch": 12_000,
        "train_loss": 9999.999,
        "train_accuracy": 1.0,
        "validation_loss": 123456.0,
        "seconds": 1e5,
    }
    line = progress.format_epoch(
        largest | {"validation_accuracy": 1.0, "validation_track_accuracy": 1.0}, recipe, is_best=True
    )
    assert line == "epoch 12000/12000 9999.999   100.0 %  1.2e+05   100.0 %   100.0 % 100000 s  best"
    widths = [len(text) for text in (*progress.epoch_heads(recipe), line)]
    assert max(widths) <= 80
    assert widths[1] + len("  best") == widths[2]


def test_printed_lines(store: Store, tmp_path: Path) -> None:
    text = printed_by(store, tmp_path, epochs=2, lr=0.02)
    assert "not as published: 2 differences, see `mgc info " in text
    assert "epochs 2 for 6" not in text
    assert "144 slices of 18 tracks to train on, 48 slices of 6 tracks to validate with" in text
    assert "for at most 2 epochs; early stopping usually ends it sooner" in text
    lines = text.splitlines()
    (start,) = (number for number, line in enumerate(lines) if "validation" in line.split() and len(line.split()) == 2)
    groups, names, *rows = lines[start : start + 4]
    assert names.split() == ["loss", "accuracy", "loss", "accuracy", "by", "track", "time"]
    assert groups.index("training") == names.index("loss")
    assert groups.index("validation") == names.rindex("loss")
    assert [row[: len("epoch 1/2")] for row in rows] == ["epoch 1/2", "epoch 2/2"]
    assert [row.count("%") for row in rows] == [3, 3]
    assert "best epoch 2 of 2: validation accuracy " in text


def test_on_start_is_called_before_the_training(store: Store, tmp_path: Path) -> None:
    finished: list[bool] = []
    options = Options(TINY.id, epochs=1)
    train([store], options, tmp_path, lambda text: None, on_start=lambda run: finished.append(run.finished))
    assert finished == [False]


def test_remaining_time() -> None:
    recipe = dataclasses.replace(TINY.recipe.training, epochs=10)
    counters = progress.Progress(epoch=4, batch=20)
    text = progress.remaining_time([9.0, 1.0, 1.0], counters, recipe, n_training=100, n_validation=30)
    assert text.startswith("about 11 min for at most 6 more epochs")  # 580 updates, 180 validation batches
    texts = [progress.format_duration(seconds) for seconds in (0.2, 89, 100, 7260)]
    assert texts == ["1 s", "89 s", "2 min", "2 h 1 min"]


# -- repetition and resumption ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_store_at_a_url_gives_the_same_weights(store: Store, reference: Run, tmp_path: Path) -> None:
    url = RemotePath("memory://shelf/mel")
    for name, data in tree(Path(str(store.path))).items():
        (url / name).write_bytes(data)
    run = Run.open(quiet(Store.open(url), tmp_path).path)
    assert [source.path for source in run.sources] == [url]
    assert_same_weights(run, reference)
    assert predict(run).equals(predict(reference))


def test_a_seed_gives_the_same_weights_twice(store: Store, reference: Run, tmp_path: Path) -> None:
    assert_same_weights(quiet(store, tmp_path), reference)
    other = quiet(store, tmp_path, seed=1, epochs=1)
    assert not torch.equal(other.load("last.pt")["model"]["6.weight"], reference.load("last.pt")["model"]["6.weight"])


def test_streamed_or_resident_gives_the_same_weights(
    store: Store, reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_data, "fits_in_memory", lambda *_: False)
    run = quiet(store, tmp_path)
    assert run.summary["residency"] == "stream"
    assert reference.summary["residency"] == "host"
    assert_same_weights(run, reference)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
import torch
from tiny import TINY
from mgc.models.registry import systems
from mgc.models.training import checkpoint, loop
from mgc.models.runs.run import Run
from mgc.models.training.train import Options, train
from mgc.pipeline.store.store import Store

torch.set_num_threads(1)
systems._systems[TINY.id] = TINY

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

{how}
options = Options(model=TINY.id, loop={loop!r}, keep_last=True)
train([Store.open(Path({store!r}))], options, Path({runs!r}), echo=lambda text: None)
"""

DEATHS = {
    "after the checkpoint of a step": """
loop.CHECKPOINT_SECONDS = 0.0
whole = checkpoint.save
checkpoint.save = lambda run, learner, progress, name: (
    whole(run, learner, progress, name), (progress.epoch, progress.batch) == (1, 3) and kill()
)
""",
    "steps after a checkpoint": """
whole = loop.Progress.add_batch
loop.Progress.add_batch = lambda self, *numbers: (whole(self, *numbers), (self.epoch, self.batch) == (2, 5) and kill())
""",
    "between the best and the last checkpoint": """
whole = Run.save
Run.save = lambda self, name, state: (whole(self, name, state), name == "best.pt" and state["epoch"] == 2 and kill())
""",
    "before any checkpoint": """
loop.Trainer._require_finite = kill
""",
    "within a checkpoint": """
whole = os.fsync
written = []
os.fsync = lambda file: (whole(file), written.append(file), len(written) == 15 and kill())
""",
}


#: The others take a quarter of a minute each as well, and are marked slow.
QUICK_DEATHS = ("steps after a checkpoint",)
#: Every setting of the loop that has a state or draws random numbers.
EVERYTHING = {
    "schedule": "cosine", "warmup": 12, "label_smoothing": 0.1, "class_weights": True, "clip": 0.5, "ema": 0.9,
    "amp": "bf16", "balance": "class", "crop": True, "select": "last",
}  # fmt: skip
PLATEAU = {"schedule": "plateau", "plateau_patience": 0, "ema": 0.5, "balance": "track"}


@pytest.fixture(scope="module")
def whole(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run with every setting of `EVERYTHING`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems._systems, TINY.id, TINY)
        torch.set_num_threads(1)
        return quiet(store, tmp_path_factory.mktemp("runs"), loop=EVERYTHING)


@pytest.mark.parametrize(
    "death",
    [pytest.param(death, marks=() if death in QUICK_DEATHS else pytest.mark.slow) for death in DEATHS],
)
def test_a_killed_run_continues_to_the_same_weights(store: Store, whole: Run, tmp_path: Path, death: str) -> None:
    here = str(Path(__file__).parents[2] / "support")
    names = {"here": here, "how": DEATHS[death], "store": str(store.path), "runs": str(tmp_path), "loop": EVERYTHING}
    command = [sys.executable, "-c", KILLED.format(**names)]
    killed = subprocess.run(command, check=False)
    assert killed.returncode == -signal.SIGKILL
    (path,) = tmp_path.iterdir()
    run = Run.open(path)
    assert not run.finished
    if death == "after the checkpoint of a step":
        assert run.load("last.pt")["progress"]["batch"] == 3
    resume(run, echo=lambda text: None)
    assert run.finished
    assert_same_weights(run, whole)
    assert run.history[-1]["epoch"] == len(run.history) == 6


def test_the_last_epoch_is_kept_on_request(whole: Run) -> None:
    scores = [entry["validation_accuracy"] for entry in whole.history]
    assert max(scores[:-1]) > scores[-1] or scores.index(max(scores)) < len(scores) - 1  # another one would be the best
    assert whole.load("best.pt")["epoch"] == whole.summary["best_epoch"] == len(whole.history) == 6


def test_loop_settings_are_recorded(whole: Run) -> None:
    assert whole.config["training"]["loop"] == dataclasses.asdict(Loop(**EVERYTHING))
    assert whole.config["differences"] == [
        "schedule cosine for constant", "warmup 12 for 0", "label smoothing 0.1 for 0", "class weights yes for no",
        "clip 0.5 for 0", "ema 0.9 for 0", "amp bf16 for off", "balance class for none", "crop yes for no",
        "select last for best",
    ]  # fmt: skip


@pytest.mark.parametrize("queued", [False, True])
def test_an_update_is_read_when_the_next_one_is_queued(
    store: Store, reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queued: bool
) -> None:
    """On a GPU, an update is queued when `update` returns; on the CPU it is made. The results are the same."""
    calls: list[str] = []
    update, read = Learner.update, Outcome.read
    monkeypatch.setattr(Learner, "update", lambda *args: calls.append("update") or update(*args))
    monkeypatch.setattr(Outcome, "read", lambda outcome: calls.append("read") or read(outcome))
    monkeypatch.setattr(Transfer, "is_queued", queued)
    run = quiet(store, tmp_path)
    # Nine updates an epoch; the last one is read before the validation.
    epoch = ["update", *["update", "read"] * 8, "read"] if queued else ["update", "read"] * 9
    assert calls == epoch * len(run.history)
    assert_same_weights(run, reference)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "queued"), [(1, False), (9, False), (12, False), (1, True), (3, True), (9, True), (12, True)]
)
def test_ctrl_c_saves_the_last_whole_step(
    store: Store, reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, queued: bool
) -> None:
    monkeypatch.setattr(Transfer, "is_queued", queued)
    run = interrupted(store, tmp_path, monkeypatch, step)
    progress = run.load("last.pt")["progress"]
    assert progress["epoch"] * 9 + progress["batch"] == step
    monkeypatch.undo()
    monkeypatch.setitem(systems._systems, TINY.id, TINY)
    resume(run, echo=lambda text: None)
    assert_same_weights(run, reference)


@pytest.mark.slow
def test_plateau_and_average_continue_within_an_epoch(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"loop": PLATEAU, "monitor": "track_accuracy"}  # over six tracks: it cannot improve in every epoch
    whole = quiet(store, tmp_path / "whole", **options)
    run = interrupted(store, tmp_path / "parts", monkeypatch, 24, **options)
    monkeypatch.undo()
    monkeypatch.setitem(systems._systems, TINY.id, TINY)
    resume(run, echo=lambda text: None)
    assert_same_weights(run, whole)
    averaged, expected = (each.load("last.pt")["averaged"] for each in (run, whole))
    assert all(torch.equal(averaged[name], expected[name]) for name in expected)
    assert run.history[-1]["lr"] < 0.6 * 0.01 / (1 + 0.01 * 54)  # the rate after the optimiser's decay alone


def interrupted(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, step: int, **options: object) -> Run:
    """A run that receives Ctrl-C in the middle of an update."""
    steps = iter(range(1, 1000))

    def loss(logits: Tensor, labels: Tensor, **settings: Any) -> Tensor:
        if logits.requires_grad and next(steps) == step:
            signal.raise_signal(signal.SIGINT)
        return torch.nn.functional.cross_entropy(logits, labels, **settings)

    monkeypatch.setitem(LOSSES, "cross-entropy", loss)
    before = signal.getsignal(signal.SIGINT)
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train([store], Options(TINY.id, keep_last=True, **options), folder, echo=lines.append)
    assert signal.getsignal(signal.SIGINT) is before
    (path,) = folder.iterdir()
    assert lines[-1] == f"`mgc train --resume --run {path}` goes on from there"
    return Run.open(path)


@pytest.mark.slow
def test_a_damaged_shard_leaves_a_run_that_continues_once_it_is_repaired(
    tmp_path: Path, reference: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "store")
    monkeypatch.setattr(split_data, "fits_in_memory", lambda *_: False)
    whole, reads = Store.read, iter(range(1000))

    def read(self: Store, shard: int, *args: int) -> np.ndarray:
        if shard == 3 and next(reads) == 1:  # in the second epoch
            raise StoreError("00003.zarr: damaged", "repair it")
        return whole(self, shard, *args)

    monkeypatch.setattr(Store, "read", read)
    with pytest.raises(StoreError, match=r"00003.zarr"):
        quiet(store, tmp_path / "runs")
    (path,) = (tmp_path / "runs").iterdir()
    resume(Run.open(path), echo=lambda text: None)
    assert_same_weights(Run.open(path), reference)


def test_a_finished_run_is_left_as_it_is(reference: Run) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in reference.path.iterdir()}
    lines: list[str] = []
    resume(reference, echo=lines.append)
    assert lines == [
        f"{reference.path} is finished: nothing is left to do; for more epochs train a new run with --epochs"
    ]
    assert before == {file.name: file.stat().st_mtime_ns for file in reference.path.iterdir()}


def test_a_finished_run_drops_its_last_state(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop, states = seal.remove_file, []

    def killed(path: Path, name: str) -> None:
        states.append((path / "last.pt").read_bytes())
        raise KeyboardInterrupt

    monkeypatch.setattr(seal, "remove_file", killed)
    with pytest.raises(KeyboardInterrupt):
        quiet(store, tmp_path, epochs=1, keep_last=False)
    monkeypatch.setattr(seal, "remove_file", drop)
    (path,) = tmp_path.iterdir()
    run = Run.open(path)
    assert run.finished
    assert (path / "last.pt").read_bytes() == states[0]
    predicted = predict(run)
    lines: list[str] = []
    resume(run, echo=lines.append)
    assert lines == [f"{path} is finished: nothing is left to do; for more epochs train a new run with --epochs"]
    assert not (path / "last.pt").exists()
    assert not list(seal.problems(path))
    assert predict(run).equals(predicted)
    config = json.loads((path / "config.json").read_text())
    assert config["keep_last"] is False


@pytest.mark.slow
def test_a_store_that_has_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "store")
    run = interrupted(store, tmp_path / "runs", monkeypatch, 3)
    publish(store, Slicing(seconds=1.5))
    with pytest.raises(RunError, match=r"is cut into slices of 1.5 s.*began with slices of 2 s.*mgc slice"):
        resume(run)
    publish(store, Slicing(seconds=2.0))
    reslice(Store.open(store.path), Slicing(seconds=1.0))
    with pytest.raises(RunError, match=r"make that the default again, `mgc slice \S+store --default 2s-50`, or train"):
        resume(run)
    shutil.rmtree(store.path)
    make_store(store.path, tracks={"training": 24, "validation": 6})
    with pytest.raises(RunError, match=r"has changed since the run began"):
        resume(run)


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queued", [False, True])
def test_a_loss_that_is_not_finite(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queued: bool) -> None:
    monkeypatch.setattr(Transfer, "is_queued", queued)
    steps = iter(range(1000))
    monkeypatch.setitem(
        LOSSES, "cross-entropy", lambda logits, labels: logits.sum() * (math.nan if next(steps) == 4 else 1)
    )
    with pytest.raises(RunError, match=r"the loss became nan in epoch 1, step 5, on the slices in .*--lr"):
        quiet(store, tmp_path)
    (path,) = tmp_path.iterdir()
    run = Run.open(path)
    assert not run.finished
    report = json.loads((path / "not-finite.json").read_text())
    assert (report["epoch"], report["step"], report["loss"]) == (1, 5, "nan")
    training = open_run(run, [store]).training
    *_, fifth = itertools.islice(training.stream.batches(), 5)
    table = training.slices.select(["track_id", "variant", "start_s"])
    assert report["slices"] == [table.slice(row, 1).to_pylist()[0] for row in fifth.rows]


@pytest.mark.parametrize(
    ("option", "value"),
    [("epochs", 0), ("batch_size", 1), ("seed", -1), ("limit_tracks", 0), ("lr", 0.0), ("lr", math.inf)],
)
def test_options_out_of_range(option: str, value: float) -> None:
    with pytest.raises(SpecError, match=f"--{option.replace('_', '-')} {value:g}"):
        Options(**{option: value})


def test_an_unknown_model(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"did you mean kth2020/cnn"):
        quiet(store, tmp_path, model="kth2020/cn")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["padova2023/late-fusion", "padova2023/ensemble-1"])
def test_a_model_that_cannot_be_trained(store: Store, tmp_path: Path, model: str) -> None:
    with pytest.raises(ModelError, match=f"{model} (reads 2 stores|is the mean of)"):
        quiet(store, tmp_path, model=model)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_rmsprop_trains(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "rmsprop.toml"
    text = TINY.recipe_file.read_text().replace('"adam"', '"rmsprop"')
    recipe.write_text(text.replace('betas = [[0.9, 0.999], "chosen"]', 'rho = [0.9, "chosen"]'))
    monkeypatch.setitem(systems._systems, TINY.id, dataclasses.replace(TINY, recipe_file=recipe))
    run = quiet(store, tmp_path / "runs", epochs=2)
    assert run.load("last.pt")["optimizer"]["param_groups"][0]["alpha"] == 0.9
    assert run.history[1]["train_loss"] < run.history[0]["train_loss"]


def test_an_unknown_device(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"--device cuda:77: .*choose auto or cpu"):
        quiet(store, tmp_path, device="cuda:77")
    with pytest.raises(Exception, match=r"--device gpu: "):
        quiet(store, tmp_path, device="gpu")
    assert not any(tmp_path.iterdir())


def test_too_little_to_train_on(tmp_path: Path) -> None:
    lonely = make_store(tmp_path / "a", genres=("Folk",))
    with pytest.raises(StoreError, match=r"only tracks of Folk"):
        quiet(lonely, tmp_path / "runs")
    scarce = make_store(tmp_path / "b", tracks={"training": 2, "validation": 3})
    with pytest.raises(StoreError, match=r"no training track of Ambient; .*mgc split"):
        quiet(scarce, tmp_path / "runs")
    unchecked = make_store(tmp_path / "c", tracks={"training": 6, "test": 3})
    with pytest.raises(StoreError, match=r"no validation tracks"):
        quiet(unchecked, tmp_path / "runs")
    lonely.journal_path.touch()
    with pytest.raises(StoreError, match=r"unfinished"):
        quiet(lonely, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_as_published_refuses_any_difference(store: Store, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for other, options, difference in (
        (store, {}, "dataset synthetic for fma_small"),
        (make_store(tmp_path / "a", fma=tmp_path), {"epochs": 2}, "epochs 2 for 6"),
        (make_store(tmp_path / "b", Mel(n_mels=8, n_fft=512, hop_length=256), fma=tmp_path), {}, "hop 256 for 512"),
        (make_store(tmp_path / "c", slicing=Slicing(seconds=3.0), fma=tmp_path), {}, "slices of 3 s, 50% overlap for"),
    ):
        with pytest.raises(ModelError, match=f"test/tiny would not be as published: .*{difference}"):
            quiet(other, runs, as_published=True, **options)
    assert not runs.exists()
    assert quiet(Store.open(tmp_path / "a"), runs, as_published=True).config["differences"] == []


def test_fewer_tracks_on_request(store: Store, tmp_path: Path) -> None:
    run = quiet(store, tmp_path, limit_tracks=2, epochs=1)
    splits = run.selection.tracks["split"].to_pylist()
    assert {split: splits.count(split) for split in set(splits)} == {"training": 6, "validation": 6, "test": 6}
    assert "at most 2 training tracks of each genre" in run.config["differences"]


# -- augmentation -----------------------------------------------------------------------------------------------------

MASKS = Augmentation(time_masks=1, time_width=8, gain=3.0, mixup=0.4)


@pytest.mark.slow
def test_an_interrupted_run_draws_the_same_augmentation(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quiet(store, tmp_path / "whole", augmentation=MASKS)
    run = interrupted(store, tmp_path / "parts", monkeypatch, 12, augmentation=MASKS)
    monkeypatch.undo()
    monkeypatch.setitem(systems._systems, TINY.id, TINY)
    resume(run, echo=lambda text: None)
    assert_same_weights(run, whole)
    assert run.config["differences"] == ["augmentation time-masks=1,time-width=8,gain=3,mixup=0.4 for none"]


def test_augmentation_changes_training_and_not_prediction(store: Store, reference: Run, tmp_path: Path) -> None:
    run = quiet(store, tmp_path, augmentation=MASKS)
    assert not torch.equal(run.load("last.pt")["model"]["6.weight"], reference.load("last.pt")["model"]["6.weight"])
    assert predict(run, split="validation").equals(predict(run, split="validation"))
    assert run.summary["best"]["validation_accuracy"] > CHANCE + 0.2


def test_an_augmentation_that_does_not_apply(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="--augment pitch does not apply to mel"):
        quiet(store, tmp_path, augmentation=Augmentation(pitch=2.0))
    # An augmentation of samples in the recipe is left out on stored spectrograms, and recorded as a difference.
    studied = dataclasses.replace(TINY.recipe.training, augmentation=Augmentation(pitch=2.0))
    monkeypatch.setitem(vars(TINY), "recipe", dataclasses.replace(TINY.recipe, training=studied))
    run = quiet(store, tmp_path, epochs=1)
    assert run.config["differences"] == ["epochs 1 for 6", "augmentation none for pitch=2"]


# -- classical systems ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["kth2020/knn", "kth2020/svm"])
def test_a_classical_system(tmp_path: Path, model: str) -> None:
    store = make_store(tmp_path / "store", Mel(), Slicing(seconds=3.0))
    run = quiet(store, tmp_path / "runs", model=model)
    assert run.finished
    assert sorted(file.name for file in run.path.iterdir()) == [
        "config.json", "model.skops", "sealed.json", "summary.json", "tracks.parquet", "typical.npz",
    ]  # fmt: skip
    assert run.summary["best"]["validation_accuracy"] > CHANCE + 0.3
    table = predict(run)
    classes = np.array(run.selection.classes)
    predicted = classes[np.stack(table["probabilities"].to_numpy()).argmax(axis=1)]
    assert np.mean(predicted == table["genre"].to_numpy()) > CHANCE + 0.3
    with pytest.raises(SpecError, match=r"--epochs: .* is fitted in one step"):
        quiet(store, tmp_path / "runs", model=model, epochs=3)


# -- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
def test_a_gpu_learns_the_same(store: Store, tmp_path: Path) -> None:
    run = quiet(store, tmp_path, device="cuda")
    assert run.history[-1]["validation_accuracy"] > 0.9
    again = quiet(store, tmp_path, device="cuda")
    assert_same_weights(run, again)
