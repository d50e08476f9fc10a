"""How far a training is: what it counts, what it says, and when it may be interrupted."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mgc.models.registry.recipes import Training


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
        damaged: what had to be left out, and why.
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
    damaged: list[str] = field(default_factory=list)

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
