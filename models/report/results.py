"""The results of an evaluated run, as `mgc evaluate` wrote them to its folder."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgc.models.evaluation import tables
from mgc.models.evaluation.evaluate import results_path
from mgc.models.evaluation.metrics import Predictions
from mgc.models.runs import seal
from mgc.models.runs.run import Run
from mgc.pipeline.errors import RunError
from mgc.pipeline.storage import parquet


@dataclass(frozen=True)
class Track:
    """A scored track.

    Attributes:
        id, path, title, artist: as in the manifest; all but the id are None where unknown.
        true, predicted: indices of its genres.
        probabilities: joined probabilities of its slices, float64 `(genres,)`.
    """

    id: str
    path: str | None
    title: str | None
    artist: str | None
    true: int
    predicted: int
    probabilities: np.ndarray

    @property
    def right(self) -> bool:
        """Whether the predicted genre is the true one."""
        return self.true == self.predicted

    @property
    def excess(self) -> float:
        """Probability of the predicted genre less that of the true one: 0 for a right track."""
        return float(self.probabilities[self.predicted] - self.probabilities[self.true])


@dataclass(frozen=True)
class Results:
    """The results of a run on a split.

    Attributes:
        run: the run.
        split: training, validation or test.
        metrics: content of metrics.json.
        slices: predictions by slice.
        tracks: the tracks, ascending by id.
    """

    run: Run
    split: str
    metrics: dict[str, Any]
    slices: Predictions
    tracks: tuple[Track, ...]

    @property
    def genres(self) -> tuple[str, ...]:
        """Genres in the order of the probabilities."""
        return self.run.classes


def read_results(run: Run, split: str) -> Results:
    """Read the results of a run on a split.

    Raises:
        RunError: the run was not evaluated on this split, or a file is damaged.
    """
    metrics_path, slices_path, tracks_path = (
        results_path(run, name, split) for name in ("metrics.json", "predictions.parquet", "track-predictions.parquet")
    )
    option = "" if split == "test" else f" --split {split}"
    remedy = f"`mgc evaluate {shlex.quote(str(run.path))}{option}` does it"
    if not (metrics_path.exists() and tracks_path.exists()):
        raise RunError(f"{run.path} has not been evaluated on its {split} tracks", remedy)
    try:
        metrics = json.loads(run.read(metrics_path.name))
        genres = list(metrics["by_track"]["by_genre"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise seal.damage_error(metrics_path, "no scores") from None
    if genres != list(run.classes):
        raise seal.damage_error(metrics_path, "other genres than the run's")
    try:
        slices = tables.read_predictions(run.read(slices_path.name), run, slices_path.name)
        tracks = _tracks(run, run.read(tracks_path.name), tracks_path.name)
    except (OSError, KeyError) as error:
        raise RunError(f"{run.path}: damaged predictions ({error})", f"evaluate it again: {remedy}") from None
    return Results(run, split, metrics, slices, tracks)


def _tracks(run: Run, data: bytes, name: str) -> tuple[Track, ...]:
    """Decode a table of predictions for tracks."""
    table = parquet.read_table_bytes(data, run.path / name)
    probabilities = np.stack([table[tables.PREFIX + genre].to_numpy() for genre in run.classes], axis=1)
    index = {genre: number for number, genre in enumerate(run.classes)}
    rows = table.select(["track_id", "path", "title", "artist", "true", "predicted"]).to_pylist()
    return tuple(
        Track(
            id=row["track_id"],
            path=row["path"],
            title=row["title"],
            artist=_artist_name(row["artist"]),
            true=index[row["true"]],
            predicted=index[row["predicted"]],
            probabilities=p,
        )
        for row, p in zip(rows, probabilities, strict=True)
    )


def _artist_name(artist: str | None) -> str | None:
    """Name of an artist; a dataset that only has numbers of artists, as FMA's, gives `artist 171`."""
    return f"artist {artist}" if artist is not None and artist.isdecimal() else artist
