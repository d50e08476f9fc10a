"""Several runs that differ in their seed alone: what the choice of a seed is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.loop import Echo
from models.runs import Run
from pipeline.errors import SpecError

#: What is compared: the validation accuracies of each run's best epoch.
METRICS = {"validation_accuracy": "by slice", "validation_track_accuracy": "by track"}


def parse(text: str) -> tuple[int, ...]:
    """Seeds of `0,1,2`.

    Raises:
        SpecError: one is no whole number, negative, or there twice.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words) or len({int(word) for word in words}) < len(words):
        raise SpecError(f"--seeds {text}", "write different whole numbers, such as 0,1,2")
    return tuple(int(word) for word in words)


def train_seeds(train: Callable[[int], Run], seeds: Sequence[int], echo: Echo = print) -> list[Run]:
    """A run of each seed, one after the other.

    Args:
        train: makes the run of a seed.
        seeds: at least one.
        echo: prints a line.
    """
    runs = []
    for number, seed in enumerate(seeds):
        echo(f"seed {seed}, run {number + 1} of {len(seeds)}")
        try:
            runs.append(train(seed))
        except KeyboardInterrupt:
            if left := seeds[number + 1 :]:
                echo(f"seeds that are left: {','.join(map(str, left))}")
            raise
    return runs


def spread(runs: Sequence[Run]) -> list[str]:
    """Mean, standard deviation (of a sample: n - 1), least and most of the validation accuracy, in lines."""
    lines = []
    for metric, label in METRICS.items():
        values = 100 * np.array([run.summary["best"][metric] for run in runs])
        deviation = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
        span = f"{values.min():.1f} to {values.max():.1f}"
        lines.append(f"validation accuracy {label} of {len(runs)} seeds: {values.mean():.1f} %{deviation} ({span})")
    return lines
