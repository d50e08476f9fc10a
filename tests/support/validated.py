"""Other predictions for the validation tracks of a run than its own; temperature and threshold are chosen by them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from mgc.models.evaluation import tables
from mgc.models.prediction.unknown import VALIDATION_TRACKS
from mgc.models.runs.run import Run
from mgc.pipeline.storage import parquet


def replace_validation(run: Run, change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Replace the probabilities that `mgc evaluate --split validation` wrote for tracks.

    Args:
        run: a run that was evaluated so.
        change: function from the index of the true genre of each track, `(n,)`, and the probabilities, `(n, K)`, to
            others.
    """
    truth, shares = tables.read_tracks(run, VALIDATION_TRACKS)
    genres = [run.classes[number] for number in truth]
    columns = {f"p_{genre}": values for genre, values in zip(run.classes, change(truth, shares).T, strict=True)}
    run.write_files({VALIDATION_TRACKS: parquet.table_bytes(pa.table({"true": genres, **columns}))})
