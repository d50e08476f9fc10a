"""The training loop of a network: updates, validation, the best epoch, and checkpoints that continue bit for bit."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mgc.models.data.augment import Augmenter
from mgc.models.data.parts import Part
from mgc.models.data.stream import Batch
from mgc.models.network import Network, outputs
from mgc.models.parallel.device import random_state, restore_random_state
from mgc.models.parallel.ranks import ALONE, Ranks
from mgc.models.registry.recipes import Training
from mgc.models.runs.run import Run
from mgc.models.training import memory
from mgc.models.training.learner import Learner
from mgc.models.training.optim import LOSSES
from mgc.models.training.progress import Progress, line, remaining, uninterrupted
from mgc.pipeline.errors import RunError, StoreError

#: The state is saved after every epoch, and within one when the last time is this many seconds ago.
CHECKPOINT_SECONDS = 120.0
#: Updates are timed for so long, an epoch at most, before the remaining time is estimated.
ESTIMATE_SECONDS = 15.0

Echo = Callable[[str], None]


def fit(
    run: Run,
    network: Network,
    recipe: Training,
    training: Part,
    validation: Part,
    augmenter: Augmenter | None = None,
    echo: Echo = print,
    ranks: Ranks = ALONE,
    closed: Callable[[dict[str, Any]], object] = lambda entry: None,
) -> Progress:
    """Train until the recipe's end, from the run's last checkpoint where it has one.

    Args:
        run: where checkpoints and history go.
        network: freshly initialised, on the device.
        recipe: how to train.
        training: what is learnt from.
        validation: slices that the best epoch is chosen by.
        augmenter: changes what is learnt from.
        echo: prints a line.
        ranks: the processes that train together, all of which call this.
        closed: told the history's entry of each epoch, once that is saved.

    Raises:
        RunError: the loss is no longer a number, the device's memory is exhausted, or the checkpoint cannot be
            continued.
        StoreError: a shard is missing or damaged. The state is saved, as it is upon Ctrl-C.
        MgcError: a checkpoint cannot be written; the one before is kept.
    """
    stream, device = training.stream, training.stream.device
    learner = Learner(network, recipe, stream.labels, len(run.classes), len(stream), device, augmenter, ranks)
    at = Progress()
    ranks.diverge(run.config["seed"])
    if ranks.told((run.path / "last.pt").exists()):
        at = restore(run, learner.parts, device, ranks)
        echo(f"continues in epoch {at.epoch + 1}, after {at.batch} of {len(stream)} batches")
    timed: list[float] | None = []
    saved = time.monotonic()
    size = 0
    try:
        while not at.finished(recipe):
            network.train()
            label = f"epoch {at.epoch + 1}/{recipe.epochs}"
            with tqdm(None, label, len(stream), initial=at.batch, leave=False, disable=None) as bar:
                started = time.monotonic()
                for batch in ranks.steps(stream.batches(at.epoch, at.batch)):
                    size = len(batch.rows)
                    with uninterrupted():
                        at.batch = batch.number
                        ours, recognised = learner.update(batch, at.epoch)
                        late = ranks.first and time.monotonic() - saved > CHECKPOINT_SECONDS
                        loss, correct, slices, due = ranks.total(ours, recognised, size, late)
                        finite(run, loss, learner.lr, at, batch, training, ranks)
                        seconds, started = time.monotonic() - started, time.monotonic()
                        at.add(loss, int(correct), int(slices), seconds)
                        if due:
                            save(run, learner.parts, device, at, ranks)
                            saved = time.monotonic()
                    bar.set_postfix({name: f"{value:.3f}" for name, value in at.means().items()}, refresh=False)
                    bar.update(at.batch - bar.n)
                    if timed is not None:
                        timed.append(seconds)
                        if sum(timed) > ESTIMATE_SECONDS or at.batch == len(stream):
                            with bar.external_write_mode():
                                echo(remaining(timed, at, recipe, len(stream), len(validation.stream)))
                            timed = None
            if not at.slices:
                raise StoreError("no shard to train on can be read", "run `mgc extract --verify`: it repairs them")
            ranks.align(learner.network)
            scores = validate(learner.network, recipe, validation, ranks)
            for problem in {*training.damaged, *validation.damaged}.difference(at.damaged):
                at.damaged.append(problem)
                echo(f"goes on without {problem}")
            with uninterrupted():
                lr = learner.lr
                learner.close(scores)
                better = at.close(scores, lr, time.monotonic() - started, recipe)
                if better and ranks.first:
                    run.save("best.pt", learner.network.weights() | {"epoch": at.epoch})
                save(run, learner.parts, device, at, ranks)
                saved = time.monotonic()
            closed(at.history[-1])
            echo(line(at.history[-1], recipe) + ("  best so far" if better else ""))
        return at
    except (KeyboardInterrupt, StoreError):
        save(run, learner.parts, device, at, ranks)
        echo(f"saved in epoch {at.epoch + 1}, after {at.batch} of {len(stream)} batches")
        echo(f"`mgc train --resume --run {run.path}` goes on from there")
        raise
    except torch.OutOfMemoryError:
        pass  # until here the traceback holds on to what the update was made of
    raise memory.exhausted(learner, (training, validation), size, ranks.size)


def validate(network: Network, recipe: Training, validation: Part, ranks: Ranks = ALONE) -> dict[str, float]:
    """Loss and accuracy on slices, and accuracy on tracks by the mean of their slices' probabilities.

    The loss is the recipe's without label smoothing and weights. What could not be read is left out. Of several
    processes each predicts its share, and all get the scores of the whole.

    Raises:
        RunError: the loss is not a number.
        StoreError: nothing could be read.
    """
    logits = outputs(network, validation.stream, "validation", ranks)
    kept = np.flatnonzero(~validation.lost)
    if not len(kept):
        raise StoreError("no shard to validate with can be read", "run `mgc extract --verify`: it repairs them")
    logits, labels = logits[kept], validation.stream.labels[kept]
    loss = float(LOSSES[recipe.loss](logits, torch.from_numpy(labels)))
    if not math.isfinite(loss):
        raise ranks.known(RunError(f"the validation loss is {loss}", "train with a lower learning rate: --lr"))
    tracks = np.unique(validation.tracks[kept], return_inverse=True)[1]
    # The first one's, as machines may differ in the last bit, by which one would stop and another go on.
    return ranks.told({"loss": loss} | accuracies(logits.softmax(dim=1).numpy(), labels, tracks))


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


#: Parts that checkpoints had not from the first, and that have no state unless something asks for it.
_LATER = ("inputs", "scaler")


def save(run: Run, parts: dict[str, Any], device: torch.device, at: Progress, ranks: Ranks = ALONE) -> None:
    """Write the whole state after the last update: whatever happens next, `restore` gets it back.

    The first process writes. But for random numbers, the others' state is the same wherever it matters.
    """
    random, *others = ranks.gather(random_state(device))
    if not ranks.first:
        return
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"random": random, "progress": dataclasses.asdict(at)} | ({"others": others} if others else {})
    run.save("last.pt", state)
    run.write_history(at.history)


def restore(run: Run, parts: dict[str, Any], device: torch.device, ranks: Ranks = ALONE) -> Progress:
    """Put everything back to where `save` found it.

    Raises:
        RunError: the checkpoint is damaged, or of another model.
    """
    state = run.load("last.pt")
    try:
        for name, part in parts.items():
            part.load_state_dict(state.get(name, {}) if name in _LATER else state[name])
        random = state["random"] if ranks.first else state["others"][ranks.rank - 1]
        restore_random_state(random, device)
        return Progress(**state["progress"])
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise RunError(f"{run.path / 'last.pt'}: cannot be continued ({first_line})", "train a new run") from error


def finite(run: Run, loss: float, lr: float, at: Progress, batch: Batch, training: Part, ranks: Ranks = ALONE) -> None:
    """Let a loss pass that is a number; of another one keep what it was the loss of.

    Raises:
        RunError: it is not a number.
    """
    if math.isfinite(loss):
        return
    rows = np.concatenate(ranks.gather(batch.rows))
    slices = training.slices.select(["track_id", "variant", "start_s"]).take(rows).to_pylist()
    found = {"epoch": at.epoch + 1, "step": at.batch + 1, "loss": str(loss), "next_lr": lr, "slices": slices}
    if ranks.first:
        run.record("not-finite.json", found)
    problem = (
        f"the loss became {loss} in epoch {at.epoch + 1}, step {at.batch + 1}, on the slices in "
        f"{run.path / 'not-finite.json'}"
    )
    raise ranks.known(RunError(problem, "train with a lower learning rate: --lr"))
