"""Evaluation: predict a split with a run or an ensemble of runs, score it, and write the results to the run's folder.

metrics.json                all scores, and the data they were measured on
predictions.parquet         one row per slice: track, start, true and predicted genre, probabilities (`tables`)
track-predictions.parquet   one row per track: path, title, artist, true and predicted genre, probabilities, margin
track-predictions.csv       the same as CSV
confusion.png               confusion matrices by track and by slice

The results of another split than test have its name: metrics-validation.json and so on. The results of several runs
evaluated together are not written, since they belong to none of the runs; an ensemble that is a run has a folder.
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

from mgc.models.evaluation import audited, joining, metrics, pictures, tables
from mgc.models.evaluation.evaluation import Evaluation
from mgc.models.evaluation.metrics import Predictions
from mgc.models.runs import seal, seeds
from mgc.models.runs.run import Run
from mgc.models.training.ensemble import members_of
from mgc.models.training.predict import predict
from mgc.pipeline.errors import RunError
from mgc.pipeline.storage import files, parquet

#: Result files of a run, in the order in which they are written: metrics.json is never older than the others.
RESULTS = (
    "predictions.parquet",
    "track-predictions.parquet",
    "track-predictions.csv",
    "confusion.png",
    "metrics.json",
)


def evaluate(
    runs: Sequence[Run],
    *,
    split: str = "test",
    join: str = joining.JOINS[0],
    device: str = "auto",
    n_resamples: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Predict and score a split; write the results of a single run to its folder.

    Args:
        runs: one run, or several whose probabilities are averaged: by slice if all have the same slices, else by track.
            The run of an ensemble stands for its members.
        split: training, validation or test.
        join: how the probabilities of a track are joined from those of its slices, one of `joining.JOINS`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        n_resamples: number of bootstrap samples for the intervals.
        seed: seed of the bootstrap.

    Raises:
        RunError: a run is unfinished or damaged, the split is empty, or the runs have different classes or tracks.
    """
    members = [member for run in runs for member in members_of(run)]
    _require_same_classes(members)
    outputs = [predict(member, split=split, device=device) for member in members]
    predictions = [Predictions.from_table(table, members[0].config["classes"]) for table in outputs]
    names = [member.path.name for member in members]
    slices, by_join = None, {}
    for name in joining.JOINS:
        slices, by_join[name] = mean_predictions(predictions, names, name)
    tracks = by_join[join]
    unattributed = outputs[0].filter(pc.is_null(outputs[0]["artist_id"]))
    is_single = len(runs) == 1
    # From the tracks, not from the configuration: runs of earlier versions did not look for copies.
    heard = {track for member in members for track in member.selection.heard_tracks(split)}
    evaluation = Evaluation(
        runs=tuple({"run": str(run.path), **run.config} for run in runs),
        dataset=runs[0].config["store"]["dataset"]["name"],
        split=split,
        n_tracks=len(tracks.truth),
        n_artists=pc.count_distinct(outputs[0]["artist_id"]).as_py(),
        n_unattributed=pc.count_distinct(unattributed["track_id"]).as_py(),
        by_track=metrics.score(tracks, n_resamples=n_resamples, seed=seed),
        by_slice=metrics.score(slices, n_resamples=n_resamples, seed=seed) if slices else None,
        join=join,
        joins={name: metrics.headline(joined) for name, joined in by_join.items()},
        chance=metrics.chance(tracks, _training_tracks(members[0])),
        differences=tuple(dict.fromkeys(line for run in runs for line in run.config["differences"])),
        leaky=bool(heard) or any(run.config["leaky"] for run in runs),
        n_heard=len(heard),
        other_seeds=seeds.other_seeds(runs[0]) if is_single else None,
        evaluations=_count_evaluations(runs[0], split) + 1 if is_single else None,
        audit=audited.verdict(members[0], split),
        bootstrap={"resamples": n_resamples, "seed": seed},
        versions={
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "scikit-learn": sklearn.__version__,
            "torch": torch.__version__,
        },
    )
    if is_single:
        table = outputs[0] if len(members) == 1 else _ensemble_table(slices or tracks, outputs[0])
        details = tables.track_details(members[0])
        by_track = tables.track_table(tracks, outputs[0], details)
        _write(runs[0], evaluation, tables.slice_table(table, tracks.genres), by_track)
    return evaluation


def mean_predictions(
    members: Sequence[Predictions], names: Sequence[str], join: str = joining.JOINS[0]
) -> tuple[Predictions | None, Predictions]:
    """Average the probabilities of several models.

    Args:
        members: predictions of each model, by slice.
        names: name of each model, for error messages.
        join: how slices are joined to tracks.

    Returns:
        Mean predictions by slice, None if the members have different slices; and by track.

    Raises:
        RunError: the members have different tracks, or different genres of a track.
    """
    by_track = [member.by_track(join) for member in members]
    for name, other in zip(names[1:], by_track[1:], strict=True):
        _require_same_tracks(names[0], by_track[0], name, other)
    first = members[0]
    same_slices = all(
        np.array_equal(first.tracks, member.tracks) and np.array_equal(first.starts, member.starts)
        for member in members
    )
    if not same_slices:
        return None, _mean(by_track)
    slices = _mean(members)
    return slices, slices.by_track(join)


def results_path(run: Run, name: str, split: str) -> Path:
    """Path of a result file for a split, such as `metrics.json` for test or `metrics-validation.json`."""
    path = run.path / name
    return path if split == "test" else path.with_stem(f"{path.stem}-{split}")


def result_paths(run: Run, split: str) -> list[Path]:
    """Paths of all files that the evaluation of a single run writes."""
    return [results_path(run, name, split) for name in RESULTS]


def _mean(members: Sequence[Predictions]) -> Predictions:
    probabilities = np.mean([member.probabilities for member in members], axis=0)
    return dataclasses.replace(members[0], probabilities=probabilities)


def _ensemble_table(mean: Predictions, table: pa.Table) -> pa.Table:
    """Convert mean predictions to a prediction table as of a single run.

    Args:
        mean: mean predictions, by slice or by track.
        table: prediction table of one member, with the labels of the tracks.
    """
    rows = pc.index_in(pa.array(mean.tracks), value_set=table["track_id"].combine_chunks())
    result = table.take(rows)
    n, n_classes = mean.probabilities.shape
    values = pa.array(mean.probabilities.ravel(), pa.float32())
    lists = pa.ListArray.from_arrays(pa.array(np.arange(n + 1) * n_classes, pa.int32()), values)
    for name, column in (("start_s", pa.array(mean.starts)), ("probabilities", lists)):
        result = result.set_column(result.schema.get_field_index(name), name, column)
    return result


def _require_same_classes(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        classes, others = first.config["classes"], run.config["classes"]
        if classes != others:
            unshared = sorted(set(classes) ^ set(others))
            reason = f"only one has {', '.join(unshared)}" if unshared else "they order their genres differently"
            names = f"{first.path.name} and {run.path.name}"
            raise RunError(f"{names} make no ensemble: {reason}", "train them on stores of one dataset")


def _require_same_tracks(name: str, tracks: Predictions, other_name: str, other: Predictions) -> None:
    unshared = np.setxor1d(tracks.tracks, other.tracks)
    problem = ""
    if len(unshared):
        problem = f"{len(unshared)} tracks, such as {unshared[0]}, are in the split of one only"
    elif (differ := tracks.truth != other.truth).any():
        problem = f"they have different genres of track {tracks.tracks[differ][0]}"
    if problem:
        raise RunError(
            f"{name} and {other_name} make no ensemble: {problem}", "train them on stores of one dataset with one split"
        )


def _training_tracks(run: Run) -> dict[str, int]:
    """Number of training tracks of each genre."""
    tracks = run.selection.tracks
    return Counter(tracks["genre"].filter(pc.equal(tracks["split"], "training")).to_pylist())


def _count_evaluations(run: Run, split: str) -> int:
    """Number of evaluations of a split so far, as the last one recorded it.

    Raises:
        RunError: the file of the last one is damaged.
    """
    path = results_path(run, "metrics.json", split)
    try:
        return int(json.loads(seal.read_file(run.path, path.name))["evaluations"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise seal.damage_error(path, "no scores") from None


def _write(run: Run, evaluation: Evaluation, slices: pa.Table, tracks: pa.Table) -> None:
    """Replace the results of a split; metrics.json comes last, so that the other files are never older than it."""
    contents = (
        parquet.table_bytes(slices),
        parquet.table_bytes(tracks),
        tables.csv_bytes(tracks),
        pictures.confusion_png(evaluation),
        files.encode_json(evaluation.as_dict()),
    )
    run.write_files({path.name: data for path, data in zip(result_paths(run, evaluation.split), contents, strict=True)})
