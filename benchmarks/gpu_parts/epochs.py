"""An epoch of a store as large as FMA-small, by `mgc train`'s own code."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from train import make_learner

from gpu_parts.measurement import Row, Setup, no_time, synchronise, timed
from gpu_parts.sources import FMA_SMALL, SMALLEST, SYSTEMS, noise_store, window
from gpu_parts.steps import update
from mgc.models.parallel.device import seed_everything
from mgc.models.registry import systems
from mgc.models.training import loop
from mgc.models.training.assembly import build_learner, open_run
from mgc.models.training.options import Options
from mgc.models.training.preparation import prepare
from mgc.models.training.train import train
from mgc.pipeline.store.store import Store

#: The longest that an epoch of the smallest network may take, in seconds.
EPOCH_BAR = 1.5
#: Epochs of a training: the first one reads the frames and is not counted.
EPOCHS = 2


def measure_epochs(setup: Setup) -> Iterator[Row]:
    """Measure an epoch of each system, or a part of it if it takes too long."""
    for number, id in enumerate(SYSTEMS):
        label = f"epoch of {setup.size(sum(FMA_SMALL), 16):,} tracks, {id}"
        if setup.left < 5:
            yield no_time(label)
            continue
        store = noise_store(setup, id, setup.size(FMA_SMALL[0], 8), setup.size(FMA_SMALL[1], 8))
        yield _measure(setup, label, id, store, setup.left / (len(SYSTEMS) - number))


def _measure(setup: Setup, label: str, id: str, store: Store, seconds: float) -> Row:
    """Measure an epoch within some seconds."""
    recipe = systems.get(id).recipe.training
    assert recipe is not None
    batch_size = setup.size(recipe.batch_size, 8 if id == SMALLEST else 2)
    splits = store.slices["split"].to_pylist()
    n_updates = -(-splits.count("training") // batch_size)
    seed_everything(0)
    learner, random_batch = make_learner(id, batch_size, window(id, store), setup.device)
    for _ in range(setup.size(5, 1)):
        learner.update(random_batch, 0)
    steps = setup.size(20, 1)
    work = functools.partial(update, learner, itertools.repeat(random_batch), steps)
    random_s = timed(setup.device, work) / steps
    del learner, random_batch, work  # free their memory for the frames
    options = Options(id, epochs=EPOCHS, batch_size=batch_size, seed=0, device=str(setup.device))
    folder = setup.folder / "epochs" / id.replace("/", "-")
    # An epoch takes at least as long as its updates; validation and reading the frames come on top.
    is_whole = (setup.smoke and id == SMALLEST) or 2 * EPOCHS * n_updates * random_s < seconds
    if is_whole:
        epoch_s, validation_s = _train(setup, store, options, folder)
        measured, update_s = n_updates, (epoch_s - validation_s) / n_updates
    else:
        measured = setup.size(max(3, min(n_updates, int(seconds / 3 / random_s))), 1)
        run = prepare([store], options, folder, lambda line: None)
        data = open_run(run, [store])
        learner = build_learner(run, data, lambda line: None)
        batches = data.training.streams[0].batches()
        learner.update(next(batches), 0)
        update_s = timed(setup.device, lambda: update(learner, batches, measured)) / measured
        batches.close()
        epoch_s = update_s * n_updates
    other = 1 - random_s / update_s
    figures = {"seconds": epoch_s, "updates": n_updates, "measured_updates": measured, "other_share": other}
    figures |= {"update_ms": 1000 * update_s, "random_ms": 1000 * random_s}
    what = "with validation" if is_whole else f"by {measured:,} of its updates, without validation"
    text = f"{epoch_s:.2f} s {what}; {n_updates:,} updates of {1000 * update_s:.2f} ms, {other:.0%} not the network"
    if id != SMALLEST:
        return Row(label, text, figures=figures)
    return Row(label, text, f"≤ {EPOCH_BAR} s", None if setup.smoke else epoch_s <= EPOCH_BAR, figures)


def _train(setup: Setup, store: Store, options: Options, folder: Path) -> tuple[float, float]:
    """Train; return the seconds of the last epoch, and those of its validation, which are a part of them."""
    seconds: list[float] = []
    validate = loop.validate

    def timed_validate(*arguments: Any) -> dict[str, float]:
        synchronise(setup.device)
        start = time.perf_counter()
        scores = validate(*arguments)
        seconds.append(time.perf_counter() - start)
        return scores

    with mock.patch.object(loop, "validate", timed_validate):
        run = train([store], options, folder, echo=lambda line: None)
    return run.history[-1]["seconds"], seconds[-1]
