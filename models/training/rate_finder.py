"""The learning rate finder: how the loss goes while the rate grows from far too low to far too high.

After L. N. Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3, with the rate growing by
the same factor from update to update.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.training.learner import Learner
from mgc.models.training.options import Options
from mgc.models.training.preparation import prepare
from mgc.models.training.train import build, open_run
from mgc.pipeline.errors import RunError, SpecError
from mgc.pipeline.store.store import Store

LOWEST, HIGHEST, STEPS = 1e-7, 1.0, 100
#: Share of the old in the mean of the losses, of which each batch has another one.
SMOOTHING = 0.9
#: The search ends where the loss is so many times the least one.
DIVERGED = 4.0


def find(run: Run, stores: Sequence[Store], steps: int = STEPS) -> tuple[np.ndarray, np.ndarray]:
    """Train from a run's beginning while the learning rate grows; nothing of it is kept.

    Args:
        run: its configuration; it has no checkpoint.
        stores: what it reads.
        steps: updates from `LOWEST` to `HIGHEST`.

    Returns:
        Learning rates and smoothed losses, float64 `(updates,)`: of fewer updates where the loss has diverged.

    Raises:
        StoreError: a shard is missing or damaged.
        MgcError: what `mgc.models.training.train.open_run` raises.
    """
    system, (training, _), _ = open_run(run, stores)
    network, recipe, augmenter = build(run, system, training)
    stream = training.stream
    learner = Learner(network, recipe, stream.labels, len(run.classes), len(stream), stream.device, augmenter)
    rates = np.geomspace(LOWEST, HIGHEST, steps)
    losses: list[float] = []
    mean = 0.0
    batches = ((epoch, batch) for epoch in itertools.count() for batch in stream.batches(epoch))
    network.train()
    for step, rate in enumerate(tqdm(rates, "rates", leave=False, disable=None), 1):
        epoch, batch = next(batches)
        learner.lr = float(rate)
        loss, _ = learner.update(batch, epoch)
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        losses.append(mean / (1 - SMOOTHING**step))
        if not math.isfinite(loss) or losses[-1] > DIVERGED * min(losses):
            losses.pop()
            break
    return rates[: len(losses)], np.array(losses)


def steepest(rates: np.ndarray, losses: np.ndarray) -> float:
    """The rate at which the loss falls fastest along the logarithm of the rate, before it is least.

    Raises:
        RunError: it never falls.
    """
    falling = losses[: int(np.argmin(losses)) + 1] if len(losses) else losses
    if len(falling) < 3:
        raise RunError("the loss does not fall at any learning rate", "look at the data, and at the recipe's settings")
    slopes = np.gradient(falling, np.log(rates[: len(falling)]))
    return float(rates[int(np.argmin(slopes))])


def advise(store: Store, options: Options, further: Sequence[Store] = ()) -> list[str]:
    """What `find` finds for a system, in lines; for arguments and errors see `mgc.models.training.train.train`."""
    system = systems.get(options.model or systems.default_model(store.spec.name))
    if system.recipe.training is None:
        raise SpecError(f"--find-lr: {system.id} is fitted in one step", "leave the option out")
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(store, options, Path(folder), lambda text: None, further)
        return report(*find(run, [store, *further]))


def report(rates: np.ndarray, losses: np.ndarray) -> list[str]:
    """The loss at one rate in ten, and the rate to try."""
    lines = [f"lr {rate:.1e}  loss {loss:.3f}" for rate, loss in zip(rates[::10], losses[::10], strict=True)]
    return [*lines, f"the loss falls fastest at {(rate := steepest(rates, losses)):.1e}; try --lr {rate:.1e}"]
