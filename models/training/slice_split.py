"""A split of slices instead of tracks, as some studies have it: slices of one track are in several splits.

The scores of such a run are too good, since the model has heard the test tracks; the run is marked leaky.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.registry.recipes import Training
from mgc.models.runs.selection import Selection, with_splits
from mgc.models.runs.slice_splits import slice_splits
from mgc.models.training.options import Options
from mgc.pipeline.datasets.tracks import SPLITS
from mgc.pipeline.errors import SpecError, StoreError
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store


def require_divisible(recipe: Training | None, options: Options) -> None:
    """Raise `SpecError` if an option does not go with a split of slices."""
    problem = "--split-unit slice divides slices"
    if options.fold is not None:
        raise SpecError(f"{problem}, and --folds divides tracks", "leave one of them out")
    if recipe and recipe.loop.crop:
        raise SpecError(f"{problem}, and --crop draws windows from whole tracks", "leave one of them out")


def split_slices(selection: Selection, stores: Sequence[Store], slicing: Slicing, seed: int) -> Selection:
    """Draw the split of each slice at random, see `slice_splits`.

    Args:
        selection: classes and tracks, all of them in the training split.
        stores: stores of the run.
        slicing: slicing of the run.
        seed: seed of the splits.

    Returns:
        The classes, and a row for each track and each split that has slices of it.

    Raises:
        StoreError: each track has one slice, a split has none, or a genre has none to train on.
    """
    (slices, *_), labels = selection.join_slices(stores, slicing, SPLITS[0])
    path, remedy = stores[0].path, "cut shorter ones with `mgc slice`, or split tracks: --split-unit track"
    if len(slices) <= len(selection.tracks):
        raise StoreError(f"{path}: each track has one slice only, and no slices to distribute", remedy)
    split = slice_splits(slices["track_id"], slices["start_s"].to_numpy(), seed)
    for number, name in enumerate(SPLITS):
        if not (split == number).any():
            raise StoreError(f"{path}: {len(slices)} slices are too few to split, none is a {name} slice", remedy)
    if len(untrained := np.setdiff1d(labels, labels[split == 0])):
        names = ", ".join(selection.classes[label] for label in untrained)
        raise StoreError(f"{path}: {len(slices)} slices are too few to split, no training slice is of {names}", remedy)
    track = pc.index_in(slices["track_id"], value_set=selection.tracks["track_id"].combine_chunks()).to_numpy()
    row, split_of_row = np.divmod(np.unique(track * len(SPLITS) + split), len(SPLITS))
    tracks = with_splits(selection.tracks.take(row), pa.array(SPLITS).take(pa.array(split_of_row)))
    return Selection(selection.classes, tracks.combine_chunks(), split_seed=seed)
