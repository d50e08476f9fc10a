"""Evaluated runs: their tracks with true and predicted genres, and their scores."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.evaluation import tables
from mgc.models.evaluation.evaluate import results_name
from mgc.models.registry import systems
from mgc.models.runs import seal
from mgc.models.runs.run import Run
from mgc.pipeline.errors import ModelError, RunError


class Track(NamedTuple):
    """What a run says of a track.

    Attributes:
        true, predicted: names of genres.
        artist: id of the artist, or of the track if the artist is unknown; prefixed, so that the two differ.
        is_known: whether the artist is known.
        content: digest of the file; None if unknown.
    """

    true: str
    predicted: str
    artist: str
    is_known: bool
    content: str | None


@dataclass(frozen=True)
class TrackSet:
    """Which tracks runs were scored on.

    Attributes:
        split: training, validation or test; `all` for all tracks of another dataset.
        dataset: name of another dataset than the runs' own (`mgc evaluate --store`); None for their own.
    """

    split: str
    dataset: str | None = None

    @property
    def words(self) -> str:
        """The tracks in words: `test tracks`, `tracks of gtzan`."""
        split = "" if self.split == "all" else f"{self.split} "
        return f"{split}tracks" + (f" of {self.dataset}" if self.dataset else "")

    @property
    def options(self) -> str:
        """Options of `mgc evaluate` that score them."""
        store = " --store STORE" if self.dataset else ""
        return store + ("" if self.split == ("all" if self.dataset else "test") else f" --split {self.split}")

    @property
    def is_own_validation(self) -> bool:
        """Whether the runs of the folds of one system have different tracks."""
        return self.dataset is None and self.split != "test"

    def path(self, run: Path, name: str) -> Path:
        """Path of a result file of these tracks in the folder of a run."""
        return run / results_name(name, self.split, self.dataset)


@dataclass(frozen=True)
class EvaluatedRun:
    """A run that `mgc evaluate` has scored.

    Attributes:
        run: the run.
        metrics: contents of metrics.json.
        tracks: its tracks of the split, by id.
    """

    run: Run
    metrics: dict[str, Any]
    tracks: Mapping[str, Track]

    @property
    def dataset(self) -> str:
        """Name of the dataset that the run was scored on."""
        return self.metrics.get("dataset") or self.run.config["store"]["dataset"]["name"]

    @property
    def leaky(self) -> bool:
        """Whether the run has heard its tracks."""
        return bool(self.metrics.get("leaky", self.run.config.get("leaky", False)))

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.run.config.get("seed") or 0)

    @property
    def fold(self) -> tuple[int, int] | None:
        """Number of the fold that validated the training, from 1, and the number of folds; None without folds."""
        fold = self.run.config.get("fold")
        return (int(fold[0]), int(fold[1])) if fold else None

    @property
    def accuracy_by_slice(self) -> float | None:
        """Accuracy by slice; None if it is undefined or unknown."""
        by_slice = self.metrics.get("by_slice")
        return by_slice.get("accuracy") if isinstance(by_slice, dict) else None

    @property
    def seconds(self) -> float | None:
        """Seconds of training, of all members of an ensemble; None if unknown."""
        members = self._members()
        if not members:
            return _seconds(self.run)
        return _sum([_seconds(member) if member else None for member in members])

    @property
    def size(self) -> int | None:
        """Size of the weights in bytes, of all members of an ensemble; None if they are missing."""
        return _sum([_size(member) if member else None for member in self._members() or [self.run]])

    @property
    def uses_seed(self) -> bool:
        """Whether another seed may give another result."""
        try:
            return systems.of_run(self.run.config).uses_seed
        except ModelError:
            return self.run.config.get("kind") != "classical"

    def _members(self) -> list[Run | None]:
        """The members of an ensemble, None for one that cannot be opened; empty if the run is none."""
        runs: list[Run | None] = []
        for entry in self.run.config.get("members", ()):
            try:
                runs.append(Run.open(self.run.path.resolve() / entry["run"]))
            except RunError:
                runs.append(None)
        return runs


def read(run: Run, scored: TrackSet) -> EvaluatedRun:
    """Read the results of `mgc evaluate`.

    Args:
        run: the run.
        scored: the tracks that it was scored on.

    Raises:
        RunError: the run was not evaluated on these tracks, or a file is damaged.
    """
    path = scored.path(run.path, "metrics.json")
    try:
        metrics = json.loads(seal.read_file(run.path, path.name))
        if not isinstance(metrics, dict):
            raise ValueError
    except FileNotFoundError:
        raise _not_evaluated(run, scored) from None
    except (OSError, ValueError, RecursionError):
        raise seal.damage_error(path, "no scores") from None
    return EvaluatedRun(run, metrics, _tracks(run, scored))


def _not_evaluated(run: Run, scored: TrackSet) -> RunError:
    of = "" if not scored.options else f" on {'' if scored.dataset else 'its '}{scored.words}"
    remedy = f"`mgc evaluate {shlex.quote(str(run.path))}{scored.options}` does it"
    return RunError(f"{run.path} has not been evaluated{of}", remedy)


def _tracks(run: Run, scored: TrackSet) -> dict[str, Track]:
    """Read the predictions by track."""
    ids, truth, predicted = _predictions(run, scored)
    # A run knows the tracks of its own dataset. Of another one, artists stand beside the predictions for slices.
    table = run.selection.tracks if scored.dataset is None else _slices(run, scored)
    rows = pc.index_in(pa.array(ids, pa.string()), value_set=table["track_id"].combine_chunks())
    artists = table["artist_id"].take(rows).to_pylist()
    has_content = "content_hash" in table.column_names
    contents = table["content_hash"].take(rows).to_pylist() if has_content else [None] * len(ids)
    return {
        id: Track(true, guess, f"track:{id}" if artist is None else f"artist:{artist}", artist is not None, content)
        for id, true, guess, artist, content in zip(ids, truth, predicted, artists, contents, strict=True)
    }


def _slices(run: Run, scored: TrackSet) -> pa.Table:
    """Read track and artist of each predicted slice."""
    name = scored.path(run.path, "predictions.parquet").name
    try:
        return tables.read_columns(run, name, ["track_id", "artist_id"])
    except FileNotFoundError:
        raise _not_evaluated(run, scored) from None


def _predictions(run: Run, scored: TrackSet) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Read ids, true and predicted genres of the tracks; from the slices if the run has no table of tracks."""
    name = scored.path(run.path, "track-predictions.parquet").name
    with contextlib.suppress(FileNotFoundError):
        columns = tables.read_columns(run, name, ["track_id", "true", "predicted"]).to_pydict()
        return columns["track_id"], columns["true"], columns["predicted"]
    path = scored.path(run.path, "predictions.parquet")
    try:
        tracks = tables.read_predictions(seal.read_file(run.path, path.name), run, path.name).by_track()
    except FileNotFoundError:
        raise _not_evaluated(run, scored) from None
    except (OSError, KeyError) as error:
        raise seal.damage_error(path, getattr(error, "strerror", None) or "a column is missing") from None
    names = tracks.genres
    return tracks.tracks.tolist(), [names[k] for k in tracks.truth], [names[k] for k in tracks.predicted]


def _seconds(run: Run) -> float | None:
    with contextlib.suppress(RunError, OSError):
        return run.summary.get("seconds")
    return None


def _size(run: Run) -> int | None:
    file = run.path / run.model_file()
    return file.stat().st_size if file.is_file() else None


def _sum(values: Sequence[Any]) -> Any:
    """Sum of values; None if one is."""
    return None if None in values else sum(values)
