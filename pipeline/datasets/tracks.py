"""The track table: one row per file of a dataset, and the manifest it becomes once the files have been decoded."""

from __future__ import annotations

import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")

SPLITS = ("training", "validation", "test")

#: What a dataset adapter yields. `path` is relative to the dataset's audio root, `/`-separated, with bytes that are
#: not UTF-8 backslash-escaped (see `escape`); `genre` is null for unlabelled tracks; `split` is null until assigned;
#: `artist_id` and `album_id` are whatever identifies them in the dataset, null where unknown; `bit_rate` is in bit/s.
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

#: What became of one variant (`features.variants`) of a track. `reason` and `detail` say why there is none; the
#: others are as for the track, in whose shard its frames are.
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

#: What extraction adds. `size` in bytes and `mtime_ns` identify the file cheaply, `content_hash` (BLAKE2b-128 of its
#: bytes) for certain. `duration_s` was decoded, `declared_s` is what the file's own headers promise. `gaps` lists
#: [first, stop) frame ranges touched by non-finite samples. `saturated` counts values outside the range of the stored
#: dtype. The track's frames are rows [first_frame, first_frame + n_frames) of its shard. `variants` are in the row of
#: their track, so that a row is a track whoever counts them; null where none were to be made.
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
        pa.field("status", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("saturated", pa.int64()),
        pa.field("gaps", pa.list_(pa.list_(pa.int64(), 2))),
        pa.field("shard", pa.int32()),
        pa.field("first_frame", pa.int64()),
        pa.field("n_frames", pa.int64()),
        pa.field("variants", pa.list_(VARIANT_TYPE)),
    ]
)

#: Columns of stores with variants only: all others, and those made before there were any, are read alike.
_OPTIONAL = ("variants", "variant")


def stored_schema(schema: pa.Schema, *, variants: bool) -> pa.Schema:
    """The schema of a table of tracks or slices as a store with or without variants writes it."""
    return schema if variants else pa.schema([field for field in schema if field.name not in _OPTIONAL])


def with_optional_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table as it was `stored`, with all columns of its schema."""
    for field in schema:
        if field.name in _OPTIONAL and field.name not in table.schema.names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


def escape(path: bytes | str) -> str:
    r"""A file-system path as valid UTF-8 text: each undecodable byte becomes `\xNN`.

    A backslash that already stands before `xNN` becomes `\x5c`, so that `unescape` is exact.
    """
    raw = _ESCAPED.sub(rb"\\x5cx\1", os.fsencode(path))
    return raw.decode("utf-8", errors="backslashreplace")


def unescape(text: str) -> bytes:
    r"""The path that `escape` made `text` of, as bytes that can be opened."""
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text.encode("utf-8"))


def update_labels(rows: pa.Table, tracks: pa.Table, columns: list[str] = MANIFEST_SCHEMA.names) -> pa.Table:
    """Manifest rows with the labels that a track table has for them; those that are not in it keep theirs."""
    at = pc.index_in(rows["track_id"].combine_chunks(), tracks["track_id"].combine_chunks())
    today, rows = tracks.take(at), rows.select(columns)
    labels = {name: pc.if_else(at.is_valid(), today[name], rows[name]) for name in DATASET_SCHEMA.names}
    schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in columns])
    return pa.table([labels.get(name, rows[name]) for name in columns], schema=schema)


def rows_differ(left: pa.ChunkedArray, right: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """In which rows two columns differ, bool; two nulls are equal."""
    equal = pc.fill_null(pc.equal(left, right), False)
    both_null = pc.and_(pc.is_null(left), pc.is_null(right))
    return ~pc.or_(equal, both_null).to_numpy()
