"""The result of an evaluation: scores of a run, or of the mean of several, and what they were measured on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from mgc.models.evaluation.intervals import Chance
from mgc.models.evaluation.metrics import Scores


@dataclass(frozen=True)
class Evaluation:
    """How good a run, or the mean of several, is on a split.

    Attributes:
        runs: configuration of each run, its folder included.
        dataset: name of the dataset.
        split: what it was measured on.
        n_tracks, n_artists: how much that is.
        n_unattributed: tracks whose artist is not known.
        by_track: scores of the mean probabilities of each track's slices.
        by_slice: scores of the slices; None for an ensemble of runs that cut their tracks differently.
        chance: what guessing would reach by track.
        differences: settings other than the studies', of any run.
        leaky: whether slices of one track were on both sides of a run's split.
        evaluations: how often this split of the run has been evaluated; None for several runs.
        bootstrap: resamples and seed of the intervals.
        versions: of the libraries that computed the scores.
    """

    runs: tuple[dict[str, Any], ...]
    dataset: str
    split: str
    n_tracks: int
    n_artists: int
    n_unattributed: int
    by_track: Scores
    by_slice: Scores | None
    chance: Chance
    differences: tuple[str, ...]
    leaky: bool
    evaluations: int | None
    bootstrap: dict[str, int]
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for what is undefined."""
        return dataclasses.asdict(self)
