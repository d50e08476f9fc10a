"""Evaluation: predict a split with a run or an ensemble of runs, score it, and write the results to the run's folder.

metrics.json                all scores, and the data they were measured on
predictions.parquet         one row per slice: track, start, true and predicted genre, probabilities (`tables`)
track-predictions.parquet   one row per track: path, title, artist, true and predicted genre, probabilities, margin
track-predictions.csv       the same as CSV
confusion.png               confusion matrices by track and by slice

The results of another split than test have its name: metrics-validation.json and so on. Those of another dataset have
the dataset's: metrics-gtzan.json, or metrics-gtzan-test.json if only this split of it was scored. The results of
several runs evaluated together are not written, as they belong to none of the runs; an ensemble that is a run has a
folder.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.evaluation import audited, joining, metrics, pictures, tables, temperature
from mgc.models.evaluation.evaluation import Evaluation
from mgc.models.evaluation.metrics import Predictions
from mgc.models.evaluation.other_dataset import OtherDataset
from mgc.models.runs import seal, seeds
from mgc.models.runs.run import Run
from mgc.models.training.ensemble import members_of
from mgc.models.training.predict import predict, predict_slices
from mgc.pipeline.datasets.tracks import SPLITS
from mgc.pipeline.errors import RunError
from mgc.pipeline.storage import files, parquet
from mgc.pipeline.store.store import Store
from mgc.pipeline.versions import versions

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
    other: OtherDataset | None = None,
    device: str = "auto",
    n_resamples: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Predict and score a split; write the results of a single run to its folder.

    Args:
        runs: one run, or several whose probabilities are averaged: by slice if all have the same slices, else by track.
            The run of an ensemble stands for its members.
        split: training, validation or test; ignored with another dataset.
        join: how the probabilities of a track are joined from those of its slices, one of `joining.JOINS`.
        other: another dataset to predict and score, opened for the members of the runs (`members_of`).
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        n_resamples: number of bootstrap samples for the intervals.
        seed: seed of the bootstrap.

    Raises:
        RunError: a run is unfinished or damaged, the split is empty, or the runs have different classes or tracks.
    """
    members = [member for run in runs for member in members_of(run)]
    _require_same_classes(members)
    target = _Target(split, other)
    outputs = target.predict(members, device)
    predictions = [Predictions.from_table(table, members[0].config["classes"]) for table in outputs]
    names = [member.path.name for member in members]
    slices, tracks = mean_predictions(predictions, names, join)
    by_join = {
        name: slices.by_track(name) if slices is not None else mean_predictions(predictions, names, name)[1]
        for name in joining.JOINS
    }
    unattributed = outputs[0].filter(pc.is_null(outputs[0]["artist_id"]))
    is_single = len(runs) == 1
    heard = target.heard(members)
    trained_on = runs[0].config["store"]["dataset"]["name"]
    evaluation = Evaluation(
        runs=tuple({"run": str(run.path), **run.config} for run in runs),
        dataset=trained_on if other is None else other.name,
        trained_on=trained_on,
        split=target.split,
        n_tracks=len(tracks.truth),
        n_artists=pc.count_distinct(outputs[0]["artist_id"]).as_py(),
        n_unattributed=pc.count_distinct(unattributed["track_id"]).as_py(),
        by_track=metrics.score(tracks, n_resamples=n_resamples, seed=seed),
        by_slice=metrics.score(slices, n_resamples=n_resamples, seed=seed) if slices else None,
        join=join,
        joins={name: metrics.headline(joined) for name, joined in by_join.items()},
        chance=metrics.chance(tracks, _training_tracks(members[0])),
        calibration=_calibration(runs, target, tracks),
        differences=tuple(dict.fromkeys(line for run in runs for line in run.config["differences"])),
        leaky=bool(heard) or (other is None and any(run.config["leaky"] for run in runs)),
        n_heard=len(heard),
        other=None if other is None else other.as_dict(),
        other_seeds=seeds.other_seeds(runs[0]) if is_single else None,
        evaluations=_count_evaluations(target.paths(runs[0])[-1]) + 1 if is_single else None,
        audit=audited.verdict(members[0], split) if other is None else None,
        bootstrap={"resamples": n_resamples, "seed": seed},
        versions=versions(["numpy", "scipy", "scikit-learn", "torch"]),
        track_ids=tuple(tracks.tracks.tolist()),
    )
    if is_single:
        table = outputs[0] if len(members) == 1 else _ensemble_table(slices or tracks, outputs[0])
        by_track = tables.track_table(tracks, outputs[0], tables.track_details(members[0], target.store))
        slice_table = tables.slice_table(table, tracks.genres)
        runs[0].write_files(_results(target.paths(runs[0]), evaluation, slice_table, by_track))
    return evaluation


@dataclass(frozen=True)
class _Target:
    """What is scored: a split of the run's own tracks, or another dataset."""

    own_split: str
    other: OtherDataset | None

    @property
    def split(self) -> str:
        """The split that is scored; `all` for all tracks of another dataset."""
        return self.own_split if self.other is None else self.other.split or "all"

    def predict(self, members: Sequence[Run], device: str) -> list[pa.Table]:
        """Predict the tracks with each member."""
        if self.other is None:
            return [predict(member, split=self.own_split, device=device) for member in members]
        return [
            predict_slices(member, self.other.selection, stores, "test", device=device)
            for member, stores in zip(members, self.other.stores, strict=True)
        ]

    def heard(self, members: Sequence[Run]) -> set[str]:
        """Tracks that a member has heard; those of another dataset are left out before."""
        if self.other is not None:
            return set()
        # From the tracks, not from the configuration: runs of earlier versions did not look for copies.
        return {track for member in members for track in member.selection.heard_tracks(self.own_split)}

    @property
    def store(self) -> Store | None:
        """A store of the other dataset."""
        return None if self.other is None else self.other.stores[0][0]

    def paths(self, run: Run) -> list[Path]:
        """Paths of all result files."""
        return result_paths(run, self.own_split, self.other)


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
    """Path of a result file of a split of a run's own tracks, see `results_name`."""
    return run.path / results_name(name, split)


def results_name(name: str, split: str, dataset: str | None = None) -> str:
    """Name of a result file, such as `metrics.json` for test, `metrics-validation.json` or `metrics-gtzan.json`.

    Args:
        name: name of the file for the run's own test split.
        split: split that was scored; `all` for all tracks of another dataset.
        dataset: name of another dataset than the run's; None for its own.
    """
    if dataset is None:
        words = [] if split == "test" else [split]
    else:
        safe = re.sub(r"[^\w.-]", "_", dataset)
        words = [f"dataset-{safe}" if safe in SPLITS else safe, *([] if split == "all" else [split])]
    path = Path(name)
    return path.with_stem("-".join([path.stem, *words])).name


def result_paths(run: Run, split: str, other: OtherDataset | None = None) -> list[Path]:
    """Paths of all files that the evaluation of a single run writes."""
    if other is None:
        return [results_path(run, name, split) for name in RESULTS]
    return [run.path / results_name(name, other.split or "all", other.name) for name in RESULTS]


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


def _calibration(runs: Sequence[Run], target: _Target, tracks: Predictions) -> dict[str, Any] | None:
    """What the temperature of the validation tracks does to others; None if there is none, or for these themselves."""
    if len(runs) > 1 or target.split == "validation":
        return None
    fitted = temperature.of_run(runs[0], results_name("track-predictions.parquet", "validation"))
    return fitted.effect(tracks.truth, tracks.probabilities) if fitted is not None else None


def _training_tracks(run: Run) -> dict[str, int]:
    """Number of training tracks of each genre."""
    tracks = run.selection.tracks
    return Counter(tracks["genre"].filter(pc.equal(tracks["split"], "training")).to_pylist())


def _count_evaluations(path: Path) -> int:
    """Number of evaluations so far, as the last one recorded it in its metrics.json.

    Raises:
        RunError: the file is damaged.
    """
    try:
        return int(json.loads(seal.read_file(path.parent, path.name))["evaluations"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise seal.damage_error(path, "no scores") from None


def _results(paths: Sequence[Path], evaluation: Evaluation, slices: pa.Table, tracks: pa.Table) -> dict[str, bytes]:
    """Encode the result files; metrics.json is written last, so that the other files are never older than it."""
    contents = (
        parquet.table_bytes(slices),
        parquet.table_bytes(tracks),
        tables.csv_bytes(tracks),
        pictures.confusion_png(evaluation),
        files.encode_json(evaluation.as_dict()),
    )
    return {path.name: data for path, data in zip(paths, contents, strict=True)}
