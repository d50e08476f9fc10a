"""Runs of one system: those that differ only in the seed or the fold are trainings of one row."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from mgc.models.compare.evaluated import EvaluatedRun, Track, TrackSet
from mgc.pipeline.errors import RunError

#: Settings that make another system; the rest of a run's configuration follows from them, or does not change results.
_SETTINGS = ("model", "package", "frames", "training", "limit_tracks", "variants", "weights", "search")


@dataclass(frozen=True)
class Training:
    """A training of a system, and its predictions.

    Attributes:
        runs: its run; or the runs of all folds, each of which predicts the tracks that it did not learn from.
        tracks: predictions by track id.
    """

    runs: tuple[EvaluatedRun, ...]
    tracks: Mapping[str, Track]

    @property
    def name(self) -> str:
        """Folder of the run, and how many more there are."""
        more = f" and {len(self.runs) - 1} more" if len(self.runs) > 1 else ""
        return f"{self.runs[0].run.path}{more}"


@dataclass(frozen=True)
class RunGroup:
    """The trainings of one system.

    Attributes:
        settings: settings that all of them share, by dotted name.
        trainings: at least one.
    """

    settings: Mapping[str, Any]
    trainings: tuple[Training, ...]

    @property
    def runs(self) -> list[EvaluatedRun]:
        """All runs."""
        return [run for training in self.trainings for run in training.runs]

    @property
    def model(self) -> str:
        """Id of the system."""
        return self.runs[0].run.model


def group(runs: Sequence[EvaluatedRun], scored: TrackSet) -> tuple[list[RunGroup], list[str]]:
    """Group runs that differ only in seed or fold.

    On the test split, and on another dataset, each fold's run is a training of its own, as all have the same tracks. On
    the validation split, the runs of the folds of one seed are one training, on the tracks of all folds.

    Args:
        runs: evaluated runs.
        scored: tracks that they were evaluated on.

    Returns:
        The groups in the order of their first runs; and notes for the user.

    Raises:
        RunError: a track is in several folds.
    """
    by_key: dict[str, list[EvaluatedRun]] = {}
    for run in runs:
        by_key.setdefault(_key(run), []).append(run)
    groups, notes = [], []
    for members in by_key.values():
        distinct = {(run.seed, run.fold, _member_digests(run)): run for run in members}
        if repeated := len(members) - len(distinct):
            notes.append(f"{members[0].run.model}: {_repeats(repeated)} the seed and settings of another; left out.")
        kept = [run for run in members if run in distinct.values()]
        if not scored.is_own_validation or kept[0].fold is None:
            trainings = [Training((run,), run.tracks) for run in kept]
        else:
            trainings, missing = _pool(kept)
            notes += missing
        groups.append(RunGroup(_settings(kept[0]), tuple(trainings)))
    return groups, notes


def names(groups: Sequence[RunGroup]) -> list[str]:
    """Name each group by its model, and by the settings that distinguish it from others of this model."""
    count = Counter(group.model for group in groups)
    result = []
    for each in groups:
        alike = [other for other in groups if other.model == each.model]
        varied = {
            name
            for name in dict.fromkeys(name for other in alike for name in other.settings)
            if len({json.dumps(other.settings.get(name)) for other in alike}) > 1
        }
        shown = [_shown(name, each.settings.get(name)) for name in sorted(varied)]
        result.append(each.model if count[each.model] == 1 else f"{each.model} ({', '.join(shown)})")
    return result


def _repeats(count: int) -> str:
    return "1 run repeats" if count == 1 else f"{count} runs repeat"


def _shown(name: str, value: Any) -> str:
    return f"{name.rpartition('.')[2]} {'none' if value is None else value}"


def _pool(runs: Sequence[EvaluatedRun]) -> tuple[list[Training], list[str]]:
    """Join the runs of the folds of each seed to one training; report missing folds."""
    by_seed: dict[int, list[EvaluatedRun]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, []).append(run)
    trainings, notes = [], []
    for seed, folds in by_seed.items():
        tracks: dict[str, Track] = {}
        for run in folds:
            if shared := tracks.keys() & run.tracks.keys():
                problem = f"{run.run.path}: {len(shared)} of its validation tracks are in another fold, too"
                raise RunError(problem, "name the folds of one division: those of one `mgc train --folds`")
            tracks |= run.tracks
        trainings.append(Training(tuple(folds), tracks))
        numbers, count = {run.fold[0] for run in folds if run.fold}, folds[0].fold[1] if folds[0].fold else 0
        if absent := sorted(set(range(1, count + 1)) - numbers):
            which = ", ".join(map(str, absent))
            notes.append(f"{folds[0].run.model}, seed {seed}: of {count} folds, {which} not among the runs.")
    return trainings, notes


def _key(run: EvaluatedRun) -> str:
    """Text that is equal for runs that differ only in seed, number of the fold, and what does not change results."""
    return json.dumps([_settings(run), run.fold and run.fold[1]], sort_keys=True)


def _settings(run: EvaluatedRun) -> dict[str, Any]:
    """Settings of a run but its seed, by dotted name."""
    config = run.run.config
    settings = {name: config.get(name) for name in _SETTINGS}
    if settings["training"]:
        settings["training"] = {name: value for name, value in settings["training"].items() if name != "seed"}
    stores = [config["store"], *config.get("further", ())]
    for number, store in enumerate(stores):
        name = "store" if len(stores) == 1 else f"store{number + 1}"
        settings[name] = {part: store.get(part) for part in ("spec", "slicing", "waveform")}
    settings["split unit"] = config.get("split_unit", "track")
    settings["members"] = [member["model"] for member in config.get("members", ())]
    settings["classes"] = ", ".join(config["classes"])
    if not config.get("limit_tracks"):  # else the seed draws the tracks
        learnt = _learnt(run)
        settings["learnt from"] = f"{len(learnt):,} tracks ({_digest(learnt)})"
    return {name: value for name, value in _flat(settings) if value not in (None, [], "")}


def _learnt(run: EvaluatedRun) -> list[str]:
    """Ids of the tracks outside the test split, and their split unless the run is of a fold."""
    tracks = run.run.selection.tracks
    others = tracks.filter(pc.not_equal(tracks["split"], "test")).select(["track_id", "split"])
    return [row["track_id"] if run.fold else f"{row['track_id']} {row['split']}" for row in others.to_pylist()]


def _member_digests(run: EvaluatedRun) -> str:
    return " ".join(member["sha256"] for member in run.run.config.get("members", ()))


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:6]


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings and dataclasses, by dotted name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if not isinstance(value, Mapping):
        yield prefix, value
        return
    for name, item in value.items():
        yield from _flat(item, f"{prefix}.{name}".lstrip("."))
