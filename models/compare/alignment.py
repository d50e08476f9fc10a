"""The tracks that all compared trainings have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mgc.models.compare.evaluated import TrackSet
from mgc.models.compare.groups import RunGroup, Training
from mgc.models.compare.scores import Items
from mgc.pipeline.errors import RunError


def common_ids(groups: Sequence[RunGroup], scored: TrackSet, *, common: bool) -> tuple[list[str], int]:
    """List the tracks to compare systems on.

    Args:
        groups: the systems.
        scored: which tracks they are, for messages.
        common: leave out the tracks that some runs lack.

    Returns:
        Track ids, sorted; and the number of tracks that were left out.

    Raises:
        RunError: the trainings have different tracks and `common` is False, or no track in common, or different genres
            of a track.
    """
    trainings = [training for group in groups for training in group.trainings]
    first = trainings[0]
    shared = set(first.tracks)
    for training in trainings[1:]:
        shared &= same_tracks(first, training)
    everything = {id for training in trainings for id in training.tracks}
    if len(shared) < len(everything):
        _require_common(trainings, shared, scored, common=common)
    ids = sorted(shared)
    for training in trainings[1:]:
        for id in ids:
            if training.tracks[id].true != first.tracks[id].true:
                genres = f"{first.tracks[id].true} and {training.tracks[id].true}"
                problem = f"{first.name} and {training.name} have different genres of track {id}: {genres}"
                raise RunError(problem, "name runs of one dataset with the same genres")
    return ids, len(everything) - len(ids)


def same_tracks(first: Training, other: Training) -> set[str]:
    """Ids of the tracks that two trainings share: of the same dataset, with the same content where that is known."""
    if first.runs[0].dataset != other.runs[0].dataset:
        return set()
    shared = first.tracks.keys() & other.tracks.keys()
    return {id for id in shared if _same_content(first.tracks[id].content, other.tracks[id].content)}


def _same_content(a: str | None, b: str | None) -> bool:
    return a is None or b is None or a == b


def items(training: Training, ids: Sequence[str], genres: Sequence[str]) -> Items:
    """Number the true genres and the artists of tracks."""
    number = {genre: k for k, genre in enumerate(genres)}
    truth = np.array([number[training.tracks[id].true] for id in ids], np.int64)
    artists = np.unique([training.tracks[id].artist for id in ids], return_inverse=True)[1]
    return Items(truth, artists, tuple(genres))


def predicted(group: RunGroup, ids: Sequence[str], genres: Sequence[str]) -> np.ndarray:
    """Index of the genre that each training of a system predicts for each track, int64 `(trainings, tracks)`."""
    number = {genre: k for k, genre in enumerate(genres)}
    rows = [[number[training.tracks[id].predicted] for id in ids] for training in group.trainings]
    return np.array(rows, np.int64)


def all_genres(groups: Sequence[RunGroup]) -> list[str]:
    """Genres of all runs: those of the first one, then those that others add."""
    return list(dict.fromkeys(genre for group in groups for run in group.runs for genre in run.run.classes))


def _require_common(trainings: Sequence[Training], shared: set[str], scored: TrackSet, *, common: bool) -> None:
    """Raise `RunError` unless there are common tracks and the user wants these."""
    first = trainings[0]
    other = next(t for t in trainings[1:] if not first.tracks.keys() == t.tracks.keys() == same_tracks(first, t))
    n_same = len(same_tracks(first, other))
    problem = (
        f"{first.name} and {other.name} have other {scored.words}: {len(first.tracks):,} and {len(other.tracks):,},"
        f" of which {n_same:,} are the same"
    )
    if not shared:
        raise RunError(problem, "name runs of one dataset and one split")
    if not common:
        where = "" if len(trainings) == 2 else f" on the {len(shared):,} tracks that all {len(trainings)} have"
        raise RunError(problem, f"--common compares them{where or ' on these'}, or name runs of one split")
