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
from mgc.models.evaluation.evaluate import results_path
from mgc.models.registry import systems
from mgc.models.runs import seal
from mgc.models.runs.run import Run
from mgc.pipeline.errors import ModelError, RunError
from mgc.pipeline.storage import parquet


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


def read(run: Run, split: str) -> EvaluatedRun:
    """Read the results of `mgc evaluate`.

    Args:
        run: the run.
        split: training, validation or test.

    Raises:
        RunError: the run was not evaluated on this split, or a file is damaged.
    """
    path = results_path(run, "metrics.json", split)
    try:
        metrics = json.loads(seal.read_file(run.path, path.name))
        if not isinstance(metrics, dict):
            raise ValueError
    except FileNotFoundError:
        raise _not_evaluated(run, split) from None
    except (OSError, ValueError, RecursionError):
        raise seal.damage_error(path, "no scores") from None
    return EvaluatedRun(run, metrics, _tracks(run, split))


def is_evaluated(run: Path, split: str) -> bool:
    """Whether a folder holds results of a split."""
    name = "metrics.json" if split == "test" else f"metrics-{split}.json"
    return (run / name).is_file()


def _not_evaluated(run: Run, split: str) -> RunError:
    option = "" if split == "test" else f" --split {split}"
    of = "" if split == "test" else f" on its {split} tracks"
    remedy = f"`mgc evaluate {shlex.quote(str(run.path))}{option}` does it"
    return RunError(f"{run.path} has not been evaluated{of}", remedy)


def _tracks(run: Run, split: str) -> dict[str, Track]:
    """Read the predictions by track."""
    ids, truth, predicted = _predictions(run, split)
    table = run.selection.tracks
    rows = pc.index_in(pa.array(ids, pa.string()), value_set=table["track_id"].combine_chunks())
    artists = table["artist_id"].take(rows).to_pylist()
    has_content = "content_hash" in table.column_names
    contents = table["content_hash"].take(rows).to_pylist() if has_content else [None] * len(ids)
    return {
        id: Track(true, guess, f"track:{id}" if artist is None else f"artist:{artist}", artist is not None, content)
        for id, true, guess, artist, content in zip(ids, truth, predicted, artists, contents, strict=True)
    }


def _predictions(run: Run, split: str) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Read ids, true and predicted genres of the tracks; from the slices if the run has no table of tracks."""
    path = results_path(run, "track-predictions.parquet", split)
    with contextlib.suppress(FileNotFoundError):
        data = seal.read_file(run.path, path.name)
        try:
            columns = parquet.read_table_bytes(data, path).select(["track_id", "true", "predicted"]).to_pydict()
        except (OSError, KeyError) as error:
            raise seal.damage_error(path, getattr(error, "strerror", None) or "a column is missing") from None
        return columns["track_id"], columns["true"], columns["predicted"]
    path = results_path(run, "predictions.parquet", split)
    try:
        tracks = tables.read_predictions(seal.read_file(run.path, path.name), run, path.name).by_track()
    except FileNotFoundError:
        raise _not_evaluated(run, split) from None
    except (OSError, KeyError) as error:
        raise seal.damage_error(path, getattr(error, "strerror", None) or "a column is missing") from None
    names = tracks.genres
    return tracks.tracks.tolist(), [names[k] for k in tracks.truth], [names[k] for k in tracks.predicted]


def _seconds(run: Run) -> float | None:
    with contextlib.suppress(RunError, OSError):
        return run.summary.get("seconds")
    return None


def _size(run: Run) -> int | None:
    file = run.path / ("model.skops" if run.config.get("kind") == "classical" else "best.pt")
    return file.stat().st_size if file.is_file() else None


def _sum(values: Sequence[Any]) -> Any:
    """Sum of values; None if one is."""
    return None if None in values else sum(values)
