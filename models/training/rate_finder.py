"""Learning rate range test: train while the learning rate grows from far too low to far too high.

The method is that of L. N. Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3, except
that the rate grows by a constant factor per update instead of linearly.
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
from mgc.models.training.assembly import build_learner, open_run
from mgc.models.training.options import Options
from mgc.models.training.preparation import prepare
from mgc.pipeline import console
from mgc.pipeline.errors import RunError, SpecError
from mgc.pipeline.store.store import Store

#: First and last learning rate, and number of updates.
LOWEST, HIGHEST, STEPS = 1e-7, 1.0, 100
#: Decay of the moving average of the losses, which vary from batch to batch.
SMOOTHING = 0.9
#: The test stops once the smoothed loss exceeds this multiple of its minimum.
DIVERGED = 4.0


def range_test(run: Run, stores: Sequence[Store], steps: int = STEPS) -> tuple[np.ndarray, np.ndarray]:
    """Train from a run's beginning with growing learning rates; nothing is saved.

    Args:
        run: run without a checkpoint.
        stores: store of each input of its system.
        steps: number of updates from `LOWEST` to `HIGHEST`.

    Returns:
        Learning rates and smoothed losses, float64 `(updates,)`; fewer than `steps` if the loss diverges.

    Raises:
        StoreError: a shard is missing or damaged.
        MgcError: the errors of `assembly.open_run`.
    """
    data = open_run(run, stores)
    learner, stream = build_learner(run, data), data.training.stream
    rates = np.geomspace(LOWEST, HIGHEST, steps)
    losses: list[float] = []
    mean = 0.0
    batches = ((epoch, batch) for epoch in itertools.count() for batch in stream.batches(epoch))
    learner.train()
    for step, rate in enumerate(tqdm(rates, "rates", leave=False, disable=console.hides_bars()), 1):
        epoch, batch = next(batches)
        learner.lr = float(rate)
        loss, _ = learner.update(batch, epoch).read()
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        losses.append(mean / (1 - SMOOTHING**step))  # corrects the bias of the average towards its start at 0
        if not math.isfinite(loss) or losses[-1] > DIVERGED * min(losses):
            losses.pop()
            break
    return rates[: len(losses)], np.array(losses)


def steepest(rates: np.ndarray, losses: np.ndarray) -> float:
    """Return the rate at which the loss falls fastest, per logarithm of the rate, before its minimum.

    Args:
        rates: learning rates, ascending, `(updates,)`.
        losses: smoothed loss at each rate, `(updates,)`.

    Raises:
        RunError: the loss never falls.
    """
    falling = losses[: int(np.argmin(losses)) + 1] if len(losses) else losses
    if len(falling) < 3:
        raise RunError("the loss does not fall at any learning rate", "look at the data, and at the recipe's settings")
    slopes = np.gradient(falling, np.log(rates[: len(falling)]))
    return float(rates[int(np.argmin(slopes))])


def suggest(stores: Sequence[Store], options: Options) -> list[str]:
    """Run the range test for a system, and format its result.

    Args:
        stores: store of each input of the system.
        options: settings that the user chose.

    Returns:
        Lines to print: the losses at one rate in ten, and the rate to train with.

    Raises:
        SpecError: the system is classical.
        MgcError: the errors of `mgc.models.training.train.train`.
    """
    system = systems.get(options.model or systems.default_model(stores[0].spec.name, stores[0].spec.bins))
    if system.recipe.training is None:
        raise SpecError(f"--find-lr: {system.id} is fitted in one step", "leave the option out")
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(stores, options, Path(folder), lambda text: None)
        return format_report(*range_test(run, stores))


def format_report(rates: np.ndarray, losses: np.ndarray) -> list[str]:
    """Format the loss at one rate in ten, and the rate to train with, as lines."""
    lines = [f"lr {rate:.1e}  loss {loss:.3f}" for rate, loss in zip(rates[::10], losses[::10], strict=True)]
    return [*lines, f"the loss falls fastest at {(rate := steepest(rates, losses)):.1e}; try --lr {rate:.1e}"]
