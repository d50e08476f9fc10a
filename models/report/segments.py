"""Excerpts of each genre as audio files: what a run gets best, gets worst, and is least certain of."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mgc.models.prediction.sorting import folder_name
from mgc.models.report import excerpt
from mgc.models.report.material import Material
from mgc.models.report.results import Results
from mgc.models.runs.run import Run
from mgc.pipeline.audio.inspection import UnusableAudio
from mgc.pipeline.datasets.tracks import unescape
from mgc.pipeline.errors import MgcError
from mgc.pipeline.storage import files
from mgc.pipeline.storage.urls import parse_url

#: Why an excerpt is chosen.
Kind = Literal["best", "worst", "uncertain"]
#: Table of the excerpts, in the folder that holds them.
LIST = "segments.csv"
_COLUMNS = ("file", "kind", "genre", "predicted", "probability", "track_id", "start_s")


@dataclass(frozen=True)
class Segment:
    """A slice of a track that a run has scored.

    Attributes:
        kind: why it is chosen.
        rank: its place among those of its kind and genre, from 1.
        genre, predicted: its true and its most probable genre.
        probability: that of the true genre; for `uncertain`, of the most probable one.
        track_id: its track.
        start_s: second at which it begins.
        file: path of the excerpt below the folder; empty before it is written.
    """

    kind: Kind
    rank: int
    genre: str
    predicted: str
    probability: float
    track_id: str
    start_s: float
    file: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the columns of the list."""
        return {name: getattr(self, name) for name in _COLUMNS}


def choose(results: Results, count: int) -> list[Segment]:
    """Choose slices of each genre, at most one of each kind of a track.

    `best` are those whose true genre is most probable, and predicted; `worst` those whose true genre is least probable,
    and not predicted; `uncertain` those whose two most probable genres are closest.

    Args:
        results: results of the run.
        count: number of slices of each kind and genre.
    """
    slices, genres = results.slices, results.genres
    truth, probabilities = slices.truth, slices.probabilities
    predicted = probabilities.argmax(axis=1)
    own = probabilities[np.arange(len(truth)), truth]
    highest = np.sort(probabilities, axis=1)
    margin = highest[:, -1] - highest[:, -2]
    chosen = []
    for number, genre in enumerate(genres):
        of_genre = truth == number
        kinds: tuple[tuple[Kind, np.ndarray, np.ndarray, np.ndarray], ...] = (
            ("best", of_genre & (predicted == number), -own, own),
            ("worst", of_genre & (predicted != number), own, own),
            ("uncertain", of_genre, margin, highest[:, -1]),
        )
        for kind, rows, order, shown in kinds:
            for rank, row in enumerate(_one_a_track(np.flatnonzero(rows), order, slices.tracks, count), 1):
                values = genres[predicted[row]], float(shown[row]), str(slices.tracks[row]), float(slices.starts[row])
                chosen.append(Segment(kind, rank, genre, *values))
    return chosen


def _one_a_track(rows: np.ndarray, order: np.ndarray, tracks: np.ndarray, count: int) -> Iterator[int]:
    """Yield up to `count` rows with the lowest values of `order`, each of another track."""
    seen: set[str] = set()
    for row in rows[np.argsort(order[rows], kind="stable")]:
        if len(seen) == count:
            return
        if tracks[row] not in seen:
            seen.add(tracks[row])
            yield int(row)


def cut(
    run: Run,
    chosen: Sequence[Segment],
    seconds: float,
    folder: Path,
    advance: Callable[[int], object] = lambda n_done: None,
) -> tuple[list[Segment], list[str]]:
    """Decode segments and write them as FLAC files, mono, at their own sample rate, with a list of them.

    Args:
        run: run whose tracks they are of.
        chosen: the segments.
        seconds: length of an excerpt.
        folder: folder to write, created if it does not exist; files of the same names are replaced.
        advance: function that is called with 1 after each of them.

    Returns:
        The segments that were written, and a sentence on each that was not.

    Raises:
        MgcError: the folder cannot be written.
    """
    import soundfile

    material = Material(run, [one.track_id for one in chosen])
    made, problems = [], list(material.problems)
    with files.translate_write_errors(folder):
        for one in chosen:
            try:
                samples, rate, first = _decode(material, one, seconds)
            except (UnusableAudio, OSError, MgcError) as error:
                detail = f" ({error.detail})" if isinstance(error, UnusableAudio) and error.detail else ""
                reason = error.reason if isinstance(error, UnusableAudio) else error
                problems.append(f"track {one.track_id}: {reason}{detail}")
            else:
                written = replace(one, start_s=first, file=f"{folder_name(one.genre)}/{_name(one)}")
                buffer = io.BytesIO()
                soundfile.write(buffer, np.clip(samples, -1, 1), rate, format="FLAC")
                (folder / written.file).parent.mkdir(parents=True, exist_ok=True)
                files.write_bytes(folder / written.file, buffer.getvalue())
                made.append(written)
            advance(1)
        if made:
            files.write_bytes(folder / LIST, _list(made))
    return made, problems


def _decode(material: Material, one: Segment, seconds: float) -> tuple[np.ndarray, int, float]:
    """Decode a segment and what follows it."""
    row, root = material.rows.get(one.track_id), material.root
    if row is None or root is None:
        raise UnusableAudio("missing", "the store no longer holds it, or another file of its name")
    place = parse_url(root) or os.fsencode(root)
    return excerpt.decode(place, unescape(row["path"]), one.start_s, seconds, row["content_hash"])


def _name(one: Segment) -> str:
    """File name of an excerpt, such as `worst-1 as Rock (4 %) 000317.flac`."""
    taken_for = f" as {folder_name(one.predicted)}" if one.predicted != one.genre else ""
    return f"{one.kind}-{one.rank}{taken_for} ({100 * one.probability:.0f} %) {folder_name(one.track_id)}.flac"


def _list(made: Sequence[Segment]) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(one.as_dict() for one in made)
    return buffer.getvalue().encode()
