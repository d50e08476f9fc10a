"""Script of each of the two processes in `test_ranks.py`: several trainings, one after the other, some with faults."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny import TINY
from torch import Tensor, nn

from mgc.models.data.stream import Batch
from mgc.models.parallel import ranks
from mgc.models.parallel.ranks import Ranks
from mgc.models.registry import systems
from mgc.models.registry.augmentation import Augmentation
from mgc.models.runs.run import Run
from mgc.models.training import train
from mgc.models.training.learner import Learner
from mgc.models.training.optim import LOSSES
from mgc.models.training.options import Options
from mgc.pipeline.errors import MgcError, StoreError
from mgc.pipeline.store.store import Store

#: A system without batch normalisation and dropout: the loss of a slice depends on no other slice and no random number.
PLAIN = dataclasses.replace(
    TINY,
    id="test/plain",
    input=dataclasses.replace(TINY.input, standardise=True),
    build=lambda n: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(372, n)),
)
WEIGHTED_LOSS = {"class_weights": True, "label_smoothing": 0.1, "clip": 0.5}
GENTLE = {"model": PLAIN.id, "epochs": 2, "optimizer": "sgd", "lr": 0.05, "loop": WEIGHTED_LOSS}
#: The same from other weights; the layer below the head is trained in the second epoch only.
THAWED = GENTLE | {"loop": WEIGHTED_LOSS | {"thaw": 1}}
PRETRAINED = "pretrained.pt"
#: Every setting that has a state or draws random numbers.
EVERYTHING: dict[str, Any] = {
    "model": TINY.id, "epochs": 2, "augmentation": Augmentation(time_masks=1, time_width=8, gain=3.0, mixup=0.4),
    "loop": {"schedule": "cosine", "warmup": 12, "class_weights": True, "clip": 0.5, "ema": 0.9, "amp": "bf16",
             "balance": "class", "crop": True},
}  # fmt: skip
#: Update that Ctrl-C interrupts.
STOPPED = 14
#: Number of the first shard of the validation split.
VALIDATION = 5
plain_loss, plain_update, plain_read = LOSSES["cross-entropy"], Learner.update, Store.read


def patch_loss(step: int, action: Callable[[Tensor], Tensor]) -> None:
    """Replace the loss of one update by the result of `action`.

    Args:
        step: which computation of a training loss, from 1.
        action: called with the loss.
    """
    losses: list[None] = []

    def loss(logits: Tensor, labels: Tensor, **settings: Any) -> Tensor:
        value = plain_loss(logits, labels, **settings)
        if logits.requires_grad:
            losses.append(None)
        return action(value) if len(losses) == step and logits.requires_grad else value

    LOSSES["cross-entropy"] = loss


def stop(value: Tensor) -> Tensor:
    signal.raise_signal(signal.SIGINT)
    return value


def die(value: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    return value


def main(store: Store, folder: Path) -> None:
    torch.set_num_threads(1)
    for system in (TINY, PLAIN):
        systems._systems[system.id] = system
    with ranks.join() as processes:
        Pair(processes, store, folder).go()


class Pair:
    """The trainings of one process.

    Args:
        processes: both processes.
        store: store to train on.
        folder: folder of the runs, one subfolder per training, and of `rows-<rank>.json` and `ended-<rank>.json`.
    """

    def __init__(self, processes: Ranks, store: Store, folder: Path) -> None:
        self.processes, self.store, self.folder = processes, store, folder
        self.outcomes: dict[str, str] = {}

    def go(self) -> None:
        """Run all trainings; faults happen in the second process only."""
        second = not self.processes.is_main
        rows: list[list[int]] = []

        def update(learner: Learner, batch: Batch, epoch: int) -> tuple[float, int]:
            rows.append(batch.rows.tolist())
            return plain_update(learner, batch, epoch)

        Learner.update = update  # type: ignore[method-assign]
        self.attempt("plain", **GENTLE)
        (self.folder / f"rows-{self.processes.rank}.json").write_text(json.dumps(rows))
        Learner.update = plain_update  # type: ignore[method-assign]
        self.attempt("thawed", **THAWED, weights=self.folder / PRETRAINED)
        self.attempt("whole", **EVERYTHING)
        if second:  # mixup computes the loss twice per update
            patch_loss(2 * STOPPED - 1, stop)
        self.attempt("parts", **EVERYTHING)
        self.processes._interrupted = False
        LOSSES["cross-entropy"] = plain_loss
        self.write_progress("parts", "stopped.json")
        self.attempt("parts")
        if second:
            patch_loss(5, lambda value: value * math.nan)
        self.attempt("nan", **GENTLE)
        if second:
            LOSSES["cross-entropy"] = plain_loss
            reads: list[int] = []

            def read(store: Store, shard: int, *within: int) -> Any:
                reads.append(shard)
                if shard < VALIDATION <= max(reads):  # in the second epoch
                    raise StoreError("00003.zarr: damaged", "repair it")
                return plain_read(store, shard, *within)

            Store.read = read  # type: ignore[method-assign]
        self.attempt("damaged", residency="stream", **GENTLE)
        if second:
            Store.read = plain_read  # type: ignore[method-assign]
            patch_loss(3, die)
        self.attempt("dead", **GENTLE)

    def write_progress(self, name: str, file: str) -> None:
        """Write the progress of a training to a file."""
        if self.processes.is_main:
            progress = Run.open(*(self.folder / name).iterdir()).load("last.pt")["progress"]
            (self.folder / file).write_text(json.dumps(progress))

    def attempt(self, name: str, **options: Any) -> None:
        """Train with these options, or without any resume the training; record the outcome."""
        folder = self.folder / name
        self.processes.dismissed = False  # the others follow anew in each attempt
        try:
            if not self.processes.is_main:
                train.follow(self.processes)
            elif options:
                train.train(
                    [self.store], Options(keep_last=True, **options), folder, lambda text: None, ranks=self.processes
                )
                train.dismiss(self.processes)
            else:
                train.resume(Run.open(*folder.iterdir()), echo=lambda text: None, ranks=self.processes)
                train.dismiss(self.processes)
            self.outcomes[name] = "finished"
        except (MgcError, KeyboardInterrupt) as error:
            self.outcomes[name] = f"{type(error).__name__}: {error}"
        (self.folder / f"ended-{self.processes.rank}.json").write_text(json.dumps(self.outcomes))


if __name__ == "__main__":
    main(Store.open(Path(sys.argv[1])), Path(sys.argv[2]))
