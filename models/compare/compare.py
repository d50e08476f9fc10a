"""The comparison of runs on the same tracks: a leaderboard, and which of its rows differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgc.models.compare import alignment, evaluated, groups, published
from mgc.models.compare.evaluated import TrackSet
from mgc.models.compare.groups import RunGroup
from mgc.models.compare.pairs import Pair, compare_all
from mgc.models.compare.published import Published
from mgc.models.compare.scores import Items, SystemScores, measure
from mgc.models.evaluation.intervals import Interval
from mgc.models.runs.run import Run
from mgc.pipeline.errors import RunError

#: The test tracks of the runs' own dataset.
OWN_TEST = TrackSet("test")


@dataclass(frozen=True)
class Row:
    """A system of the leaderboard: one run, or several that differ in seed or fold.

    Attributes:
        name: id of the system, and what distinguishes it from other rows of this system.
        model: id of the system.
        runs: folders of the runs.
        seeds: the seeds of the runs, ascending.
        folds: number of cross-validation folds; None without.
        n_trainings: number of trainings that scores are means of.
        accuracy, macro_f1: scores by track, mean of the trainings.
        accuracy_interval, macro_f1_interval: 95 % intervals; with several trainings, they contain their variance.
        accuracies, macro_f1s: scores of each training.
        accuracy_deviation, macro_f1_deviation: their standard deviations (n - 1); None for a single training.
        other_seeds: whether the system was trained with several seeds; None if it does not depend on the seed.
        params: trainable parameters; None if they depend on the data.
        seconds: seconds of a training, mean of the runs; None if unknown.
        size: bytes of the weights on disk, mean of the runs; None if unknown.
        leaky: whether a run has heard its test tracks; its scores are too good then.
        audit: what the last audit of the store said of the test split, as metrics.json has it; None if unknown.
        letters: rows that share a letter do not differ.
        to_best: the pair of this row and the best one, in which the best is the first; None for the best.
    """

    name: str
    model: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: int | None
    n_trainings: int
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval
    accuracies: tuple[float, ...]
    macro_f1s: tuple[float, ...]
    accuracy_deviation: float | None
    macro_f1_deviation: float | None
    other_seeds: bool | None
    params: int | None
    seconds: float | None
    size: int | None
    leaky: bool
    audit: dict[str, Any] | None
    letters: str
    to_best: Pair | None


@dataclass(frozen=True)
class Comparison:
    """Systems on the same tracks.

    Attributes:
        dataset: name of the dataset.
        split: training, validation or test; `all` for all tracks of another dataset than the runs'.
        n_tracks: number of tracks.
        n_artists: number of known artists.
        n_unattributed: number of tracks with an unknown artist.
        n_left_out: number of tracks that some runs lack.
        genres: genres of the runs.
        rows: the systems, the most accurate first.
        pairs: all pairs of rows.
        published: published results of the systems.
        notes: sentences that a reader must know.
        bootstrap: number of resamples and seed of the intervals.
    """

    dataset: str
    split: str
    n_tracks: int
    n_artists: int
    n_unattributed: int
    n_left_out: int
    genres: tuple[str, ...]
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    published: tuple[Published, ...]
    notes: tuple[str, ...]
    bootstrap: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        values = dataclasses.asdict(self)
        for row, plain in zip(self.rows, values["rows"], strict=True):
            plain["to_best"] = row.to_best.as_dict() if row.to_best else None
        values["pairs"] = [pair.as_dict() for pair in self.pairs]
        return values


def compare(
    runs: Sequence[Run],
    scored: TrackSet = OWN_TEST,
    *,
    common: bool = False,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare evaluated runs on their tracks.

    Args:
        runs: runs that `mgc evaluate` has scored, at least one. Those that differ only in seed or fold are one row.
        scored: tracks to compare on. On those that the runs were validated with, the folds of one seed are joined.
        common: compare on the tracks that all runs have, if they have different ones.
        n_resamples: number of bootstrap samples of the artists.
        seed: seed of the bootstrap.

    Raises:
        RunError: a run has not been evaluated or is damaged, or the runs have different tracks.
    """
    results = [evaluated.read(run, scored) for run in {run.path.resolve(): run for run in runs}.values()]
    if not results:
        raise RunError("there is no run to compare", "name one")
    return compare_evaluated(results, scored, common=common, n_resamples=n_resamples, seed=seed)


def compare_evaluated(
    results: Sequence[evaluated.EvaluatedRun],
    scored: TrackSet = OWN_TEST,
    *,
    common: bool = False,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare the results of runs, as `compare` does."""
    found, notes = groups.group(results, scored)
    ids, n_left_out = alignment.common_ids(found, scored, common=common)
    genres, first = alignment.all_genres(found), found[0].trainings[0]
    items = alignment.items(first, ids, genres)
    scores = [
        measure(items, alignment.predicted(each, ids, genres), n_resamples=n_resamples, seed=seed) for each in found
    ]
    names = groups.names(found)
    order = sorted(range(len(found)), key=lambda k: (-scores[k].accuracy, -scores[k].macro_f1, names[k]))
    pairs, letters = compare_all(items, [scores[k] for k in order])
    rows = tuple(
        _row(items, names[k], found[k], scores[k], letters[place], _to_best(pairs, place))
        for place, k in enumerate(order)
    )
    known = [first.tracks[id].artist for id in ids if first.tracks[id].is_known]
    return Comparison(
        dataset=first.runs[0].dataset,
        split=scored.split,
        n_tracks=len(ids),
        n_artists=len(set(known)),
        n_unattributed=len(ids) - len(known),
        n_left_out=n_left_out,
        genres=tuple(genres),
        rows=rows,
        pairs=tuple(pairs),
        published=tuple(
            result for place, k in enumerate(order) for result in published.results(place, found[k], scored.split)
        ),
        notes=(*notes, *_class_notes(found, names)),
        bootstrap={"resamples": n_resamples, "seed": seed},
    )


def _to_best(pairs: Sequence[Pair], place: int) -> Pair | None:
    return next((pair for pair in pairs if (pair.first, pair.second) == (0, place)), None)


def _row(items: Items, name: str, group: RunGroup, scores: SystemScores, letters: str, to_best: Pair | None) -> Row:
    runs = group.runs
    accuracy, macro_f1 = scores.intervals(items)
    seeds = tuple(sorted({run.seed for run in runs}))
    return Row(
        name=name,
        model=group.model,
        runs=tuple(str(run.run.path) for run in runs),
        seeds=seeds,
        folds=runs[0].fold[1] if runs[0].fold else None,
        n_trainings=len(group.trainings),
        accuracy=scores.accuracy,
        accuracy_interval=accuracy,
        macro_f1=scores.macro_f1,
        macro_f1_interval=macro_f1,
        accuracies=tuple(scores.accuracies.tolist()),
        macro_f1s=tuple(scores.macro_f1s.tolist()),
        accuracy_deviation=scores.deviation,
        macro_f1_deviation=scores.macro_f1_deviation,
        other_seeds=len(seeds) > 1 if runs[0].uses_seed else None,
        params=runs[0].run.config.get("params"),
        seconds=_mean([run.seconds for run in runs]),
        size=None if (size := _mean([run.size for run in runs])) is None else round(size),
        leaky=any(run.leaky for run in runs),
        audit=next((run.metrics["audit"] for run in runs if isinstance(run.metrics.get("audit"), dict)), None),
        letters=letters,
        to_best=to_best,
    )


def _class_notes(found: Sequence[RunGroup], names: Sequence[str]) -> list[str]:
    """Note systems that chose among other genres than the first one."""
    first = set(found[0].runs[0].run.classes)
    notes = []
    for each, name in zip(found[1:], names[1:], strict=True):
        other = set(each.runs[0].run.classes)
        if other != first:
            notes.append(
                f"{name} chooses among {len(other)} genres, {names[0]} among {len(first)}: fewer are easier to tell."
            )
    return notes


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None
