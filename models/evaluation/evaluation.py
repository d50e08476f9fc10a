"""The result of an evaluation: scores of a run, or of an ensemble of runs, and the data they were measured on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from mgc.models.evaluation.intervals import Chance
from mgc.models.evaluation.metrics import Scores


@dataclass(frozen=True)
class Evaluation:
    """Scores of a run, or of the mean probabilities of several, on a split.

    Attributes:
        runs: configuration of each run, with its folder under `run`.
        dataset: name of the dataset.
        trained_on: name of the dataset that the runs were trained on.
        split: training, validation or test; `all` for all tracks of another dataset than the runs'.
        n_tracks: number of tracks.
        n_artists: number of known artists.
        n_unattributed: number of tracks with an unknown artist.
        by_track: scores of tracks, by the joined probabilities of their slices.
        by_slice: scores of slices; None for an ensemble of runs that cut their tracks differently.
        join: how the probabilities of a track are joined from those of its slices, one of `joining.JOINS`.
        joins: accuracy and macro F1 by track for each of these.
        chance: accuracy of guessing, by track.
        calibration: for a single run that was evaluated on its validation tracks before: their temperature, 1 if they
            tell no better one, and what it does to the tracks, see `temperature.Temperature.effect`; else None.
        differences: settings of any run that differ from its study's.
        leaky: whether a run had slices of one track, or copies of one file, on both sides of its split.
        n_heard: number of tracks whose file, byte for byte, is also a training track of a run (for the test split: or a
            validation track).
        other: with another dataset than the runs': what was scored and left out, see `other_dataset.OtherDataset`.
        other_seeds: whether the network was also trained with other seeds, see `mgc.models.runs.seeds`; None for
            several runs, classical systems and ensembles.
        evaluations: number of evaluations of this split of the run, this one included; None for several runs.
        audit: verdict of the store's last audit on the test tracks, see `audited.verdict`; None if there is none.
        bootstrap: number of resamples and seed of the intervals.
        versions: versions of the libraries that computed the scores.
        track_ids: ids of the tracks; not in the JSON, as track-predictions.parquet has them.
    """

    runs: tuple[dict[str, Any], ...]
    dataset: str
    trained_on: str
    split: str
    n_tracks: int
    n_artists: int
    n_unattributed: int
    by_track: Scores
    by_slice: Scores | None
    join: str
    joins: dict[str, dict[str, float]]
    chance: Chance
    calibration: dict[str, Any] | None
    differences: tuple[str, ...]
    leaky: bool
    n_heard: int
    other: dict[str, Any] | None
    other_seeds: bool | None
    evaluations: int | None
    audit: dict[str, Any] | None
    bootstrap: dict[str, int]
    versions: dict[str, str]
    track_ids: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON; undefined scores are None."""
        values = dataclasses.asdict(self)
        del values["track_ids"]
        return values
