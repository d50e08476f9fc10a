"""The probability below which a file is of none of the genres, chosen on the validation split of a run."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mgc.models.evaluation import tables
from mgc.models.evaluation.evaluate import results_name
from mgc.models.runs.run import Run
from mgc.pipeline.errors import RunError

#: Share of the rightly named validation tracks that keep their name.
KEPT = 0.95


#: Table of the validation tracks that the threshold, and a temperature, are chosen by.
VALIDATION_TRACKS = results_name("track-predictions.parquet", "validation")


def not_validated(run: Run, option: str) -> RunError:
    """The error that a run was not evaluated on its validation tracks, which an option needs."""
    problem = f"{option}: {run.path} has not been evaluated on its validation tracks"
    return RunError(problem, f"`mgc evaluate {shlex.quote(str(run.path))} --split validation` does it")


@dataclass(frozen=True)
class Threshold:
    """A probability that the most probable genre must reach to be named.

    Attributes:
        probability: the least probability, from 0 to 1.
        n_tracks: number of rightly named validation tracks that it was chosen on.
    """

    probability: float
    n_tracks: int


def choose_threshold(run: Run, calibrate: Callable[[np.ndarray], np.ndarray] = lambda shares: shares) -> Threshold:
    """Choose the greatest probability that `KEPT` of the rightly named validation tracks reach.

    This knows nothing of music of other genres: it only limits how many right names are lost.

    Args:
        run: the run.
        calibrate: function from probabilities `(n, K)` to those that are shown.

    Raises:
        RunError: the run was not evaluated on its validation tracks, or none of them is named rightly.
    """
    try:
        truth, shares = tables.read_tracks(run, VALIDATION_TRACKS)
    except FileNotFoundError:
        raise not_validated(run, "--unknown validation") from None
    right = shares.argmax(axis=1) == truth
    if not right.any():
        problem = f"--unknown validation: the run names none of its {len(right)} validation tracks rightly"
        raise RunError(problem, "give a probability instead")
    highest = np.sort(calibrate(shares).max(axis=1)[right])
    return Threshold(float(highest[int((1 - KEPT) * len(highest))]), len(highest))
