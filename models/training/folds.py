"""Cross-validation: runs that each hold out another part of the tracks that are not for testing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.runs.selection import TRACK_SCHEMA, Selection
from mgc.pipeline.datasets.splits import assign_folds
from mgc.pipeline.errors import SpecError


def parse(text: str) -> tuple[int, tuple[int, ...]]:
    """Of `5`, or of `5:2,4`: how many folds there are, and which of them are wanted, from 1 on.

    Raises:
        SpecError: it says something else, fewer than 2 folds, or one that is not there.
    """
    count, colon, some = text.partition(":")
    words = [word.strip() for word in some.split(",")] if colon else []
    if not all(word.isdecimal() for word in (count.strip(), *words)) or int(count) < 2:
        raise SpecError(f"--folds {text}", "write a whole number of 2 or more; 5:2,4 is the second and fourth of five")
    n = int(count)
    wanted = tuple(int(word) for word in words) if words else tuple(range(1, n + 1))
    if len(set(wanted)) < len(wanted) or not all(1 <= number <= n for number in wanted):
        raise SpecError(f"--folds {text}", f"write different numbers from 1 to {n} after the colon")
    return n, wanted


def hold_out(selection: Selection, number: int, count: int, seed: int = 0) -> Selection:
    """The same tracks, of which those of one fold validate and all others, but for the test split, are for training.

    Folds keep artists whole, or tracks whose artist is unknown, and have as much as they can of each genre. They depend
    on the seed and on the set of tracks, and not on how these were split into training and validation.

    Args:
        selection: classes and tracks.
        number: the fold, from 1 on.
        count: folds, 2 or more.
        seed: decides among artists with as many tracks.

    Raises:
        SpecError: a genre is in fewer folds than there are: it has too few artists.
    """
    tracks = selection.tracks
    places = np.flatnonzero(pc.not_equal(tracks["split"], "test").to_numpy())
    ours = tracks.take(places)
    fold = assign_folds(ours, [1 / count] * count, seed)
    for genre in selection.classes:
        mine = pc.equal(ours["genre"], genre).to_numpy()
        if len(np.unique(fold[mine])) < count:
            artists = ours["artist_id"].filter(mine)
            n = len(pc.unique(artists.drop_null())) + artists.null_count
            problem = f"--folds {count}: {genre} has too few artists ({n}) for validation tracks in every fold"
            most = min(n, count - 1)
            raise SpecError(problem, f"choose {most} at most" if most > 1 else f"add other artists of {genre}")
    split = np.array(tracks["split"].to_pylist(), dtype=object)
    split[places] = np.where(fold == number - 1, "validation", "training")
    at = TRACK_SCHEMA.get_field_index("split")
    moved = tracks.set_column(at, TRACK_SCHEMA.field(at), pa.array(split, pa.string()))
    return Selection(selection.classes, moved.combine_chunks())
