"""What `mgc predict` does with files whose genre it has named: writes it into their tags, sorts them into folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgc.models.prediction import sorting, tagging
from mgc.models.prediction.prediction import FilePrediction
from mgc.models.prediction.sorting import Way
from mgc.pipeline.errors import MgcError


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Attributes:
        line: it in words, one line.
        failed: whether the file could not be treated.
    """

    line: str
    failed: bool = False


def named(predictions: Iterable[FilePrediction], min_confidence: float) -> Iterator[tuple[FilePrediction, str]]:
    """Yield the predictions whose most probable genre has at least a probability, with that genre."""
    for prediction in predictions:
        genre = prediction.genre
        if genre is not None and prediction.probabilities[genre] >= min_confidence:
            yield prediction, genre


def write_tags(predictions: Sequence[FilePrediction], min_confidence: float, *, dry_run: bool) -> Iterator[Outcome]:
    """Write the most probable genre into the tags of each file; see `tagging.write_genre`.

    Args:
        predictions: the predictions.
        min_confidence: probability below which a file is left as it is.
        dry_run: write nothing, and say what would be written.
    """
    for prediction, genre in named(predictions, min_confidence):
        try:
            before = tagging.write_genre(Path(prediction.path), genre, dry_run=dry_run)
        except tagging.NotTaggable as error:
            yield Outcome(f"{prediction.path}: not tagged, {error}", failed=True)
        except MgcError as error:
            yield Outcome(f"{prediction.path}: not tagged, {error.problem}", failed=True)
        else:
            verb = "would be tagged" if dry_run else "tagged"
            if before is None:
                yield Outcome(f"{prediction.path}: is tagged {genre} already")
            else:
                yield Outcome(f"{prediction.path}: {verb} {genre}, before: {', '.join(before) or 'no genre'}")


def sort(
    predictions: Sequence[FilePrediction], folder: Path, way: Way, min_confidence: float, *, dry_run: bool
) -> Iterator[Outcome]:
    """Put each file into the folder of its most probable genre; see `sorting.place`.

    Args:
        predictions: the predictions.
        folder: folder of the genres' folders.
        way: copy, link or move.
        min_confidence: probability below which a file stays where it is.
        dry_run: change nothing, and say what would be done.
    """
    verb = {"copy": "copied to", "link": "linked from", "move": "moved to"}[way]
    for prediction, genre in named(predictions, min_confidence):
        final = sorting.target(prediction.path, folder, genre)
        if dry_run:
            yield Outcome(f"{prediction.path}: would be {verb} {final}")
            continue
        try:
            placed = sorting.place(Path(prediction.path), final, way)
        except MgcError as error:
            yield Outcome(f"{prediction.path}: not {verb.split()[0]}: {error.problem}", failed=True)
        else:
            yield Outcome(f"{prediction.path}: {verb if placed else 'is already in'} {final}")
