"""Result tables of an evaluation: the predictions for slices and for tracks, as Parquet and CSV.

Both have the columns `true` and `predicted`, names of genres, and the probability of each genre as `p_` and its name.
No other column begins with `p_`. Version 0.1.0 wrote the probabilities of slices as one list column, in the order of
the run's classes, and the true genre as `genre`; `read_predictions` reads both.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.evaluation.metrics import Predictions
from mgc.models.runs import seal
from mgc.models.runs.run import Run
from mgc.models.training.predict import open_stores
from mgc.pipeline.escaping import visible
from mgc.pipeline.storage import parquet
from mgc.pipeline.store.store import Store

PREFIX = "p_"
#: Columns of a store's manifest that the table of tracks repeats; those that a store lacks are null.
_DETAILS = ("path", "title", "artist")


def slice_table(predictions: pa.Table, genres: Sequence[str]) -> pa.Table:
    """Convert the table that `predict` returns to one with a named column for each genre.

    Args:
        predictions: one row per slice, with the columns `genre` (the true one) and `probabilities` (a list).
        genres: genres in the order of the probabilities.

    Returns:
        The columns of `predictions`, with `true` for `genre`, and `predicted` and `p_<genre>` for `probabilities`.
    """
    values = predictions["probabilities"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    values = values.reshape(len(predictions), len(genres))
    names = ["true" if name == "genre" else name for name in predictions.column_names]
    table = predictions.rename_columns(names).drop_columns(["probabilities"])
    return _append_probabilities(table, values, genres)


def track_table(tracks: Predictions, slices: pa.Table, details: pa.Table) -> pa.Table:
    """Make the table of predictions for tracks.

    Args:
        tracks: predictions by track.
        slices: one row per slice, with the columns `track_id` and `artist_id`.
        details: one row per track, from `track_details`; a track may be absent.

    Returns:
        One row per track, ascending by id: track_id, path, title, artist, slices (their number), true, predicted,
        margin (the highest probability less the second), and `p_<genre>` for each genre.
    """
    ids = pa.array(tracks.tracks, pa.string())
    rows = pc.index_in(ids, value_set=details["track_id"].combine_chunks())
    columns = {name: details[name].cast(pa.string()).combine_chunks().take(rows) for name in _DETAILS}
    artists = slices["artist_id"].take(pc.index_in(ids, value_set=slices["track_id"].combine_chunks()))
    counts = pc.value_counts(slices["track_id"].combine_chunks())
    n_slices = counts.field("counts").take(pc.index_in(ids, value_set=counts.field("values")))
    best = np.sort(tracks.probabilities, axis=1)[:, ::-1]
    table = pa.table(
        {
            "track_id": ids,
            "path": columns["path"],
            "title": columns["title"],
            "artist": pc.coalesce(columns["artist"], artists.combine_chunks()),
            "slices": n_slices,
            "true": pa.array(tracks.genres).take(pa.array(tracks.truth)),
        }
    )
    table = _append_probabilities(table, tracks.probabilities, tracks.genres)
    position = table.column_names.index("predicted") + 1
    second = best[:, 1] if len(tracks.genres) > 1 else np.zeros(len(table))
    return table.add_column(position, "margin", pa.array(best[:, 0] - second))


def track_details(run: Run, store: Store | None = None) -> pa.Table:
    """Read id, path, title and artist of all tracks from the manifest of a store; None for the run's first one.

    An unknown title is null, and so is an artist whose name the store does not know (it may still know an id).
    """
    manifest = (store or open_stores(run)[0]).tracks
    table = manifest.select(["track_id"])
    for name in _DETAILS:
        known = name in manifest.column_names
        column = pc.cast(manifest[name], pa.string()) if known else pa.nulls(len(manifest), pa.string())
        table = table.append_column(name, column)
    return table


def csv_bytes(table: pa.Table) -> bytes:
    """Encode a table as CSV in UTF-8; null is an empty cell, and a number has its shortest exact notation.

    Spreadsheets run a cell that begins with `=`, `+`, `-` or `@` as a formula, and titles come from strangers: a text
    cell that begins so gets an apostrophe in front. Control characters are escaped (`escaping.visible`), so that a row
    is a line. The Parquet table has all texts unchanged.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(_cell, table.column_names))
    writer.writerows(map(_cell, row) for row in zip(*table.to_pydict().values(), strict=True))
    return buffer.getvalue().encode()


def read_columns(run: Run, name: str, columns: Sequence[str]) -> pa.Table:
    """Read columns of a result table in the folder of a run.

    Raises:
        FileNotFoundError: there is no such file.
        RunError: it is damaged, or lacks a column.
    """
    path = run.path / name
    try:
        return parquet.read_table_bytes(seal.read_file(run.path, name), path).select(list(columns))
    except FileNotFoundError:
        raise
    except (OSError, KeyError) as error:
        raise seal.damage_error(path, getattr(error, "strerror", None) or "a column is missing") from None


def read_tracks(run: Run, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the table of predictions for tracks.

    Returns:
        Index of the true genre of each track, int64 `(n,)`, and probabilities, float64 `(n, K)`.

    Raises:
        FileNotFoundError: there is no such file.
        RunError: it is damaged, or lacks a column.
    """
    table = read_columns(run, name, ["true", *(PREFIX + genre for genre in run.classes)])
    truth = pc.index_in(table["true"], value_set=pa.array(run.classes)).to_numpy().astype(np.int64)
    return truth, np.stack([table[PREFIX + genre].to_numpy() for genre in run.classes], axis=1)


def read_predictions(data: bytes, run: Run, name: str) -> Predictions:
    """Decode a file of predictions by slice, of this version of mgc or of 0.1.0.

    Args:
        data: content of the file.
        run: run whose file it is.
        name: name of the file, for error messages.

    Raises:
        OSError: the bytes are damaged.
        RunError: the values are not probabilities.
    """
    table = parquet.read_table_bytes(data, run.path / name)
    if "probabilities" not in table.column_names:
        flat = np.stack([table[PREFIX + genre].to_numpy() for genre in run.classes], axis=1).ravel()
        offsets = pa.array(np.arange(len(table) + 1) * len(run.classes), pa.int32())
        lists = pa.ListArray.from_arrays(offsets, pa.array(flat, pa.float32()))
        names = ["genre" if column == "true" else column for column in table.column_names]
        table = table.rename_columns(names).append_column("probabilities", lists)
    return Predictions.from_table(table, run.classes)


def _append_probabilities(table: pa.Table, values: np.ndarray, genres: Sequence[str]) -> pa.Table:
    """Append `predicted` and the probabilities, `(rows, genres)`."""
    table = table.append_column("predicted", pa.array(genres).take(pa.array(values.argmax(axis=1))))
    for number, genre in enumerate(genres):
        table = table.append_column(PREFIX + genre, pa.array(np.ascontiguousarray(values[:, number])))
    return table


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = visible(value)
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text
