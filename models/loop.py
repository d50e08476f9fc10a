"""The training loop of a network: updates, validation, the best epoch, and checkpoints that continue bit for bit."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from models.augment import Augmenter
from models.device import random_state, restore_random_state
from models.joint import Joint
from models.network import Network, outputs
from models.optim import LOSSES, build_optimizer, main_logits, total_loss
from models.recipes import Training
from models.runs import Run
from models.stream import Stream
from pipeline.errors import RunError, StoreError

#: The state is saved after every epoch, and within one when the last time is this many seconds ago.
CHECKPOINT_SECONDS = 120.0
#: Updates are timed for so long, an epoch at most, before the remaining time is estimated.
ESTIMATE_SECONDS = 15.0

Echo = Callable[[str], None]


@dataclass
class Progress:
    """How far a training is: with weights, optimiser and random numbers all that it takes to go on.

    Attributes:
        epoch: finished epochs.
        batch: batches done of the next one.
        loss, correct, slices, seconds: sums over these batches.
        best: monitored value of the best epoch so far.
        best_epoch: its number, from 1; 0 before there is one.
        history: one entry per finished epoch.
    """

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    correct: int = 0
    slices: int = 0
    seconds: float = 0.0
    best: float = math.nan
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def add(self, loss: float, correct: int, slices: int, seconds: float) -> None:
        """Count a batch of this mean loss."""
        self.batch += 1
        self.loss += loss * slices
        self.correct += correct
        self.slices += slices
        self.seconds += seconds

    def means(self) -> dict[str, float]:
        """Loss and accuracy over the slices of the epoch so far."""
        return {"loss": self.loss / self.slices, "accuracy": self.correct / self.slices}

    def close(self, validation: dict[str, float], lr: float, seconds: float, recipe: Training) -> bool:
        """Close the epoch after a validation of so many seconds; whether it is the best so far."""
        self.epoch += 1
        entry = {f"train_{name}": value for name, value in self.means().items()}
        entry |= {f"validation_{name}": value for name, value in validation.items()}
        self.history.append({"epoch": self.epoch, **entry, "lr": lr, "seconds": round(self.seconds + seconds, 3)})
        self.batch, self.loss, self.correct, self.slices, self.seconds = 0, 0.0, 0, 0, 0.0
        value = validation[recipe.monitor]
        better = not self.best_epoch or (value > self.best if recipe.mode == "max" else value < self.best)
        if better:
            self.best, self.best_epoch = value, self.epoch
        return better

    def finished(self, recipe: Training) -> bool:
        """Whether the epochs are over, or none has been better for the recipe's patience."""
        return self.epoch >= recipe.epochs or self.epoch - self.best_epoch >= recipe.patience


def fit(
    run: Run,
    network: Network,
    recipe: Training,
    training: Stream | Joint,
    validation: Stream | Joint,
    tracks: np.ndarray,
    augmenter: Augmenter | None = None,
    echo: Echo = print,
) -> Progress:
    """Train until the recipe's end, from the run's last checkpoint where it has one.

    Args:
        run: where checkpoints and history go.
        network: freshly initialised, on the device.
        recipe: how to train.
        training: batches to learn from.
        validation: slices that the best epoch is chosen by.
        tracks: track of each validation slice, as indices from 0.
        augmenter: changes what is learnt from.
        echo: prints a line.

    Raises:
        RunError: the loss is no longer a number, or the checkpoint cannot be continued.
        StoreError: a shard is missing or damaged. The state is saved, as it is upon Ctrl-C.
    """
    optimizer, schedule = build_optimizer(recipe.optimizer, network.model.parameters())
    loss_of = LOSSES[recipe.loss]
    parts = {"model": network.model, "inputs": network.inputs, "optimizer": optimizer, "schedule": schedule}
    at = Progress()
    if (run.path / "last.pt").exists():
        at = restore(run, parts, training.device)
        echo(f"continues in epoch {at.epoch + 1}, after {at.batch} of {len(training)} batches")
    timed: list[float] | None = []
    saved = time.monotonic()
    try:
        while not at.finished(recipe):
            network.train()
            label = f"epoch {at.epoch + 1}/{recipe.epochs}"
            with tqdm(None, label, len(training), initial=at.batch, leave=False, disable=None) as bar:
                started = time.monotonic()
                for batch in training.batches(at.epoch, at.batch):
                    with uninterrupted():
                        frames, others, share = batch.frames, batch.labels, 1.0
                        if augmenter is not None:
                            frames, others, share = augmenter(batch, at.epoch)
                        output = network(frames)
                        loss = total_loss(loss_of, output, batch.labels)
                        if share < 1:
                            loss = share * loss + (1 - share) * total_loss(loss_of, output, others)
                        mean = finite(loss, at)
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                        schedule.step()
                        correct = int((main_logits(output).argmax(dim=1) == batch.labels).sum())
                        seconds, started = time.monotonic() - started, time.monotonic()
                        at.add(mean, correct, len(batch.labels), seconds)
                        if time.monotonic() - saved > CHECKPOINT_SECONDS:
                            save(run, parts, training.device, at)
                            saved = time.monotonic()
                    bar.set_postfix({name: f"{value:.3f}" for name, value in at.means().items()}, refresh=False)
                    bar.update()
                    if timed is not None:
                        timed.append(seconds)
                        if sum(timed) > ESTIMATE_SECONDS or at.batch == len(training):
                            with bar.external_write_mode():
                                echo(remaining(timed, at, recipe, len(training), len(validation)))
                            timed = None
            scores = validate(network, recipe, validation, tracks)
            with uninterrupted():
                better = at.close(scores, float(schedule.get_last_lr()[0]), time.monotonic() - started, recipe)
                if better:
                    run.save("best.pt", network.weights() | {"epoch": at.epoch})
                save(run, parts, training.device, at)
                saved = time.monotonic()
            echo(line(at.history[-1], recipe) + ("  best so far" if better else ""))
    except (KeyboardInterrupt, StoreError):
        save(run, parts, training.device, at)
        echo(f"saved in epoch {at.epoch + 1}, after {at.batch} of {len(training)} batches")
        echo(f"`mgc train --resume --run {run.path}` goes on from there")
        raise
    return at


def validate(network: Network, recipe: Training, validation: Stream | Joint, tracks: np.ndarray) -> dict[str, float]:
    """Loss and accuracy on slices, and accuracy on tracks by the mean of their slices' probabilities.

    Raises:
        RunError: the loss is not a number.
    """
    logits = outputs(network, validation, "validation")
    labels = torch.from_numpy(validation.labels)
    loss = float(LOSSES[recipe.loss](logits, labels))
    if not math.isfinite(loss):
        raise RunError(f"the validation loss is {loss}", "train with a lower learning rate: --lr")
    return {"loss": loss} | accuracies(logits.softmax(dim=1).numpy(), validation.labels, tracks)


def accuracies(probabilities: np.ndarray, labels: np.ndarray, tracks: np.ndarray) -> dict[str, float]:
    """Accuracy by slice, and by track from the sum of its slices' probabilities.

    Args:
        probabilities: `(slices, classes)`.
        labels: class indices `(slices,)`.
        tracks: track of each slice, as indices from 0, `(slices,)`.
    """
    sums = np.zeros((tracks.max() + 1, probabilities.shape[1]))
    np.add.at(sums, tracks, probabilities)
    label = np.zeros(len(sums), np.int64)
    label[tracks] = labels
    return {
        "accuracy": float(np.mean(probabilities.argmax(axis=1) == labels)),
        "track_accuracy": float(np.mean(sums.argmax(axis=1) == label)),
    }


def save(run: Run, parts: dict[str, Any], device: torch.device, at: Progress) -> None:
    """Write the whole state after the last update: whatever happens next, `restore` gets it back."""
    state = {name: part.state_dict() for name, part in parts.items()}
    run.save("last.pt", state | {"random": random_state(device), "progress": dataclasses.asdict(at)})
    run.write_history(at.history)


def restore(run: Run, parts: dict[str, Any], device: torch.device) -> Progress:
    """Put everything back to where `save` found it.

    Raises:
        RunError: the checkpoint is damaged, or of another model.
    """
    state = run.load("last.pt")
    try:
        for name, part in parts.items():
            part.load_state_dict(state.get(name, {}) if name == "inputs" else state[name])
        restore_random_state(state["random"], device)
        return Progress(**state["progress"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise RunError(f"{run.path / 'last.pt'}: cannot be continued ({first_line})", "train a new run") from error


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done: no checkpoint may see half an update."""
    if threading.current_thread() is not threading.main_thread():  # the only one that signals interrupt
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        signal.raise_signal(signal.SIGINT)


def finite(loss: Tensor, at: Progress) -> float:
    """The value of a loss.

    Raises:
        RunError: it is not a number.
    """
    value = loss.item()
    if not math.isfinite(value):
        where = f"epoch {at.epoch + 1}, step {at.batch + 1}"
        raise RunError(f"the loss became {value} in {where}", "train with a lower learning rate: --lr")
    return value


def remaining(timed: list[float], at: Progress, recipe: Training, n_training: int, n_validation: int) -> str:
    """How long the rest will take at most, judging by the first updates, of which the very first are slow."""
    step = float(np.mean(timed[len(timed) // 2 :]))
    n_steps: float = (recipe.epochs - at.epoch) * n_training - at.batch
    # A batch that is only predicted takes about a third of an update: no backward pass.
    n_steps += (recipe.epochs - at.epoch) * n_validation / 3
    epochs = f"{recipe.epochs - at.epoch} more epochs" if at.epoch else f"{recipe.epochs} epochs"
    return f"about {duration(step * n_steps)} for at most {epochs}; early stopping usually ends it sooner"


def duration(seconds: float) -> str:
    """Such as `40 s`, `6 min` or `2 h 10 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def line(entry: dict[str, Any], recipe: Training) -> str:
    """One line about a finished epoch."""
    return (
        f"epoch {entry['epoch']:>{len(str(recipe.epochs))}}/{recipe.epochs}"
        f"  loss {entry['train_loss']:.3f}  accuracy {entry['train_accuracy']:6.1%}"
        f"  validation: loss {entry['validation_loss']:.3f}  accuracy {entry['validation_accuracy']:6.1%}"
        f"  by track {entry['validation_track_accuracy']:6.1%}  {entry['seconds']:.1f} s"
    )
