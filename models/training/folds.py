"""Cross-validation: folds of the tracks outside the test split, each held out for validation by one run."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.runs.selection import Selection, with_splits
from mgc.pipeline.datasets.grouping import assign_folds
from mgc.pipeline.errors import DatasetError, SpecError


def parse(text: str) -> tuple[int, tuple[int, ...]]:
    """Parse the value of `--folds`.

    Args:
        text: number of folds, such as `5`, and optionally the folds to train, such as `5:2,4`.

    Returns:
        Number of folds, and the numbers of the folds to train, from 1.

    Raises:
        SpecError: the text has another form, there are fewer than 2 folds, or a fold is repeated or does not exist.
    """
    count_text, colon, numbers_text = text.partition(":")
    words = [word.strip() for word in numbers_text.split(",")] if colon else []
    if not all(word.isdecimal() for word in (count_text.strip(), *words)) or int(count_text) < 2:
        raise SpecError(f"--folds {text}", "write a whole number of 2 or more; 5:2,4 is the second and fourth of five")
    count = int(count_text)
    numbers = tuple(int(word) for word in words) if words else tuple(range(1, count + 1))
    if len(set(numbers)) < len(numbers) or not all(1 <= number <= count for number in numbers):
        raise SpecError(f"--folds {text}", f"write different numbers from 1 to {count} after the colon")
    return count, numbers


def hold_out(selection: Selection, number: int, count: int, seed: int = 0) -> Selection:
    """Move the tracks of one fold to the validation split, and all others outside the test split to the training split.

    Folds keep the tracks of an artist together (a track of unknown artist stands alone) and balance the genres as far
    as that allows. They depend on the seed and on the set of tracks outside the test split, not on how these were
    divided into training and validation.

    Args:
        selection: classes and tracks.
        number: number of the fold, from 1.
        count: number of folds, 2 or more.
        seed: orders artists with equally many tracks.

    Raises:
        DatasetError: a genre has too few artists to be in every fold.
    """
    tracks = selection.tracks
    rows = np.flatnonzero(pc.not_equal(tracks["split"], "test").to_numpy())
    pool = tracks.take(rows)
    fold = assign_folds(pool, [1 / count] * count, seed)
    for genre in selection.classes:
        in_genre = pc.equal(pool["genre"], genre).to_numpy()
        if len(np.unique(fold[in_genre])) < count:
            artists = pool["artist_id"].filter(in_genre)
            n = len(pc.unique(artists.drop_null())) + artists.null_count
            problem = f"--folds {count}: {genre} has too few artists ({n}) for validation tracks in every fold"
            most = min(n, count - 1)
            raise DatasetError(problem, f"choose {most} at most" if most > 1 else f"add other artists of {genre}")
    split = np.array(tracks["split"].to_pylist(), dtype=object)
    split[rows] = np.where(fold == number - 1, "validation", "training")
    return Selection(selection.classes, with_splits(tracks, pa.array(split, pa.string())).combine_chunks())
