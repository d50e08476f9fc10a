"""Several runs that differ in their seed, or in the tracks they validate on: what the choice of either is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mgc.models.runs.run import Run
from mgc.models.training.loop import Echo
from mgc.pipeline.errors import SpecError

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


def repeat(
    train: Callable[[int], Run], numbers: Sequence[int], echo: Echo = print, *, what: str = "seed", option: str = ""
) -> list[Run]:
    """A run of each seed or fold, one after the other.

    Args:
        train: makes the run of a number.
        numbers: at least one.
        echo: prints a line.
        what: a number is.
        option: what stands before the numbers of those that are left, to be typed again.
    """
    runs = []
    for place, number in enumerate(numbers):
        echo(f"{what} {number}, run {place + 1} of {len(numbers)}")
        try:
            runs.append(train(number))
        except KeyboardInterrupt:
            if left := numbers[place + 1 :]:
                echo(f"{what}s that are left: {option}{','.join(map(str, left))}")
            raise
    return runs


def spread(runs: Sequence[Run], what: str = "seed") -> list[str]:
    """Mean, standard deviation (of a sample: n - 1), least and most of the validation accuracy, and each, in lines."""
    lines = []
    for metric, label in METRICS.items():
        values = 100 * np.array([run.summary["best"][metric] for run in runs])
        deviation = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
        span = f"{values.min():.1f} to {values.max():.1f}"
        each = ", ".join(f"{value:.1f}" for value in values)
        lines.append(
            f"validation accuracy {label} of {len(runs)} {what}s: {values.mean():.1f} %{deviation} ({span}): {each}"
        )
    return lines
