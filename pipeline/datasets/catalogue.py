"""Catalogue: the track table that a dataset layout returns, with notes for the user; helpers to build it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import blocks
from mgc.pipeline.datasets.lookup import Lookup, repeated
from mgc.pipeline.datasets.tracks import DATASET_SCHEMA
from mgc.pipeline.storage import mapped

#: File suffixes that count as audio: first those that libsndfile reads, then those that only other decoders read.
#: Whether a file really is audio is decided by its content, when it is decoded.
AUDIO_SUFFIXES = (
    ".8svx", ".aif", ".aifc", ".aiff", ".au", ".avr", ".bwf", ".caf", ".flac", ".iff", ".ircam", ".mp3", ".nist",
    ".oga", ".ogg", ".opus", ".paf", ".pvf", ".rf64", ".sd2", ".sds", ".sf", ".snd", ".sph", ".svx", ".voc", ".w64",
    ".wav", ".wave", ".wve", ".xi",
    ".aac", ".ac3", ".amr", ".ape", ".m4a", ".m4b", ".mka", ".mp2", ".mpc", ".tta", ".wma", ".wv",
)  # fmt: skip


@dataclass(frozen=True)
class Catalogue:
    """Tracks of a dataset, as its layout's `read` function returns them.

    Attributes:
        tracks: table of DATASET_SCHEMA, sorted by `track_id`; ids and paths are unique, `genre` is never null.
        notes: one sentence each on files or rows that were left out or look odd, for the user.
        published: name of a description in `manifests/datasets`, if the layout is that of a published dataset.
    """

    tracks: pa.Table
    notes: tuple[str, ...]
    published: str | None = None


def track_table(columns: Mapping[str, Sequence[object] | pa.ChunkedArray]) -> pa.Table:
    """Build a table of DATASET_SCHEMA, sorted by `track_id`.

    Args:
        columns: values by column name, all of the same length; `track_id` is required, absent columns become null.
    """
    length = len(columns["track_id"])
    values = [columns.get(name, pa.nulls(length)) for name in DATASET_SCHEMA.names]
    arrays = [
        column.cast(field.type) if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column, field.type)
        for column, field in zip(values, DATASET_SCHEMA, strict=True)
    ]
    tracks = pa.Table.from_arrays(arrays, schema=DATASET_SCHEMA)
    return mapped.take(tracks, pc.sort_indices(tracks["track_id"]))


def is_audio_name(name: str) -> bool:
    """True if a file name has a suffix of AUDIO_SUFFIXES, in upper or lower case."""
    return name.lower().endswith(AUDIO_SUFFIXES)


def path_ids(paths: pa.ChunkedArray, reserved: pa.ChunkedArray | None = None) -> pa.ChunkedArray:
    """Derive a unique track id from each path: the path without its audio suffix, or with it where that is ambiguous.

    Only files that differ from it in nothing but the suffix change a track's id, so ids stay when a dataset grows.

    Args:
        paths: unique paths.
        reserved: ids that other tracks have.

    Returns:
        One id per path.
    """
    stems = blocks.collect(path[: path.rindex(".")] if is_audio_name(path) else path for path in blocks.each(paths))
    ambiguous = Lookup(paths).contains(stems)  # or the path itself has no suffix
    if reserved is not None:
        ambiguous |= Lookup(reserved).contains(stems)
    ambiguous[repeated(stems)] = True
    if not ambiguous.any():
        return stems
    return pc.if_else(pa.array(ambiguous), paths, stems)


def format_names(names: Iterable[str], limit: int = 5) -> str:
    """Join names on one line, with a count in place of those beyond `limit`: `a, b and 7 more`."""
    printable = [name if name.isprintable() else ascii(name) for name in names]
    more = len(printable) - limit
    return ", ".join(printable[:limit]) + (f" and {more:,} more" if more > 0 else "")
