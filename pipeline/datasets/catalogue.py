"""What every adapter hands back: a track table and the things to say aloud about how it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from mgc.pipeline.datasets.tracks import DATASET_SCHEMA

#: Names that mark a file as audio: what libsndfile reads, then what only other decoders do. Whether a file *is* audio
#: is decided by its content, when it is decoded.
AUDIO_SUFFIXES = (
    ".8svx", ".aif", ".aifc", ".aiff", ".au", ".avr", ".bwf", ".caf", ".flac", ".iff", ".ircam", ".mp3", ".nist",
    ".oga", ".ogg", ".opus", ".paf", ".pvf", ".rf64", ".sd2", ".sds", ".sf", ".snd", ".sph", ".svx", ".voc", ".w64",
    ".wav", ".wave", ".wve", ".xi",
    ".aac", ".ac3", ".amr", ".ape", ".m4a", ".m4b", ".mka", ".mp2", ".mpc", ".tta", ".wma", ".wv",
)  # fmt: skip


@dataclass(frozen=True)
class Catalogue:
    """The tracks an adapter found.

    Attributes:
        tracks: rows of DATASET_SCHEMA, sorted by `track_id`, ids and paths unique, `genre` never null.
        notes: what was left out or looks odd, one sentence each, for the user to read.
        published: name of the description under `manifests/datasets` that fits, if the layout suggests one.
    """

    tracks: pa.Table
    notes: tuple[str, ...]
    published: str | None = None


def track_table(columns: Mapping[str, Sequence[object] | pa.ChunkedArray]) -> pa.Table:
    """The DATASET_SCHEMA table of some of its columns, the others null, sorted by `track_id`."""
    length = len(columns["track_id"])
    filled = [columns.get(name, pa.nulls(length)) for name in DATASET_SCHEMA.names]
    arrays = [
        column.cast(field.type) if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column, field.type)
        for column, field in zip(filled, DATASET_SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=DATASET_SCHEMA).sort_by("track_id").combine_chunks()


def is_audio_name(name: str) -> bool:
    """Whether a file of this name counts as audio."""
    return name.lower().endswith(AUDIO_SUFFIXES)


def path_ids(paths: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """A unique track id for each of these unique paths: the path without its audio suffix where that is unambiguous.

    The id does not depend on other files unless they differ only in their suffix, so it survives when a dataset grows.
    """
    stems = [path[: path.rindex(".")] if is_audio_name(path) else path for path in paths]
    count = Counter(stems)
    reserved = {*taken, *paths}
    return [
        stem if stem == path or (count[stem] == 1 and stem not in reserved) else path
        for stem, path in zip(stems, paths, strict=True)
    ]


def listed(names: Iterable[str], limit: int = 5) -> str:
    """The first few of some names, on one line: `a, b and 7 more`."""
    shown = [name if name.isprintable() else ascii(name) for name in names]
    more = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {more:,} more" if more > 0 else "")
