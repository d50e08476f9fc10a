"""Training steps with batches of the stream, against steps with the same random tensors."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator

from common import Spread
from loaders import endless_batches
from train import make_learner, make_updates, ratio

from gpu_parts.measurement import Row, Setup, needs_cuda, no_time, synchronise, timed
from gpu_parts.sources import DEEPEST, RESIDENCIES, SMALLEST, SYSTEMS, Source, open_source
from mgc.models.data.stream import Batch, Stream
from mgc.models.parallel.device import seed_everything
from mgc.models.training.learner import Learner

#: Settings of the loop by the name in the table. `float32` is contiguous; recipes are channels-last.
SETTINGS: dict[str, dict[str, object]] = {
    "float32": {"amp": "off", "channels_last": False},
    "bf16": {"amp": "bf16", "channels_last": False},
    "channels_last": {"amp": "off", "channels_last": True},
    "compile": {"amp": "off", "channels_last": True, "compile": True},
}
#: Highest ratios of a step with batches of the stream to one with random tensors, by residency.
BARS = {"device": 1.01, "stream": 1.03}
#: Names of the residencies in the table.
NAMES = {"device": "resident", "host": "host", "stream": "streamed"}
#: Seconds that a round takes per source of batches, and the bounds of its number of steps.
ROUND_SECONDS, STEPS = 0.4, (3, 400)


def measure_steps(setup: Setup) -> Iterator[Row]:
    """Measure all systems in all settings: the quick settings first, compilation last."""
    sources: dict[str, tuple[Source, dict[str, Stream]]] = {}
    ids = [id for id in SYSTEMS if not setup.smoke or id != DEEPEST]
    combinations = [
        (name, id) for name in SETTINGS for id in ids if not setup.smoke or name == "float32" or id == SMALLEST
    ]
    for number, (name, id) in enumerate(combinations):
        label = f"step, {id}, {name}"
        if name == "compile" and not setup.is_cuda and not shutil.which("g++"):
            yield needs_cuda(f"{label} (or a C++ compiler)")
            continue
        if setup.left < 5:
            yield no_time(label)
            continue
        if id not in sources:
            source = open_source(setup, id)
            sources[id] = source, {residency: source.stream(setup, residency) for residency in RESIDENCIES}
        seconds = setup.left / (len(combinations) - number)
        yield _measure(setup, label, *sources[id], SETTINGS[name], seconds)


def _measure(
    setup: Setup, label: str, source: Source, streams: dict[str, Stream], loop: dict[str, object], seconds: float
) -> Row:
    """Measure the steps of a system in one setting, in rounds that take about as many seconds as given."""
    seed_everything(0)  # as a training does: it chooses the algorithms of cuDNN
    learner, random_batch = make_learner(source.id, source.batch_size, source.frames, setup.device, **loop)
    random = itertools.repeat(random_batch)
    for _ in range(setup.size(5, 1)):
        learner.update(random_batch, 0)
    step_s = timed(setup.device, lambda: update(learner, random, setup.size(3, 1))) / setup.size(3, 1)
    budget = min(ROUND_SECONDS, seconds / 4 / 6)  # four sources of batches, in three rounds and twice as long at most
    steps = setup.size(min(max(round(budget / step_s), STEPS[0]), STEPS[1]), 1)
    rounds: dict[str, list[float]] = {name: [] for name in ("random", *streams)}
    for epoch in range(setup.size(3, 1)):
        rounds["random"].append(timed(setup.device, lambda: update(learner, random, steps)) / steps)
        for name, stream in streams.items():
            rounds[name].append(_time_stream(setup, learner, stream, epoch * steps, steps))
    ratios = {name: ratio(rounds[name], rounds["random"]) for name in streams}
    random_ms = 1000 * Spread.of(rounds["random"]).median
    figures = {"batch": source.batch_size, "steps": steps, "random_ms": random_ms}
    figures |= {f"{NAMES[name]}_ratio": spread.median for name, spread in ratios.items()}
    figures |= {f"{NAMES[name]}_ratio_min": spread.minimum for name, spread in ratios.items()}
    shown = ", ".join(f"{NAMES[name]} {spread.median:.3f}" for name, spread in ratios.items())
    bar = ", ".join(f"{NAMES[name]} ≤ {most}" for name, most in BARS.items())
    met = all(ratios[name].median <= most for name, most in BARS.items())
    text = f"{random_ms:.2f} ms a step of {source.batch_size}; {shown}"
    return Row(label, text, bar, None if setup.smoke else met, figures)


def update(learner: Learner, batches: Iterator[Batch], steps: int) -> None:
    """Make some updates, as the training loop does."""
    make_updates(learner, itertools.islice(batches, steps))


def _time_stream(setup: Setup, learner: Learner, stream: Stream, start: int, steps: int) -> float:
    """Seconds of a step with batches of a stream, from the second batch on: epoch after epoch, as in a training."""
    batches = endless_batches(stream, start % len(stream))
    learner.update(next(batches), 0)
    seconds = timed(setup.device, lambda: update(learner, batches, steps)) / steps
    batches.close()  # waits for the thread that reads ahead, which would slow down what is measured next
    synchronise(setup.device)
    return seconds
