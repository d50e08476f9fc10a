"""The training loop of a network: updates, validation, the best epoch, and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mgc.models.data.split_data import SplitData
from mgc.models.data.stream import Batch
from mgc.models.runs import seal
from mgc.models.runs.run import Run
from mgc.models.training import checkpoint, memory
from mgc.models.training.learner import Learner, Outcome
from mgc.models.training.progress import Progress, epoch_heads, format_epoch, remaining_time
from mgc.models.training.validation import validate
from mgc.pipeline import console
from mgc.pipeline.errors import RunError, StoreError

#: The state is saved after every epoch, and within an epoch once the last checkpoint is this many seconds old.
CHECKPOINT_SECONDS = 120.0
#: Updates are timed for this many seconds, or one epoch if that is shorter, before the remaining time is estimated.
ESTIMATE_SECONDS = 15.0

#: Prints a line.
Echo = Callable[[str], None]


@dataclass(frozen=True)
class Update:
    """An update that was made but not yet counted.

    Attributes:
        number: number of its batch in the epoch, from 0.
        rows: rows of its slices in the slice table, int64 `(batch,)`.
        next_lr: learning rate of the update after it.
        outcome: its loss and correct slices.
    """

    number: int
    rows: np.ndarray
    next_lr: float
    outcome: Outcome


@dataclass
class Trainer:
    """Trains a network epoch by epoch, from its last checkpoint if there is one.

    Every process that trains has its own trainer, and all of them call `fit`.

    Attributes:
        run: run that checkpoints, the best weights and the history are written to.
        learner: network and optimiser, at their initial state.
        training: slices to train on.
        validation: slices that the best epoch is chosen by; None if they are trained on, too, which needs a recipe that
            keeps the last epoch. Then the run's history is not written either: it is that of the validated training.
        weights_file: file of the run for the weights of the best epoch.
        state_file: file of the run for the checkpoint.
        echo: prints a line.
        on_epoch_end: called with the history entry of each epoch, after the checkpoint is written.
        progress: counters and history.
    """

    run: Run
    learner: Learner
    training: SplitData
    validation: SplitData | None
    weights_file: str = "best.pt"
    state_file: str = "last.pt"
    echo: Echo = print
    on_epoch_end: Callable[[dict[str, Any]], object] = lambda entry: None
    progress: Progress = field(default_factory=Progress, init=False)
    _batch_size: int = field(default=0, init=False)
    # The last update, until it is counted.
    _update_made: Update | None = field(default=None, init=False)
    _saved_at: float = field(default=0.0, init=False)
    _step_started_at: float = field(default=0.0, init=False)
    # Whether the heads of the columns of the epochs have been printed.
    _is_headed: bool = field(default=False, init=False)
    # Durations of the first updates; None after the remaining time has been estimated.
    _step_seconds: list[float] | None = field(default_factory=list, init=False)

    def fit(self) -> Progress:
        """Train until the recipe's last epoch or until early stopping.

        Returns:
            The progress, with the history of all epochs.

        Raises:
            RunError: the loss is NaN or infinite, the device's memory is exhausted, or the checkpoint cannot be
                continued.
            StoreError: a shard is missing or damaged; the state is saved first.
            KeyboardInterrupt: Ctrl-C; the state is saved first.
            MgcError: a checkpoint cannot be written; the one before is kept.
        """
        run, learner = self.run, self.learner
        learner.ranks.reseed(run.config["seed"])
        if learner.ranks.broadcast((run.path / self.state_file).exists()):
            self.progress = checkpoint.restore(run, learner, self.state_file)
            self._require_best()
            if not self.progress.finished(learner.recipe):
                self.echo(f"continues in {self._position()}")
        self._saved_at = time.monotonic()
        try:
            while not self.progress.finished(learner.recipe):
                self._train_epoch()
                self._end_epoch()
            return self.progress
        except (KeyboardInterrupt, StoreError):
            self._count_update()
            self._save()
            self.echo(f"saved in {self._position()}")
            self.echo(f"`mgc train --resume --run {run.path}` goes on from there")
            raise
        except torch.OutOfMemoryError:
            pass  # only after this clause is the traceback gone, which holds the tensors of the update
        raise memory.out_of_memory_error(learner, self._splits, self._batch_size)

    @property
    def _prefix(self) -> str:
        """What precedes the number of an epoch in lines for the user."""
        return "refit, " if self.validation is None else ""

    @property
    def _splits(self) -> list[SplitData]:
        return [self.training] if self.validation is None else [self.training, self.validation]

    def _require_best(self) -> None:
        """Choose the best of the epochs to come if the weights of the best one so far are damaged.

        Raises:
            RunError: no epoch is to come.
        """
        run, progress = self.run, self.progress
        weights = run.path / self.weights_file
        problem = seal.problem(run.path, weights.name) if progress.best_epoch else None
        if not (problem := self.learner.ranks.broadcast(problem)):
            return
        if progress.finished(self.learner.recipe):
            raise self.learner.ranks.shared_error(
                RunError(f"{weights}: damaged ({problem}), and no epoch is left", "train a new run")
            )
        progress.best, progress.best_epoch = math.nan, progress.epoch
        self.echo(f"{weights} is damaged: the best epoch is chosen among those to come")

    def _train_epoch(self) -> None:
        """Make the updates that are left of the current epoch."""
        progress, recipe, stream = self.progress, self.learner.recipe, self.training.stream
        self.learner.train(progress.epoch)
        label = f"{self._prefix}epoch {progress.epoch + 1}/{recipe.epochs}"
        with tqdm(None, label, len(stream), initial=progress.batch, leave=False, disable=console.hides_bars()) as bar:
            self._step_started_at = time.monotonic()
            for batch in self.learner.ranks.lockstep(stream.batches(progress.epoch, progress.batch)):
                self._update(batch)
                self._show(bar)
            with checkpoint.uninterrupted():
                self._count_update()
            self._show(bar)
        if not progress.slices:
            raise StoreError("no shard of the training split can be read", "repair the store: `mgc extract --verify`")

    def _show(self, bar: tqdm[Any]) -> None:
        """Show the updates that have been counted, and once the estimated time that is left."""
        if not self.progress.slices:
            return
        bar.set_postfix({name: f"{value:.3f}" for name, value in self.progress.means().items()}, refresh=False)
        bar.update(self.progress.batch - bar.n)
        if estimate := self._estimate():
            with bar.external_write_mode():
                self.echo(estimate)

    def _update(self, batch: Batch) -> None:
        """Make one update, and save the state if a checkpoint is due.

        A GPU gets the update before the one before it is counted, which waits for it: so it always has work. The CPU
        has made the update when `Learner.update` returns; it is counted at once.
        """
        self._batch_size = len(batch.rows)
        with checkpoint.uninterrupted():
            outcome = self.learner.update(batch, self.progress.epoch)
            save = self._count_update()
            self._update_made = Update(batch.number, batch.rows, self.learner.lr, outcome)
            if save or not outcome.is_queued:
                save |= self._count_update()
            if save:
                self._save()

    def _count_update(self) -> bool:
        """Count the last update, if that has not been done; return whether a checkpoint is due, the same on all ranks.

        Raises:
            RunError: its loss is NaN or infinite.
        """
        learner, progress, update = self.learner, self.progress, self._update_made
        if update is None:
            return False
        self._update_made = None
        loss_share, n_correct = update.outcome.read()
        due = learner.ranks.is_main and time.monotonic() - self._saved_at > CHECKPOINT_SECONDS
        # One message: loss and counts over all processes, and rank 0's decision to save, which all of them follow.
        loss, correct, slices, save = learner.ranks.sum(loss_share, n_correct, len(update.rows), due)
        progress.batch = update.number  # batches that could not be read are skipped
        self._require_finite(loss, update)
        seconds, self._step_started_at = time.monotonic() - self._step_started_at, time.monotonic()
        progress.add_batch(loss, int(correct), int(slices), seconds)
        if self._step_seconds is not None:
            self._step_seconds.append(seconds)
        return bool(save)

    def _end_epoch(self) -> None:
        """Validate, write the best weights and the checkpoint, and report the epoch."""
        run, learner, progress = self.run, self.learner, self.progress
        learner.ranks.broadcast_buffers(learner.network)
        scores = {}
        if self.validation is not None:
            scores = validate(learner.network, learner.recipe, self.validation, learner.ranks)
        damage = {message for split in self._splits for message in split.damage_messages}
        for problem in sorted(damage.difference(progress.damaged)):
            progress.damaged.append(problem)
            self.echo(f"goes on without {problem}")
        with checkpoint.uninterrupted():
            lr = learner.lr  # before the plateau schedule changes it
            learner.end_epoch(scores)
            is_best = progress.end_epoch(scores, lr, time.monotonic() - self._step_started_at, learner.recipe)
            if is_best and learner.ranks.is_main:
                run.save(self.weights_file, learner.network.weights() | {"epoch": progress.epoch})
            self._save()
        entry = progress.history[-1]
        self.on_epoch_end(entry)
        if self.validation is None:
            return
        if not self._is_headed:
            for head in epoch_heads(learner.recipe):
                self.echo(head)
            self._is_headed = True
        chosen = is_best and learner.recipe.loop.select == "best"
        self.echo(format_epoch(entry, learner.recipe, is_best=chosen))

    def _save(self) -> None:
        checkpoint.save(self.run, self.learner, self.progress, self.state_file)
        if self.validation is not None and self.learner.ranks.is_main:
            self.run.write_history(self.progress.history)
        self._saved_at = time.monotonic()

    def _position(self) -> str:
        progress = self.progress
        n_batches = len(self.training.stream)
        return f"{self._prefix}epoch {progress.epoch + 1}, after {progress.batch} of {n_batches} batches"

    def _estimate(self) -> str | None:
        """Estimate the remaining time once enough updates have been timed; None before that and ever after."""
        n_training = len(self.training.stream)
        n_validation = 0 if self.validation is None else len(self.validation.stream)
        if not self._step_seconds:
            return None
        if sum(self._step_seconds) <= ESTIMATE_SECONDS and self.progress.batch != n_training:
            return None
        step_seconds, self._step_seconds = self._step_seconds, None
        line = remaining_time(step_seconds, self.progress, self.learner.recipe, n_training, n_validation)
        refit_follows = self.validation is not None and self.run.config.get("refit")
        return f"{line}; the refit takes as long again" if refit_follows else line

    def _require_finite(self, loss: float, update: Update) -> None:
        """Raise `RunError` if the loss is NaN or infinite; `not-finite.json` then lists the slices of the batch."""
        if math.isfinite(loss):
            return
        run, ranks, progress = self.run, self.learner.ranks, self.progress
        rows = np.concatenate(ranks.all_gather(update.rows))
        slices = self.training.take_slices(rows).select(["track_id", "variant", "start_s"]).to_pylist()
        epoch, step = progress.epoch + 1, progress.batch + 1
        report = {"epoch": epoch, "step": step, "loss": str(loss), "next_lr": update.next_lr, "slices": slices}
        if ranks.is_main:
            run.write_json("not-finite.json", report)
        file = run.path / "not-finite.json"
        problem = f"the loss became {loss} in epoch {epoch}, step {step}, on the slices in {file}"
        raise ranks.shared_error(RunError(problem, "train with a lower learning rate: --lr"))
