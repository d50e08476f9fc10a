"""What each of the two processes of `test_ranks.py` does: several trainings, one after the other."""

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

#: Nothing here depends on which other slices are in a batch, or on random numbers.
PLAIN = dataclasses.replace(
    TINY,
    id="test/plain",
    input=dataclasses.replace(TINY.input, standardise=True),
    build=lambda n: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(372, n)),
)
WEIGHED = {"class_weights": True, "label_smoothing": 0.1, "clip": 0.5}
GENTLE = {"model": PLAIN.id, "epochs": 2, "optimizer": "sgd", "lr": 0.05, "loop": WEIGHED}
#: Whatever has a state or draws numbers.
EVERYTHING: dict[str, Any] = {
    "model": TINY.id, "epochs": 2, "augmentation": Augmentation(time_masks=1, time_width=8, gain=3.0, mixup=0.4),
    "loop": {"schedule": "cosine", "warmup": 12, "class_weights": True, "clip": 0.5, "ema": 0.9, "amp": "bf16",
             "balance": "class", "crop": True},
}  # fmt: skip
STOPPED = 14
#: The first of the shards to validate with.
VALIDATION = 5
plain_loss, plain_update, plain_read = LOSSES["cross-entropy"], Learner.update, Store.read


def at_loss(step: int, then: Callable[[Tensor], Tensor]) -> None:
    """Have something happen to the loss of an update."""
    losses: list[None] = []

    def loss(logits: Tensor, labels: Tensor, **settings: Any) -> Tensor:
        value = plain_loss(logits, labels, **settings)
        if logits.requires_grad:
            losses.append(None)
        return then(value) if len(losses) == step and logits.requires_grad else value

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
    def __init__(self, processes: Ranks, store: Store, folder: Path) -> None:
        self.processes, self.store, self.folder = processes, store, folder
        self.ended: dict[str, str] = {}

    def go(self) -> None:
        others = not self.processes.is_main
        seen: list[list[int]] = []

        def update(learner: Learner, batch: Batch, epoch: int) -> tuple[float, int]:
            seen.append(batch.rows.tolist())
            return plain_update(learner, batch, epoch)

        Learner.update = update  # type: ignore[method-assign]
        self.attempt("plain", **GENTLE)
        (self.folder / f"rows-{self.processes.rank}.json").write_text(json.dumps(seen))
        Learner.update = plain_update  # type: ignore[method-assign]
        self.attempt("whole", **EVERYTHING)
        if others:  # mixup takes the loss twice
            at_loss(2 * STOPPED - 1, stop)
        self.attempt("parts", **EVERYTHING)
        self.processes._interrupted = False
        LOSSES["cross-entropy"] = plain_loss
        self.keep("parts", "stopped.json")
        self.attempt("parts")
        if others:
            at_loss(5, lambda value: value * math.nan)
        self.attempt("nan", **GENTLE)
        if others:
            LOSSES["cross-entropy"] = plain_loss
            reads: list[int] = []

            def read(store: Store, shard: int, *within: int) -> Any:
                reads.append(shard)
                if shard < VALIDATION <= max(reads):  # in the second epoch
                    raise StoreError("00003.zarr: damaged", "repair it")
                return plain_read(store, shard, *within)

            Store.read = read  # type: ignore[method-assign]
        self.attempt("damaged", residency="stream", **GENTLE)
        if others:
            Store.read = plain_read  # type: ignore[method-assign]
            at_loss(3, die)
        self.attempt("dead", **GENTLE)

    def keep(self, name: str, file: str) -> None:
        """How far a training is."""
        if self.processes.is_main:
            progress = Run.open(*(self.folder / name).iterdir()).load("last.pt")["progress"]
            (self.folder / file).write_text(json.dumps(progress))

    def attempt(self, name: str, **options: Any) -> None:
        """Train, or continue what there is where nothing is chosen; note how it ended."""
        folder = self.folder / name
        try:
            if not self.processes.is_main:
                train.follow(self.processes)
            elif options:
                train.train([self.store], Options(**options), folder, lambda text: None, ranks=self.processes)
                train.dismiss(self.processes)
            else:
                train.resume(Run.open(*folder.iterdir()), echo=lambda text: None, ranks=self.processes)
                train.dismiss(self.processes)
            self.ended[name] = "finished"
        except (MgcError, KeyboardInterrupt) as error:
            self.ended[name] = f"{type(error).__name__}: {error}"
        (self.folder / f"ended-{self.processes.rank}.json").write_text(json.dumps(self.ended))


if __name__ == "__main__":
    main(Store.open(Path(sys.argv[1])), Path(sys.argv[2]))
