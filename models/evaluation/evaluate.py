"""Evaluation: what a run, or several as an ensemble, predict for a split, scored and written into the run's folder.

metrics.json          every score, with what it was measured on
predictions.parquet   one row per slice: track, moment, true genre, artist, probabilities
confusion.png         confusion matrices by track and by slice

Results of another split than the test split stand beside these, as metrics-validation.json and so on. Those of several
runs named together belong to no run and are not written; an ensemble that is a run has its own.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy
import sklearn
import torch

from mgc.models.evaluation import metrics, report
from mgc.models.evaluation.evaluation import Evaluation
from mgc.models.evaluation.metrics import Predictions
from mgc.models.runs.run import Run
from mgc.models.training.ensemble import members_of
from mgc.models.training.predict import predict
from mgc.pipeline.errors import RunError
from mgc.pipeline.storage import files, parquet


def evaluate(
    runs: Sequence[Run], *, split: str = "test", device: str = "auto", n_resamples: int = 2000, seed: int = 0
) -> Evaluation:
    """Predict and score a split, and write the results of a single run into its folder.

    Args:
        runs: the run, or several whose probabilities are averaged: slice by slice where they share their slices, else
            track by track. The run of an ensemble stands for its members.
        split: one of `mgc.pipeline.datasets.tracks.SPLITS`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        n_resamples: bootstrap samples behind the intervals.
        seed: of the bootstrap.

    Raises:
        RunError: a run cannot be used, the split holds nothing, or the runs have different classes or tracks.
    """
    members = [member for run in runs for member in members_of(run)]
    _require_same_classes(members)
    tables = [predict(member, split=split, device=device) for member in members]
    predictions = [Predictions.from_table(table, members[0].config["classes"]) for table in tables]
    slices, tracks = mean_predictions(predictions, [member.path.name for member in members])
    unattributed = tables[0].filter(pc.is_null(tables[0]["artist_id"]))
    alone = len(runs) == 1
    measured = Evaluation(
        runs=tuple({"run": str(run.path), **run.config} for run in runs),
        dataset=runs[0].config["store"]["dataset"]["name"],
        split=split,
        n_tracks=len(tracks.truth),
        n_artists=pc.count_distinct(tables[0]["artist_id"]).as_py(),
        n_unattributed=pc.count_distinct(unattributed["track_id"]).as_py(),
        by_track=metrics.score(tracks, n_resamples=n_resamples, seed=seed),
        by_slice=metrics.score(slices, n_resamples=n_resamples, seed=seed) if slices else None,
        chance=metrics.chance(tracks, _training_tracks(members[0])),
        differences=tuple(dict.fromkeys(line for run in runs for line in run.config["differences"])),
        leaky=any(run.config["leaky"] for run in runs),
        evaluations=_evaluations(runs[0], split) + 1 if alone else None,
        bootstrap={"resamples": n_resamples, "seed": seed},
        versions={
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "scikit-learn": sklearn.__version__,
            "torch": torch.__version__,
        },
    )
    if alone:
        _write(runs[0], measured, tables[0] if len(members) == 1 else _joint_table(slices or tracks, tables[0]))
    return measured


def mean_predictions(members: Sequence[Predictions], names: Sequence[str]) -> tuple[Predictions | None, Predictions]:
    """Mean probabilities by slice, None where the members do not share their slices, and by track.

    Args:
        members: the slices of each model.
        names: of the models, for messages.

    Raises:
        RunError: the members predict other tracks, or know them under other genres.
    """
    by_track = [member.by_track() for member in members]
    for name, other in zip(names[1:], by_track[1:], strict=True):
        _require_same_tracks(names[0], by_track[0], name, other)
    first = members[0]
    shared = all(
        np.array_equal(first.tracks, member.tracks) and np.array_equal(first.starts, member.starts)
        for member in members
    )
    if not shared:
        return None, _mean(by_track)
    slices = _mean(members)
    return slices, slices.by_track()


def results_path(run: Run, name: str, split: str) -> Path:
    """Where a result of a split stands, such as `metrics.json`, or `metrics-validation.json`."""
    path = run.path / name
    return path if split == "test" else path.with_stem(f"{path.stem}-{split}")


def _mean(members: Sequence[Predictions]) -> Predictions:
    probabilities = np.mean([member.probabilities for member in members], axis=0)
    return dataclasses.replace(members[0], probabilities=probabilities)


def _joint_table(items: Predictions, table: pa.Table) -> pa.Table:
    """Mean probabilities as the table of a single run: by slice, or by track, each from its start on.

    Args:
        items: the mean.
        table: what one member predicted.
    """
    rows = pc.index_in(pa.array(items.tracks), value_set=table["track_id"].combine_chunks())
    made = table.take(rows)
    n, n_classes = items.probabilities.shape
    values = pa.array(items.probabilities.ravel(), pa.float32())
    lists = pa.ListArray.from_arrays(pa.array(np.arange(n + 1) * n_classes, pa.int32()), values)
    for name, column in (("start_s", pa.array(items.starts)), ("probabilities", lists)):
        made = made.set_column(made.schema.get_field_index(name), name, column)
    return made


def _require_same_classes(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        classes, others = first.config["classes"], run.config["classes"]
        if classes != others:
            odd = sorted(set(classes) ^ set(others))
            what = f"only one knows {', '.join(odd)}" if odd else "they order their genres differently"
            raise RunError(
                f"{first.path.name} and {run.path.name} make no ensemble: {what}", "train them on stores of one dataset"
            )


def _require_same_tracks(name: str, tracks: Predictions, other_name: str, other: Predictions) -> None:
    odd = np.setxor1d(tracks.tracks, other.tracks)
    problem = ""
    if len(odd):
        problem = f"{len(odd)} tracks, such as {odd[0]}, are in the split of one only"
    elif (differ := tracks.truth != other.truth).any():
        problem = f"track {tracks.tracks[differ][0]} is of another genre"
    if problem:
        raise RunError(
            f"{name} and {other_name} make no ensemble: {problem}", "train them on stores of one dataset with one split"
        )


def _training_tracks(run: Run) -> dict[str, int]:
    """Training tracks of each genre."""
    tracks = run.selection.tracks
    return Counter(tracks["genre"].filter(pc.equal(tracks["split"], "training")).to_pylist())


def _evaluations(run: Run, split: str) -> int:
    """How often a split of the run has been evaluated, as the last evaluation recorded it."""
    try:
        return int(json.loads(results_path(run, "metrics.json", split).read_bytes())["evaluations"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _write(run: Run, measured: Evaluation, predictions: pa.Table) -> None:
    """Replace the run's results of a split; metrics.json goes last, so that it never stands beside older ones."""
    with files.translate_write_errors(run.path):
        parquet.write_table(results_path(run, "predictions.parquet", measured.split), predictions)
        files.write_bytes(results_path(run, "confusion.png", measured.split), report.confusion_png(measured))
        files.write_json(results_path(run, "metrics.json", measured.split), measured.as_dict())
