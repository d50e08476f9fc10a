"""Progress of a training: counters and history that go into checkpoints, and the lines printed from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mgc.models.registry.recipes import Training


@dataclass
class Progress:
    """Counters and history of a training; checkpoints hold them by these field names.

    Attributes:
        epoch: number of finished epochs.
        batch: number of finished batches of the current epoch.
        loss: sum of the training losses of the slices in these batches.
        correct: number of correctly classified slices in these batches.
        slices: number of slices in these batches.
        seconds: time that these batches took.
        best: monitored validation score of the best epoch; NaN before the first epoch ends, or if its weights are lost.
        best_epoch: number of the best epoch, from 1; 0 before the first epoch ends.
        history: scores of each finished epoch, see `end_epoch`.
        damaged: descriptions of the shards that were left out because they could not be read.
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

    def add_batch(self, loss: float, correct: int, slices: int, seconds: float) -> None:
        """Count a batch.

        Args:
            loss: mean training loss over the slices.
            correct: number of correctly classified slices.
            slices: number of slices.
            seconds: time since the batch before.
        """
        self.batch += 1
        self.loss += loss * slices
        self.correct += correct
        self.slices += slices
        self.seconds += seconds

    def means(self) -> dict[str, float]:
        """Return training loss and accuracy of the current epoch so far, as `loss` and `accuracy`."""
        return {"loss": self.loss / self.slices, "accuracy": self.correct / self.slices}

    def end_epoch(self, validation: dict[str, float], lr: float, seconds: float, recipe: Training) -> bool:
        """Append the epoch to the history and reset the batch counters.

        Args:
            validation: scores by name, see `validation.validate`; the entry has them as `validation_<name>`. Empty if
                nothing is validated: then the recipe must keep the last epoch.
            lr: learning rate of the next update.
            seconds: time since the last batch, that of the validation.
            recipe: training settings; names the monitored score.

        Returns:
            True if the run keeps the weights of this epoch: the monitored score is the best so far, or the recipe keeps
            the last epoch.
        """
        self.epoch += 1
        entry = {f"train_{name}": value for name, value in self.means().items()}
        entry |= {f"validation_{name}": value for name, value in validation.items()}
        self.history.append({"epoch": self.epoch, **entry, "lr": lr, "seconds": round(self.seconds + seconds, 3)})
        self.batch, self.loss, self.correct, self.slices, self.seconds = 0, 0.0, 0, 0, 0.0
        score = validation.get(recipe.monitor, math.nan)
        is_first = not self.best_epoch or math.isnan(self.best)
        is_better = score > self.best if recipe.mode == "max" else score < self.best
        is_best = is_first or is_better or recipe.loop.select == "last"
        if is_best:
            self.best, self.best_epoch = score, self.epoch
        return is_best

    def finished(self, recipe: Training) -> bool:
        """Return True after the recipe's last epoch, or after `patience` epochs without a better one."""
        return self.epoch >= recipe.epochs or self.epoch - self.best_epoch >= recipe.patience


def remaining_time(
    step_seconds: list[float], progress: Progress, recipe: Training, n_training: int, n_validation: int
) -> str:
    """Estimate how long the rest of the training takes, as a line to print.

    Args:
        step_seconds: durations of the first updates; the first half is left out, as the very first are slow.
        progress: counters of the training.
        recipe: training settings; the estimate assumes that all epochs are trained.
        n_training: training batches per epoch.
        n_validation: validation batches per epoch.
    """
    step = float(np.mean(step_seconds[len(step_seconds) // 2 :]))
    epochs = recipe.epochs - progress.epoch
    n_steps: float = epochs * n_training - progress.batch
    # Without a backward pass, a validation batch takes about a third of an update.
    n_steps += epochs * n_validation / 3
    left = f"{epochs} more epochs" if progress.epoch else f"{epochs} epochs"
    if recipe.loop.select == "last":
        return f"about {format_duration(step * n_steps)} for {left}"
    return f"about {format_duration(step * n_steps)} for at most {left}; early stopping usually ends it sooner"


def format_duration(seconds: float) -> str:
    """Format a duration, such as `40 s`, `6 min` or `2 h 10 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def epoch_heads(recipe: Training) -> tuple[str, str]:
    """Format the two head lines of the columns of `format_epoch`."""
    margin = " " * len(_position(recipe.epochs, recipe))
    groups = f"{margin}     training           validation"
    return groups, f"{margin}{'loss':>9}{'accuracy':>10}{'loss':>9}{'accuracy':>10}{'by track':>10}{'time':>9}"


def format_epoch(entry: dict[str, Any], recipe: Training, *, is_best: bool = False) -> str:
    """Format a history entry as a line of at most 80 columns; `epoch_heads` names its columns.

    Args:
        entry: entry that `Progress.end_epoch` appended.
        recipe: training settings; the number of epochs.
        is_best: mark the epoch as the best so far.
    """
    cells = [_position(entry["epoch"], recipe)]
    for split, names in (("train", ("accuracy",)), ("validation", ("accuracy", "track_accuracy"))):
        loss = entry[f"{split}_loss"]
        cells.append(f"{loss:9.3f}" if loss < 10_000 else f"{loss:9.1e}")
        cells += [f"{100 * entry[f'{split}_{name}']:8.1f} %" for name in names]
    seconds = entry["seconds"]
    cells.append(f"{seconds:7.1f} s" if seconds < 1000 else f"{seconds:7.0f} s")
    return "".join(cells) + ("  best" if is_best else "")


def _position(epoch: int, recipe: Training) -> str:
    return f"epoch {epoch:>{len(str(recipe.epochs))}}/{recipe.epochs}"
