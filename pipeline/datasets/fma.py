"""FMA layout: `NNN/NNNNNN.mp3`, with labels in a `tracks.csv` that has two header rows and an index row."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import fma_metadata
from mgc.pipeline.datasets.catalogue import Catalogue, format_names, is_audio_name, track_table
from mgc.pipeline.datasets.walk import Walker
from mgc.pipeline.errors import DatasetError, SpecError
from mgc.pipeline.storage.remote import Place

LAYOUT = "NNN/NNNNNN.mp3"

#: Each subset contains those before it. A row of `tracks.csv` names the smallest that its track is in; `full` is all.
SUBSETS = ("small", "medium", "large", "full")

_FOLDER = re.compile(r"[0-9]{3}")
_CLIP = re.compile(r"(?P<folder>[0-9]{3})/(?P<id>(?P=folder)[0-9]{3})\.[^./]+")

_CLIPS = pa.schema([pa.field("track_id", pa.string()), pa.field("path", pa.string())])


def find_root(folder: Place) -> Place | None:
    """Find the audio folder: `folder` itself, or the subfolder with clips beside `fma_metadata`.

    Returns:
        The audio folder, or None if there is none.

    Raises:
        DatasetError: several subfolders have clips.
    """
    if _has_clips(folder):
        return folder
    if not (folder / fma_metadata.PATH).is_file():
        return None
    roots = [folder / name for name in Walker(folder).scan()[0] if _has_clips(folder / name)]
    if len(roots) > 1:
        names = format_names(path.name for path in roots)
        raise DatasetError(f"{folder} holds several audio folders: {names}", "name one")
    return roots[0] if roots else None


def read(
    root: Place,
    *,
    metadata: Place | None = None,
    subset: str | None = None,
    genre_column: str | None = None,
    cache_folder: Path | None = None,
) -> Catalogue:
    """Read the labelled tracks of a subset; their files need not exist.

    Args:
        root: the audio folder.
        metadata: `tracks.csv` or its folder; None: `fma_metadata` beside or inside `root`.
        subset: one of SUBSETS; None: the smallest that contains all files present.
        genre_column: name of the column that holds the genre, as `group.name` or `name`; None: `track.genre_top`.
        cache_folder: folder that caches the parsed `tracks.csv` for the next call; None disables the cache.

    Raises:
        DatasetError: there are no clips or no metadata, the metadata cannot be used, or they do not belong together.
    """
    clips, notes = _find_clips(root)
    table = fma_metadata.find(root, metadata)
    rows = fma_metadata.read(table, genre_column, cache_folder)

    rank = pc.fill_null(pc.index_in(rows["subset"], pa.array(SUBSETS)), SUBSETS.index("full"))
    present = pc.is_in(rows["track_id"], clips["track_id"].combine_chunks())
    if not pc.any(present).as_py():
        raise DatasetError(
            f"{table} has a row for none of the clips in {root}", "give --metadata the tracks.csv of these clips"
        )
    if subset is None:
        subset = SUBSETS[pc.max(rank.filter(present)).as_py()]
    elif subset not in SUBSETS:
        raise SpecError(f"unknown FMA subset {subset!r}", f"choose one of {', '.join(SUBSETS)}")
    in_subset = rows.filter(pc.less_equal(rank, SUBSETS.index(subset)))
    labelled = in_subset.filter(in_subset["genre"].is_valid())
    if labelled.num_rows == 0:
        raise DatasetError(f"{table}: no track of subset {subset} has a genre", "choose another --genre-column")

    notes += _notes(clips, rows, in_subset, labelled, subset)
    columns = {name: labelled[name] for name in labelled.column_names}
    ids = labelled["track_id"]
    default_path = pc.binary_join_element_wise(pc.utf8_slice_codeunits(ids, 0, 3), "/", ids, ".mp3", "")
    clip = pc.index_in(ids, clips["track_id"].combine_chunks()).combine_chunks()
    columns["path"] = pc.coalesce(clips["path"].combine_chunks().take(clip), default_path.combine_chunks())
    # Large and full have the same rows, and the table does not say whether the files are clips or whole tracks.
    edition = "full" if root.name == "fma_full" else subset
    return Catalogue(track_table(columns), notes, published=f"fma_{edition}")


def _has_clips(folder: Place) -> bool:
    walker = Walker(folder)
    return any(
        _CLIP.fullmatch(path)
        for subfolder in walker.scan()[0]
        if _FOLDER.fullmatch(subfolder)
        for path in _audio_names(walker, subfolder)
    )


def _audio_names(walker: Walker, folder: str) -> list[str]:
    """Paths of the files and folders in a folder that have an audio suffix (extraction drops the folders)."""
    folders, files = walker.scan(folder)
    return [*files, *filter(is_audio_name, folders)]


def _find_clips(root: Place) -> tuple[pa.Table, tuple[str, ...]]:
    """Find the clips in the audio folder.

    Returns:
        Table of `track_id` and `path`, in the order of the subfolders; notes on other audio files.

    Raises:
        DatasetError: no file is named like an FMA clip.
    """
    walker = Walker(root)
    folders, walker.strays = walker.scan()
    tables = [_CLIPS.empty_table()]
    duplicates = 0
    for folder in folders:
        if not _FOLDER.fullmatch(folder):
            walker.strays.extend(walker.audio_files(folder))
            continue
        clips: dict[str, str] = {}  # an id begins with the name of its folder
        # MP3 first: if a clip exists in several formats, the published one counts.
        for path in sorted(_audio_names(walker, folder), key=lambda path: (not path.endswith(".mp3"), path)):
            clip = _CLIP.fullmatch(path)
            if clip is None:
                walker.strays.append(path)
            elif clips.setdefault(clip["id"], path) != path:
                duplicates += 1
        columns = [pa.array(column, pa.string()) for column in (clips.keys(), clips.values())]
        tables.append(pa.table(columns, schema=_CLIPS))
    notes = walker.notes(LAYOUT)
    table = pa.concat_tables(tables)
    if not len(table):
        raise DatasetError("; ".join([f"no clip named {LAYOUT} in {root}", *notes]), "try --format folder")
    if duplicates:
        notes += (f"further formats of the same clips, left out: {duplicates:,}",)
    return table, notes


def _notes(clips: pa.Table, rows: pa.Table, in_subset: pa.Table, labelled: pa.Table, subset: str) -> tuple[str, ...]:
    """Notes on clips and rows that do not become tracks, and on tracks without a clip.

    Args:
        clips: `_find_clips`' table of all clips.
        rows: all rows of `tracks.csv`.
        in_subset: rows of the subset.
        labelled: rows of the subset that have a genre: the tracks.
        subset: name of the subset.
    """

    def count_with_clip(table: pa.Table) -> int:
        """Number of rows whose track has a clip; ids are unique in both tables."""
        return pc.sum(pc.is_in(table["track_id"], clips["track_id"].combine_chunks())).as_py() or 0

    has_row = pc.is_in(clips["track_id"], rows["track_id"].combine_chunks())
    no_row = clips["path"].filter(pc.invert(has_row)).to_pylist()
    outside = len(clips) - len(no_row) - count_with_clip(in_subset)
    absent = labelled.num_rows - count_with_clip(labelled)
    unlabelled = in_subset.num_rows - labelled.num_rows
    sentences = (
        (len(no_row), f"clips without a row in tracks.csv, left out: {len(no_row):,} ({format_names(no_row)})"),
        (outside, f"clips outside subset {subset}, left out: {outside:,}"),
        (
            unlabelled,
            f"tracks without a genre, left out: {unlabelled:,} of the {in_subset.num_rows:,} of subset {subset}",
        ),
        (absent, f"tracks without a file: {absent:,} of the {labelled.num_rows:,} labelled ones of subset {subset}"),
    )
    return tuple(sentence for number, sentence in sentences if number)
