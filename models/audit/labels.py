"""Labels that models which did not hear the tracks contradict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from mgc.models.audit import confident
from mgc.models.audit.findings import Finding
from mgc.models.evaluation import tables
from mgc.models.evaluation.evaluate import results_path
from mgc.models.evaluation.metrics import Predictions
from mgc.models.runs.run import Run
from mgc.models.training.ensemble import members_of
from mgc.models.training.predict import predict, require_scorable
from mgc.pipeline.errors import RunError

_EFFECT = "A wrong label teaches the model a wrong genre, and counts its right answers as errors. Listen to the tracks."
_REMEDY = "mend tags or list, then mgc extract: it takes over new labels; the audit changes none"


@dataclass(frozen=True)
class Labels:
    """What runs say about the labels of tracks that they did not hear.

    Attributes:
        findings: a finding `label` for each suspect, the most contradicted first.
        covered: number of tracks with out-of-fold probabilities.
        tracks: number of all tracks.
        accuracy: share of the covered tracks whose most probable genre is their label.
        noise: estimated share of wrong labels, see `confident.noise`.
        thresholds: probability from which each genre counts as confident; None for one without covered tracks.
        runs: number of runs that the probabilities come from.
        notes: what was not used, and why.
    """

    findings: list[Finding]
    covered: int
    tracks: int
    accuracy: float
    noise: float
    thresholds: dict[str, float | None]
    runs: int
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as an object for JSON, without the findings."""
        names = ("covered", "tracks", "accuracy", "noise", "thresholds", "runs")
        return {name: getattr(self, name) for name in names}

    def sentences(self) -> list[str]:
        """Say what the labels were judged by."""
        words = [
            f"Labels: {self.covered:,} of {self.tracks:,} tracks have out-of-fold probabilities, from "
            f"{self.runs} run{'' if self.runs == 1 else 's'}, which agree with {100 * self.accuracy:.1f} % of their "
            f"labels. By confident learning, {100 * self.noise:.1f} % of the labels are wrong at most: it takes errors "
            "of a weak model for wrong labels, too."
        ]
        if self.covered < self.tracks:
            words.append("`mgc train --folds 5` and --runs for each of its runs cover all tracks that have a split.")
        return words + self.notes


def examine(runs: Sequence[Run], rows: list[dict[str, Any]]) -> Labels:
    """Find the tracks whose out-of-fold probabilities contradict their label, by confident learning.

    Args:
        runs: finished runs, such as those of `mgc train --folds`; each judges its validation and test tracks.
        rows: usable, labelled tracks of the store: dicts with `track_id`, `path`, `genre`, `split`, `content_hash`.

    Raises:
        RunError: a run is unfinished, or was trained on tracks that it holds out; runs have different genres, or none
            has held out a track of the store.
    """
    members = [member for run in runs for member in members_of(run)]
    notes = []
    known = {row["track_id"]: row for row in rows}
    sums: dict[str, list[np.ndarray]] = {}
    used = []
    for run in members:
        if run.config.get("split_unit") == "slice":
            notes.append(f"{run.path.name} is left out: it was trained on slices of the tracks that it holds out.")
            continue
        if run.classes != members[0].classes:
            problem = f"{members[0].path.name} and {run.path.name} know different genres"
            raise RunError(problem, "name runs of one dataset")
        used.append(run)
        for track, probabilities in _held_out(run, known).items():
            sums.setdefault(track, []).append(probabilities)
    if not used:
        raise RunError(
            f"{members[0].path}: it was trained on slices of the tracks that it holds out", "name other runs"
        )
    genres = members[0].classes
    covered = [row for row in rows if row["track_id"] in sums and row["genre"] in genres]
    if not covered:
        problem = f"no run holds out a track of the store: {', '.join(run.path.name for run in members)}"
        raise RunError(problem, "name runs that were trained on it, as by `mgc train --folds 5`")
    means = np.stack([np.mean(sums[row["track_id"]], axis=0) for row in covered])
    truth = np.array([genres.index(row["genre"]) for row in covered])
    joint = confident.confident_joint(means, truth)
    return Labels(
        [
            _finding(covered[row], genres[label], means[row, label], means[row, truth[row]])
            for row, label in zip(joint.suspects.tolist(), joint.labels.tolist(), strict=True)
        ],
        len(covered),
        len(rows),
        float(np.mean(means.argmax(axis=1) == truth)),
        confident.noise(joint, truth),
        {
            genre: None if np.isnan(value) else float(value)
            for genre, value in zip(genres, joint.thresholds, strict=True)
        },
        len(used),
        notes,
    )


def _held_out(run: Run, known: dict[str, dict[str, Any]]) -> dict[str, np.ndarray]:
    """Probabilities, `(K,)`, of each track of the store that a run holds out for validation or test.

    A track whose file, byte for byte, is also one of the training tracks is left out.
    """
    tracks = run.selection.tracks
    hashes = dict(zip(tracks["track_id"].to_pylist(), tracks["content_hash"].to_pylist(), strict=True))
    found: dict[str, np.ndarray] = {}
    for split in ("validation", "test"):
        require_scorable(run, split)
        if not pc.any(pc.equal(tracks["split"], split)).as_py():
            continue
        heard = set(run.selection.heard_tracks(split))
        predictions = _predictions(run, split).by_track()
        found |= {
            track: probabilities
            for track, probabilities in zip(predictions.tracks.tolist(), predictions.probabilities, strict=True)
            if track in known and track not in heard and known[track]["content_hash"] == hashes[track]
        }
    return found


def _predictions(run: Run, split: str) -> Predictions:
    """Predictions of a split by slice: those that `mgc evaluate` has written, else new ones, which are not written."""
    path = results_path(run, "predictions.parquet", split)
    if path.exists():
        return tables.read_predictions(run.read(path.name), run, path.name)
    return Predictions.from_table(predict(run, split=split), run.classes)


def _finding(row: dict[str, Any], genre: str, probability: float, own: float) -> Finding:
    detail = (
        f"{row['path']} ({row['split'] or 'no split'}) is labelled {row['genre']!r}, but sounds like {genre!r}: "
        f"{probability:.2f} against {own:.2f}"
    )
    values = {
        "label": row["genre"],
        "suggestion": genre,
        "probability": float(probability),
        "label_probability": float(own),
    }
    return Finding("label", "info", (row["track_id"],), detail, _EFFECT, _REMEDY, values)
