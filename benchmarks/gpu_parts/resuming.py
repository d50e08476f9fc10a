"""Whether an interrupted training ends with the same weights, bit for bit."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch

from gpu_parts.measurement import Row, Setup, no_time
from gpu_parts.sources import DEEPEST, SMALLEST, SYSTEMS, noise_store
from mgc.models.data.stream import Batch
from mgc.models.runs.run import Run
from mgc.models.training.learner import Learner
from mgc.models.training.options import Options
from mgc.models.training.train import resume, train
from mgc.pipeline.store.store import Store

#: Number of the update that Ctrl-C reaches.
INTERRUPTED = 5


def resume_exactly(setup: Setup) -> Iterator[Row]:
    """Compare the weights of a whole training with those of an interrupted one; then without deterministic kernels."""
    # cuBLAS is deterministic with a workspace of its own for each stream; it reads this when it is first used.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    for deterministic in (True, False):
        for id in (SMALLEST,) if setup.smoke else SYSTEMS:
            label = f"resume, {id}, {'deterministic algorithms' if deterministic else 'as mgc trains'}"
            if setup.left < 5:
                yield no_time(label)
                continue
            yield _compare(setup, label, id, deterministic)


def _compare(setup: Setup, label: str, id: str, deterministic: bool) -> Row:
    store = noise_store(setup, id, setup.size(24 if id == DEEPEST else 96, 8), 8)
    batch_size = setup.size(16, 8)
    options = Options(id, epochs=2, batch_size=batch_size, seed=0, device=str(setup.device), keep_last=True)
    folder = setup.folder / f"resumed-{id.replace('/', '-')}-{deterministic}"
    bar = "the same weights" if deterministic else ""
    try:
        torch.use_deterministic_algorithms(deterministic)
        whole = weights_digest(train([store], options, folder / "whole", echo=lambda line: None))
        again = weights_digest(interrupted(store, options, folder / "parts"))
    except RuntimeError as error:  # an operator has no deterministic implementation
        if "deterministic" not in str(error).lower():
            raise
        return Row(label, str(error).partition(". ")[0].partition("\n")[0], bar, False)
    finally:
        torch.use_deterministic_algorithms(False)
    text = f"{whole[:12]} without an interruption, {again[:12]} with one"
    return Row(label, text, bar, whole == again if bar else None, {"equal": float(whole == again)})


def interrupted(store: Store, options: Options, folder: Path) -> Run:
    """Train with a Ctrl-C in the middle of an update, and continue."""
    numbers, update = itertools.count(1), Learner.update

    def update_with_signal(self: Learner, batch: Batch, epoch: int) -> tuple[float, int]:
        if next(numbers) == INTERRUPTED:
            signal.raise_signal(signal.SIGINT)
        return update(self, batch, epoch)

    with mock.patch.object(Learner, "update", update_with_signal), contextlib.suppress(KeyboardInterrupt):
        train([store], options, folder, echo=lambda line: None)
    (path,) = folder.iterdir()
    run = Run.open(path)
    assert not run.finished, "the training was not interrupted"
    resume(run, echo=lambda line: None)
    return Run.open(path)


def weights_digest(run: Run) -> str:
    """SHA-256 of the weights after the last update, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name, weight in sorted(run.load("last.pt")["model"].items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
