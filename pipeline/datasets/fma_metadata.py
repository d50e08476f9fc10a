"""FMA's metadata: a `tracks.csv` with two header rows and an index row."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from mgc.pipeline import suggestions
from mgc.pipeline.datasets.catalogue import format_names
from mgc.pipeline.datasets.parsed import cached_parse
from mgc.pipeline.datasets.rows import SPLIT_ALIASES
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.storage.remote import Place, RemotePath

#: Path of the metadata, beside or inside the audio folder.
PATH = Path("fma_metadata", "tracks.csv")

#: Version of `_read_rows`, part of the cache key: to be raised when its result changes.
_PARSER_VERSION = 1
# A row must fit into a block, even one with a long biography.
_BLOCK_BYTES = 4 << 20


def find(root: Place, metadata: Place | None) -> Path:
    """Find `tracks.csv`.

    Args:
        root: the audio folder.
        metadata: `tracks.csv` or its folder; None: `fma_metadata` beside or inside `root`.

    Raises:
        DatasetError: there is none, or it is at a URL.
    """
    place = root if metadata is None else metadata
    if isinstance(place, RemotePath):
        problem = f"{place}: metadata is not read from URLs"
        raise DatasetError(problem, "give --metadata a copy of FMA's tracks.csv on this machine")
    if metadata is None:
        candidates = [place.parent / PATH, place / PATH]
        problem = f"no {PATH} beside {root}"
    else:
        candidates = [place, place / PATH.name, place / PATH]
        problem = f"no {PATH.name} at {metadata}"
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DatasetError(problem, "give --metadata FMA's tracks.csv (or its folder)")


def read(table: Path, genre_column: str | None, cache_folder: Path | None) -> pa.Table:
    """Read `tracks.csv`, or its cached copy.

    Args:
        table: the file.
        genre_column: name of the column that holds the genre, as `group.name` or `name`; None: `track.genre_top`.
        cache_folder: folder of the cache; None disables it.

    Returns:
        Table of `subset` and the columns of DATASET_SCHEMA, without `path`; one row per track of FMA.

    Raises:
        DatasetError: the file cannot be read, has invalid or duplicate ids or unknown splits, or no such column.
    """
    names = _read_header(table)
    genre = _resolve_column(table, names, genre_column or "track.genre_top")
    variant = f"{_PARSER_VERSION}/{genre}"
    return cached_parse(table.absolute(), variant, cache_folder, lambda: _read_rows(table, names, genre))


def _read_rows(table: Path, names: list[str], genre: str) -> pa.Table:
    """Read `tracks.csv`.

    Block by block, all but the required columns are discarded: 250 MB of CSV with 106,574 rows take 2 s and 140 MB of
    memory.

    Args:
        table: the file.
        names: names of its columns, as `_read_header` returns them.
        genre: name of the column that holds the genre.

    Returns:
        Table of `subset` and the columns of DATASET_SCHEMA, without `path`.

    Raises:
        DatasetError: the file cannot be read, or has invalid or duplicate ids or unknown splits.
    """
    sources = {
        "track_id": "track_id",
        "genre": genre,
        "subset": "set.subset",
        "split": "set.split",
        "artist_id": "artist.id",
        "artist_name": "artist.name",
        "album_id": "album.id",
        "title": "track.title",
        "bit_rate": "track.bit_rate",
    }
    wanted = list(dict.fromkeys(sources.values()))
    try:
        csv_table = arrow_csv.read_csv(
            table,
            read_options=arrow_csv.ReadOptions(
                column_names=names, skip_rows=3, block_size=_BLOCK_BYTES, use_threads=False
            ),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=wanted,
                include_missing_columns=True,
                column_types=dict.fromkeys(wanted, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"cannot read {table}: {str(error).splitlines()[0]}", "download it again") from error
    rows = {name: _trim(csv_table[source]) for name, source in sources.items()}
    numeric = pc.match_substring_regex(rows["bit_rate"], r"^[0-9]{1,9}$")
    return pa.table(
        {
            "track_id": _format_ids(table, rows["track_id"]),
            "genre": rows["genre"],
            "subset": rows["subset"],
            "split": _parse_splits(table, rows["split"]),
            "artist_id": pc.coalesce(rows["artist_id"], rows["artist_name"]),
            "album_id": rows["album_id"],
            "title": rows["title"],
            "bit_rate": pc.if_else(numeric, rows["bit_rate"], None).cast(pa.int32()),
        }
    )


def _read_header(table: Path) -> list[str]:
    """Column names of `tracks.csv` as `group.name`; the index column is `track_id`.

    Raises:
        DatasetError: the file cannot be read, or lacks FMA's header rows.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            lines = list(itertools.islice(csv.reader(file), 3))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"cannot read {table}: {error}", "give --metadata FMA's tracks.csv") from error
    if len(lines) < 3 or len(lines[0]) != len(lines[1]) or not lines[2] or any(lines[2][1:]):
        raise DatasetError(
            f"{table} does not begin with two header rows and an index row", "give --metadata FMA's tracks.csv"
        )
    return ["track_id", *(f"{group}.{name}" for group, name in zip(lines[0][1:], lines[1][1:], strict=True))]


def _resolve_column(table: Path, names: list[str], column: str) -> str:
    """Resolve a column name that may lack its group, such as `genre_top` for `track.genre_top`.

    Raises:
        DatasetError: no column has this name, or several have.
    """
    matches = [name for name in names if column in (name, name.partition(".")[2])]
    if len(matches) == 1:
        return matches[0]
    near = matches or suggestions.nearest(column, names, cutoff=0.4) or ["track.genre_top"]
    problem = "is ambiguous" if matches else "is not a column"
    raise DatasetError(f"--genre-column {column!r} {problem} of {table}", f"choose for instance {' or '.join(near)}")


def _trim(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Strip white space; empty cells become null."""
    text = pc.utf8_trim_whitespace(cells)
    return pc.if_else(pc.equal(text, ""), None, text)


def _format_ids(table: Path, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Pad track ids to six digits, as in file names.

    Raises:
        DatasetError: an id is not a number below 1,000,000, or occurs twice.
    """
    invalid = ids.filter(pc.invert(pc.fill_null(pc.match_substring_regex(ids, r"^[0-9]{1,6}$"), False)))
    if len(invalid):
        raise DatasetError(
            f"{table}: {invalid[0].as_py()!r} is not a track id", "ids are whole numbers below 1,000,000"
        )
    ids = pc.utf8_lpad(ids, 6, "0")
    counts = ids.value_counts()
    duplicates = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(duplicates):
        names = format_names(duplicates.to_pylist())
        raise DatasetError(f"{table} has several rows for track {names}", "keep one of each")
    return ids


def _parse_splits(table: Path, words: pa.ChunkedArray) -> pa.Array:
    """Convert split names of the file to names in SPLITS.

    Raises:
        DatasetError: a name is unknown.
    """
    unknown = {word.lower() for word in words.unique().to_pylist() if word} - SPLIT_ALIASES.keys()
    if unknown:
        raise DatasetError(
            f"{table}: unknown split {format_names(sorted(unknown))}", "write training, validation or test"
        )
    splits = pa.array(SPLIT_ALIASES.values(), pa.string())
    return splits.take(pc.index_in(pc.utf8_lower(words), pa.array(SPLIT_ALIASES.keys(), pa.string())).combine_chunks())
