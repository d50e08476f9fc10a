"""All pairs of systems on the same tracks: differences of their scores, tests, and letters."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgc.models.compare import multiple
from mgc.models.compare.scores import Items, SystemScores, training_variance
from mgc.models.evaluation import paired
from mgc.models.evaluation.intervals import LEVEL
from mgc.models.evaluation.paired import Span


@dataclass(frozen=True)
class Pair:
    """Two systems on the same tracks.

    Attributes:
        first, second: numbers of their rows.
        accuracy, macro_f1: score of the first less that of the second.
        only_first, only_second: tracks that only the first or the second has right; for systems that were trained
            several times, the mean over all pairs of their trainings.
        mcnemar: p-value of McNemar's exact test over the tracks, as other work reports it, which takes the tracks of an
            artist for independent; None if a system was trained several times.
        p: p-value of the test that decides: McNemar's with the tracks of an artist exchanged together; if a system was
            trained several times, Student's t with the variance of artists and trainings.
        p_holm: `p`, corrected for the number of pairs.
        trainings: standard deviation of the difference between one training of each; None if both were trained once.
    """

    first: int
    second: int
    accuracy: Span
    macro_f1: Span
    only_first: float
    only_second: float
    mcnemar: float | None
    p: float
    p_holm: float
    trainings: float | None

    @property
    def differs(self) -> bool:
        """Whether the systems differ, at 5 % for all pairs together."""
        return self.p_holm < 1 - LEVEL

    @property
    def within_trainings(self) -> bool:
        """Whether the difference of the accuracies is within the spread of trainings with other seeds or folds."""
        return self.trainings is not None and abs(self.accuracy.difference) <= self.trainings

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON, the verdicts included."""
        return dataclasses.asdict(self) | {"differs": self.differs, "within_trainings": self.within_trainings}


def compare_all(items: Items, systems: Sequence[SystemScores]) -> tuple[list[Pair], list[str]]:
    """Compare all pairs of systems.

    Args:
        items: the tracks.
        systems: the systems, the best one first.

    Returns:
        The pairs, in the order of their numbers; and the letters of each system: two that share one do not differ.
    """
    pairs = [
        _compare(items, systems, first, second) for first, second in itertools.combinations(range(len(systems)), 2)
    ]
    adjusted = multiple.holm([pair.p for pair in pairs])
    pairs = [dataclasses.replace(pair, p_holm=p) for pair, p in zip(pairs, adjusted, strict=True)]
    different = [(pair.first, pair.second) for pair in pairs if pair.differs]
    return pairs, multiple.letters(len(systems), different)


def _compare(items: Items, systems: Sequence[SystemScores], first: int, second: int) -> Pair:
    """Compare two systems; `p_holm` is still `p`."""
    a, b = systems[first], systems[second]
    n_artists = len(items.sizes)
    differences = a.right.mean(axis=0) - b.right.mean(axis=0)
    accuracy = a.resampled_accuracy - b.resampled_accuracy
    macro_f1 = a.resampled_macro_f1 - b.resampled_macro_f1
    seeds = (*training_variance(a.accuracies), *training_variance(b.accuracies))
    f1_seeds = (*training_variance(a.macro_f1s), *training_variance(b.macro_f1s))
    error = paired.accuracy_error(differences, accuracy, items.sizes, seeds)
    f1_error = paired.score_error(error, macro_f1, n_artists, f1_seeds)
    mcnemar = None
    if len(a.right) == len(b.right) == 1:
        only_a, only_b = a.right[0] & ~b.right[0], b.right[0] & ~a.right[0]
        mcnemar = paired.mcnemar(only_a, only_b)
        p = paired.mcnemar(*(np.bincount(items.artists, only, n_artists).astype(np.int64) for only in (only_a, only_b)))
    else:
        p = paired.p_value(a.accuracy - b.accuracy, error)
    right_a, right_b = a.right.mean(axis=0), b.right.mean(axis=0)
    return Pair(
        first=first,
        second=second,
        accuracy=paired.span(a.accuracy - b.accuracy, error, accuracy),
        macro_f1=paired.span(a.macro_f1 - b.macro_f1, f1_error, macro_f1),
        only_first=float((right_a * (1 - right_b)).sum()),
        only_second=float((right_b * (1 - right_a)).sum()),
        mcnemar=mcnemar,
        p=p,
        p_holm=p,
        trainings=_spread(a, b),
    )


def _spread(a: SystemScores, b: SystemScores) -> float | None:
    """Standard deviation of the difference between a training of each system; that of a single one counts as 0."""
    deviations = [system.deviation for system in (a, b) if system.deviation is not None]
    return float(np.hypot.reduce(deviations)) if deviations else None
