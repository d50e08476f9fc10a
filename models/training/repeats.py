"""Repeated training: one run per seed or cross-validation fold, and the spread of their accuracies."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from mgc.models.runs.run import Run
from mgc.models.training.loop import Echo
from mgc.pipeline.errors import SpecError
from mgc.pipeline.option_types import MAX_SEED

#: Scores of each run's best epoch that are summarised, and their labels.
METRICS = {"validation_accuracy": "by slice", "validation_track_accuracy": "by track"}


def parse(text: str) -> tuple[int, ...]:
    """Parse the value of `--seeds`, such as `0,1,2`.

    Raises:
        SpecError: a seed is not a whole number, negative, repeated, or too large.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words) or len({int(word) for word in words}) < len(words):
        raise SpecError(f"--seeds {text}", "write different whole numbers, such as 0,1,2")
    if max(map(int, words)) > MAX_SEED:
        raise SpecError(f"--seeds {text}", f"a seed must be at most {MAX_SEED}")
    return tuple(int(word) for word in words)


def repeat(
    train: Callable[[int], Run], numbers: Sequence[int], echo: Echo = print, *, label: str = "seed", option: str = ""
) -> list[Run]:
    """Train one run per number, one after the other.

    Args:
        train: trains the run of a seed or fold.
        numbers: seeds or folds, at least one.
        echo: prints a line.
        label: what a number counts, `seed` or `fold`.
        option: start of the option that trains the remaining numbers, printed when Ctrl-C interrupts a run.
    """
    runs = []
    for index, number in enumerate(numbers):
        echo(f"{label} {number}, run {index + 1} of {len(numbers)}")
        try:
            runs.append(train(number))
        except KeyboardInterrupt:
            if left := numbers[index + 1 :]:
                echo(f"{label}s that are left: {option}{','.join(map(str, left))}")
            raise
    return runs


def spread(runs: Sequence[Run], label: str = "seed") -> list[str]:
    """Summarise the validation accuracies of repeated runs, one line for each of `METRICS`.

    Args:
        runs: finished runs, at least one.
        label: what the runs differ in, `seed` or `fold`.

    Returns:
        Lines with mean, sample standard deviation (n - 1), minimum, maximum and all values, in per cent.
    """
    return [
        _spread(f"validation accuracy {unit}", [run.summary["best"][metric] for run in runs], f"{label}s{_mark(runs)}")
        for metric, unit in METRICS.items()
    ]


def spread_of_tests(runs: Sequence[Run], label: str = "seed") -> list[str]:
    """Summarise the test accuracies of repeated runs that have been evaluated, like `spread`."""
    measured = [json.loads(run.read("metrics.json")) for run in runs]
    each = f"{label}s{_mark(runs)}" + (", each fold's run on the same test split" if label == "fold" else "")
    return [
        _spread(f"test accuracy by {item}", [scores[f"by_{item}"]["accuracy"] for scores in measured], each)
        for item in ("track", "slice")
    ]


def _mark(runs: Sequence[Run]) -> str:
    return " (leaky)" if any(run.config["leaky"] for run in runs) else ""


def _spread(what: str, accuracies: Sequence[float], each: str) -> str:
    """A line with mean, standard deviation, range and all values, in per cent."""
    values = 100 * np.array(accuracies)
    deviation = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    span = f"{values.min():.1f} to {values.max():.1f}"
    return f"{what} of {len(values)} {each}: {values.mean():.1f} %{deviation} ({span}): " + ", ".join(
        f"{value:.1f}" for value in values
    )
