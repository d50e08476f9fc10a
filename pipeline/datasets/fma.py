"""FMA layout: `NNN/NNNNNN.mp3`, described by a `tracks.csv` with two header rows and an index row."""

from __future__ import annotations

import csv
import difflib
import itertools
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from mgc.pipeline.datasets.catalogue import Catalogue, format_names, is_audio_name, track_table
from mgc.pipeline.datasets.parsed import cached_parse
from mgc.pipeline.datasets.tabular import SPLIT_ALIASES
from mgc.pipeline.datasets.walk import Walker
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.storage.remote import Place, RemotePath

LAYOUT = "NNN/NNNNNN.mp3"
METADATA = Path("fma_metadata", "tracks.csv")

#: Each contains those before it. A row of `tracks.csv` names the smallest that it is in; `full` is all rows.
SUBSETS = ("small", "medium", "large", "full")

_FOLDER = re.compile(r"[0-9]{3}")
_CLIP = re.compile(r"(?P<folder>[0-9]{3})/(?P<id>(?P=folder)[0-9]{3})\.[^./]+")

_CLIPS = pa.schema([pa.field("track_id", pa.string()), pa.field("path", pa.string())])

#: Of what `_read_rows` makes of a file: another number where it makes something else.
_PARSER = 1
# A row must fit into a block, however long the biography in it.
_BLOCK_BYTES = 4 << 20


def find_root(folder: Place) -> Place | None:
    """The audio folder: this one, else the one that lies beside `fma_metadata` in it, else None.

    Raises:
        DatasetError: several audio folders lie beside `fma_metadata`.
    """
    if _has_clips(folder):
        return folder
    if not (folder / METADATA).is_file():
        return None
    inner = [folder / name for name in Walker(folder).scan()[0] if _has_clips(folder / name)]
    if len(inner) > 1:
        raise DatasetError(f"{folder} holds several audio folders: {format_names(path.name for path in inner)}", "name one")
    return inner[0] if inner else None


def read(
    root: Place,
    *,
    metadata: Place | None = None,
    subset: str | None = None,
    genre_column: str | None = None,
    copies: Path | None = None,
) -> Catalogue:
    """The labelled tracks of a subset, whether their files are there or not.

    Args:
        root: the audio folder.
        metadata: `tracks.csv` or its folder; by default `fma_metadata` beside or inside `root`.
        subset: one of SUBSETS; by default the smallest that contains the files present.
        genre_column: the column that holds the genre, as `group.name` or `name`; by default `track.genre_top`.
        copies: folder where what was read of `tracks.csv` is kept for the next call; None keeps nothing.

    Raises:
        DatasetError: there are no clips or no metadata, the metadata cannot be used, or they do not belong together.
    """
    clips, notes = _find_clips(root)
    table = _find_metadata(root, metadata)
    names = _read_header(table)
    genre = _resolve(table, names, genre_column or "track.genre_top")
    rows = cached_parse(table.absolute(), f"{_PARSER}/{genre}", copies, lambda: _read_rows(table, names, genre))

    rank = pc.fill_null(pc.index_in(rows["subset"], pa.array(SUBSETS)), SUBSETS.index("full"))
    present = pc.is_in(rows["track_id"], clips["track_id"].combine_chunks())
    if not pc.any(present).as_py():
        raise DatasetError(f"{table} has a row for none of the clips in {root}", "give --metadata the file that has")
    if subset is None:
        subset = SUBSETS[pc.max(rank.filter(present)).as_py()]
    elif subset not in SUBSETS:
        raise DatasetError(f"unknown FMA subset {subset!r}", f"choose one of {', '.join(SUBSETS)}")
    chosen = rows.filter(pc.less_equal(rank, SUBSETS.index(subset)))
    labelled = chosen.filter(chosen["genre"].is_valid())
    if labelled.num_rows == 0:
        raise DatasetError(f"{table}: no track of subset {subset} has a genre", "choose another --genre-column")

    notes += _left_out(clips, rows, chosen, labelled, subset)
    columns = {name: labelled[name] for name in labelled.column_names}
    ids = labelled["track_id"]
    published = pc.binary_join_element_wise(pc.utf8_slice_codeunits(ids, 0, 3), "/", ids, ".mp3", "")
    found = clips["path"].combine_chunks().take(pc.index_in(ids, clips["track_id"].combine_chunks()).combine_chunks())
    columns["path"] = pc.coalesce(found, published.combine_chunks())
    # Large and full have the same rows; whether the files are clips or whole tracks is not in the table.
    edition = "full" if root.name == "fma_full" else subset
    return Catalogue(track_table(columns), notes, published=f"fma_{edition}")


def _has_clips(folder: Place) -> bool:
    walker = Walker(folder)
    return any(
        _CLIP.fullmatch(path)
        for inner in walker.scan()[0]
        if _FOLDER.fullmatch(inner)
        for path in _entries(walker, inner)
    )


def _entries(walker: Walker, folder: str) -> list[str]:
    """What a folder holds that is named like audio, folders included (extraction drops them)."""
    folders, clips = walker.scan(folder)
    return [*clips, *filter(is_audio_name, folders)]


def _find_clips(root: Place) -> tuple[pa.Table, tuple[str, ...]]:
    """`track_id` and `path` of the clips in a folder, in the order of its folders, and notes on what else is there.

    Raises:
        DatasetError: no file is named the FMA way.
    """
    walker = Walker(root)
    folders, walker.strays = walker.scan()
    tables = [_CLIPS.empty_table()]
    copies = 0
    for folder in folders:
        if not _FOLDER.fullmatch(folder):
            walker.strays.extend(walker.below(folder))
            continue
        clips: dict[str, str] = {}  # an id begins with the name of its folder
        # MP3 first: of a clip in several formats the published one is kept.
        for path in sorted(_entries(walker, folder), key=lambda path: (not path.endswith(".mp3"), path)):
            clip = _CLIP.fullmatch(path)
            if clip is None:
                walker.strays.append(path)
            elif clips.setdefault(clip["id"], path) != path:
                copies += 1
        columns = [pa.array(column, pa.string()) for column in (clips.keys(), clips.values())]
        tables.append(pa.table(columns, schema=_CLIPS))
    notes = walker.notes(LAYOUT)
    found = pa.concat_tables(tables)
    if not len(found):
        raise DatasetError("; ".join([f"no clip named {LAYOUT} in {root}", *notes]), "try --format folder")
    if copies:
        notes += (f"further formats of the same clips, left out: {copies:,}",)
    return found, notes


def _find_metadata(root: Place, metadata: Place | None) -> Path:
    place = root if metadata is None else metadata
    if isinstance(place, RemotePath):
        problem = f"{place}: metadata is not read from URLs"
        raise DatasetError(problem, "give --metadata a copy of FMA's tracks.csv on this machine")
    if metadata is None:
        candidates = [place.parent / METADATA, place / METADATA]
        problem = f"no {METADATA} beside {root}"
    else:
        candidates = [place, place / METADATA.name, place / METADATA]
        problem = f"no {METADATA.name} at {metadata}"
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DatasetError(problem, "give --metadata FMA's tracks.csv (or its folder)")


def _read_rows(table: Path, names: list[str], genre: str) -> pa.Table:
    """`tracks.csv` as track_id, subset and the columns of DATASET_SCHEMA except path.

    Only the columns needed are kept, block by block: 250 MB of CSV with 106,574 rows take 2 s and 140 MB of memory.

    Args:
        table: the file.
        names: its columns.
        genre: the one that holds the genre.

    Raises:
        DatasetError: the file cannot be read, or has odd or repeated ids or odd splits.
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
        read = arrow_csv.read_csv(
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
        raise DatasetError(f"cannot read {table}: {str(error).splitlines()[0]}", "fetch it anew") from error
    rows = {name: _trimmed(read[source]) for name, source in sources.items()}
    numeric = pc.match_substring_regex(rows["bit_rate"], r"^[0-9]{1,9}$")
    return pa.table(
        {
            "track_id": _ids(table, rows["track_id"]),
            "genre": rows["genre"],
            "subset": rows["subset"],
            "split": _splits(table, rows["split"]),
            "artist_id": pc.coalesce(rows["artist_id"], rows["artist_name"]),
            "album_id": rows["album_id"],
            "title": rows["title"],
            "bit_rate": pc.if_else(numeric, rows["bit_rate"], None).cast(pa.int32()),
        }
    )


def _read_header(table: Path) -> list[str]:
    """The column names of `tracks.csv` as `group.name`, that of the index being `track_id`."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            lines = list(itertools.islice(csv.reader(file), 3))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"cannot read {table}: {error}", "give --metadata FMA's tracks.csv") from error
    if len(lines) < 3 or len(lines[0]) != len(lines[1]) or not lines[2] or any(lines[2][1:]):
        raise DatasetError(f"{table} does not begin with two header rows and an index row", "give --metadata FMA's own")
    return ["track_id", *(f"{group}.{name}" for group, name in zip(lines[0][1:], lines[1][1:], strict=True))]


def _resolve(table: Path, names: list[str], wanted: str) -> str:
    """The full name of the column that `wanted` names in full or, if that is unambiguous, without its group."""
    matches = [name for name in names if wanted in (name, name.partition(".")[2])]
    if len(matches) == 1:
        return matches[0]
    near = matches or difflib.get_close_matches(wanted, names, n=3, cutoff=0.4) or ["track.genre_top"]
    problem = "is ambiguous" if matches else "is not a column"
    raise DatasetError(f"--genre-column {wanted!r} {problem} of {table}", f"choose for instance {' or '.join(near)}")


def _trimmed(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text without surrounding blanks, null where nothing is left."""
    text = pc.utf8_trim_whitespace(cells)
    return pc.if_else(pc.equal(text, ""), None, text)


def _ids(table: Path, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Track ids as in file names, six digits."""
    odd = ids.filter(pc.invert(pc.fill_null(pc.match_substring_regex(ids, r"^[0-9]{1,6}$"), False)))
    if len(odd):
        raise DatasetError(f"{table}: {odd[0].as_py()!r} is not a track id", "ids are whole numbers below 1,000,000")
    ids = pc.utf8_lpad(ids, 6, "0")
    counts = ids.value_counts()
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        raise DatasetError(f"{table} has several rows for track {format_names(repeated.to_pylist())}", "keep one of each")
    return ids


def _splits(table: Path, words: pa.ChunkedArray) -> pa.Array:
    unknown = {word.lower() for word in words.unique().to_pylist() if word} - SPLIT_ALIASES.keys()
    if unknown:
        raise DatasetError(f"{table}: unknown split {format_names(sorted(unknown))}", "write training, validation or test")
    meant = pa.array(SPLIT_ALIASES.values(), pa.string())
    return meant.take(pc.index_in(pc.utf8_lower(words), pa.array(SPLIT_ALIASES.keys(), pa.string())).combine_chunks())


def _left_out(clips: pa.Table, rows: pa.Table, chosen: pa.Table, labelled: pa.Table, subset: str) -> tuple[str, ...]:
    """Sentences on the clips and rows that do not become tracks, and the tracks that have no clip."""

    def has_clip(table: pa.Table) -> int:
        """Its tracks that have one; ids are unique here and there."""
        return pc.sum(pc.is_in(table["track_id"], clips["track_id"].combine_chunks())).as_py() or 0

    known = pc.is_in(clips["track_id"], rows["track_id"].combine_chunks())
    no_row = clips["path"].filter(pc.invert(known)).to_pylist()
    outside = len(clips) - len(no_row) - has_clip(chosen)
    absent = labelled.num_rows - has_clip(labelled)
    unlabelled = chosen.num_rows - labelled.num_rows
    sentences = (
        (len(no_row), f"clips without a row in tracks.csv, left out: {len(no_row):,} ({format_names(no_row)})"),
        (outside, f"clips outside subset {subset}, left out: {outside:,}"),
        (unlabelled, f"tracks without a genre, left out: {unlabelled:,} of the {chosen.num_rows:,} of subset {subset}"),
        (absent, f"tracks without a file: {absent:,} of the {labelled.num_rows:,} labelled ones of subset {subset}"),
    )
    return tuple(sentence for number, sentence in sentences if number)
