"""Track tables: schemas of the dataset table and of the manifest, paths as text, and label updates."""

from __future__ import annotations

import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets.lookup import Lookup

_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")

SPLITS = ("training", "validation", "test")

#: Drop reasons of tracks that the user asked to leave out: copies of other files, those not in a list of splits, and
#: those whose genre is unknown or left out.
DUPLICATE, UNLISTED, NO_GENRE = LEFT_OUT_REASONS = ("duplicate", "unlisted", "no-genre")

#: Columns of a dataset's track table, one row per file. `path` is relative to the dataset's audio root, `/`-separated,
#: with bytes that are not UTF-8 backslash-escaped (see `escape`); `genre` is null for unlabelled tracks; `split` is
#: null until assigned; `artist_id` and `album_id` are the dataset's identifiers, null where unknown; `bit_rate` is in
#: bit/s.
DATASET_SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("genre", pa.string()),
        pa.field("split", pa.string()),
        pa.field("artist_id", pa.string()),
        pa.field("album_id", pa.string()),
        pa.field("title", pa.string()),
        pa.field("bit_rate", pa.int32()),
    ]
)

#: Result of extracting one variant (`features.variants`) of a track. `reason` and `detail` are null, or say why the
#: variant was not extracted; the other fields are as in MANIFEST_SCHEMA. Its frames are in the track's shard.
VARIANT_TYPE = pa.struct(
    [
        pa.field("variant", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("duration_s", pa.float64()),
        pa.field("saturated", pa.int64()),
        pa.field("gaps", pa.list_(pa.list_(pa.int64()))),
        pa.field("first_frame", pa.int64()),
        pa.field("n_frames", pa.int64()),
    ]
)

#: Columns of a store's manifest: those of DATASET_SCHEMA, and the results of extraction. `size` in bytes and `mtime_ns`
#: identify the file cheaply, `content_hash` (BLAKE2b-128 of its bytes) for certain. `duration_s` is the decoded length,
#: `declared_s` the length in the file's headers. `encoder` is the codec and the name that the encoder left in the file.
#: `stereo_image` says what the channels hold: `mono` (there is one), `equal` (all the same), `left` or `right` (the
#: other one is silent), `opposite` (they cancel in their mix: the loudest one was used) or `different`; `clipped`
#: counts samples of all channels at full scale or above. `gaps` lists [first, stop) frame ranges touched by non-finite
#: samples. `saturated` counts values outside the range of the stored dtype, `saturated_above` those of them above it.
#: The track's frames are rows [first_frame, first_frame + n_frames) of its shard. `variants` is nested, so that one
#: row is one track; null if the store has none. Where an earlier version extracted the track, `encoder`,
#: `stereo_image`, `clipped` and `saturated_above` are null.
MANIFEST_SCHEMA = pa.schema(
    [
        *DATASET_SCHEMA,
        pa.field("size", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
        pa.field("content_hash", pa.string()),
        pa.field("duration_s", pa.float64()),
        pa.field("declared_s", pa.float64()),
        pa.field("decoder", pa.string()),
        pa.field("sample_rate", pa.int32()),
        pa.field("channels", pa.int32()),
        pa.field("encoder", pa.string()),
        pa.field("stereo_image", pa.string()),
        pa.field("clipped", pa.int64()),
        pa.field("status", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("saturated", pa.int64()),
        pa.field("saturated_above", pa.int64()),
        pa.field("gaps", pa.list_(pa.list_(pa.int64(), 2))),
        pa.field("shard", pa.int32()),
        pa.field("first_frame", pa.int64()),
        pa.field("n_frames", pa.int64()),
        pa.field("variants", pa.list_(VARIANT_TYPE)),
    ]
)

#: Columns that only stores with variants write.
_VARIANT_COLUMNS = ("variants", "variant")
#: Columns that may be missing in a file, of a store without variants or of an earlier version; they read as null.
_OPTIONAL = (*_VARIANT_COLUMNS, "saturated_above", "encoder", "stereo_image", "clipped")


def stored_schema(schema: pa.Schema, *, variants: bool) -> pa.Schema:
    """The part of a track or slice schema that a store writes: a store without variants omits their columns."""
    return schema if variants else pa.schema([field for field in schema if field.name not in _VARIANT_COLUMNS])


def with_optional_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Insert the optional columns of `schema` that a table lacks where `schema` has them, filled with null."""
    for position, field in enumerate(schema):
        if field.name in _OPTIONAL and field.name not in table.schema.names:
            table = table.add_column(min(position, table.num_columns), field, pa.nulls(len(table), field.type))
    return table


def escape(path: bytes | str) -> str:
    r"""Encode a file-system path as valid UTF-8 text: each undecodable byte becomes `\xNN`.

    A backslash that already stands before `xNN` becomes `\x5c`, so that `unescape` is exact.
    """
    raw = _ESCAPED.sub(rb"\\x5cx\1", os.fsencode(path))
    return raw.decode("utf-8", errors="backslashreplace")


def unescape(text: str) -> bytes:
    r"""Invert `escape`: the path as bytes, with which the file can be opened."""
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text.encode("utf-8"))


def update_labels(
    rows: pa.Table, tracks: pa.Table, lookup: Lookup, columns: list[str] = MANIFEST_SCHEMA.names
) -> pa.Table:
    """Replace the dataset's columns (genre, split, path, ...) in manifest rows by those of a track table.

    Args:
        rows: manifest rows.
        tracks: table with the columns of DATASET_SCHEMA; rows whose track is not in it stay unchanged.
        lookup: lookup of their track ids.
        columns: names of the columns to return.

    Returns:
        The rows in their order, with `columns` and the types of MANIFEST_SCHEMA.
    """
    indices = lookup.indices(rows["track_id"])
    labels, rows = tracks.take(indices), rows.select(columns)
    updated = {name: pc.if_else(indices.is_valid(), labels[name], rows[name]) for name in DATASET_SCHEMA.names}
    schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in columns])
    return pa.table([updated.get(name, rows[name]) for name in columns], schema=schema)


def rows_differ(left: pa.ChunkedArray, right: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Compare two columns row by row; two nulls are equal.

    Returns:
        True where they differ, bool `(rows,)`.
    """
    equal = pc.fill_null(pc.equal(left, right), False)
    both_null = pc.and_(pc.is_null(left), pc.is_null(right))
    return ~pc.or_(equal, both_null).to_numpy()
