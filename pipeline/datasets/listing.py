"""Track lists: a CSV or Parquet file with one row per track, columns `path` and `genre`, and optional others.

`tabular.SYNONYMS` names the headings that stand for them, such as `filename` and `label`.
"""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import blocks
from mgc.pipeline.datasets.catalogue import Catalogue, path_ids, track_table
from mgc.pipeline.datasets.lookup import repeated
from mgc.pipeline.datasets.rows import Row, Rows
from mgc.pipeline.datasets.tabular import SYNONYMS, read_rows
from mgc.pipeline.datasets.tracks import escape, unescape
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.storage import urls
from mgc.pipeline.storage.remote import Place, RemotePath

_OPTIONAL = ("track_id", "split", "artist", "artist_id", "album", "album_id", "title")


def read(
    source: Path, *, audio_root: Place | None = None, genre_column: str | None = None, tagged: bool = False
) -> Catalogue:
    """Read a track list; its files need not exist.

    Args:
        source: the list, an absolute path.
        audio_root: absolute folder, or URL, that the paths are relative to and may not leave; None: the folder of the
            list. If it is given, paths may also be absolute.
        genre_column: name of the column that holds the genre; None: `genre`, or a synonym.
        tagged: the genres are in the files' tags: no such column is needed, and `genre` is null.

    Raises:
        DatasetError: the list cannot be read, lacks a column, has a malformed row, or two rows with the same path or
            the same track id.
    """
    synonyms = {name: SYNONYMS[name] for name in ("path",) if genre_column} or SYNONYMS
    genre_column = (genre_column or "genre").strip().lower()
    required = ("path",) if tagged else ("path", genre_column)
    rows = read_rows(source, required=required, optional=_OPTIONAL, synonyms=synonyms)
    if not len(rows):
        raise DatasetError(f"{source} has no rows", "write one row per track")
    notes = tuple(f"column {found} read as {name}" for name, found in rows.renamed.items())
    columns = _track_columns(rows, audio_root, None if tagged else genre_column)
    # The cells take as much memory as the table. Returning it to the system lowers the peak by 90 bytes a row.
    del rows
    pa.default_memory_pool().release_unused()
    tracks = track_table(columns)
    unlabelled = 0 if tagged else tracks["genre"].null_count
    if not unlabelled:
        return Catalogue(tracks, notes)
    labelled = tracks.filter(tracks["genre"].is_valid())
    if labelled.num_rows == 0:
        raise DatasetError(f"{source}: no row has a genre", f"fill in the column {genre_column}")
    return Catalogue(labelled, (*notes, f"rows without a genre, left out: {unlabelled:,}"))


def _track_columns(rows: Rows, audio_root: Place | None, genre_column: str | None) -> dict[str, pa.ChunkedArray]:
    """The columns of DATASET_SCHEMA that a list has.

    Args:
        rows: the list.
        audio_root: see `read`.
        genre_column: column of the genre; None if the list has none.

    Raises:
        DatasetError: a row is malformed, or two rows have the same path or the same track id.
    """
    if isinstance(audio_root, RemotePath):
        root = audio_root
        paths = blocks.collect(_object_path(row, root) for row in rows.each("path"))
    else:
        resolver = _PathResolver(audio_root or rows.path.parent, allow_absolute=audio_root is not None)
        paths = blocks.collect(map(resolver.resolve, rows.each("path")))
    _require_unique(rows, paths, "path")
    ids = _track_ids(rows, paths)
    _require_unique(rows, ids, "track_id")
    return {
        "track_id": ids,
        "path": paths,
        **({"genre": rows.texts(genre_column)} if genre_column else {}),
        "split": rows.splits(),
        "artist_id": rows.texts("artist_id", "artist"),
        "album_id": rows.texts("album_id", "album"),
        "title": rows.texts("title"),
    }


def _object_path(row: Row, root: RemotePath) -> str:
    """The path of a row, relative to the URL of the audio root, normalised and escaped.

    Raises:
        DatasetError: the path is missing, leads out of the root, or cannot be part of a URL.
    """
    text = row.cells.get("path", "")
    if not text.strip():
        raise row.error("it has no path")
    relative = text.removeprefix(f"{root}/")
    path = posixpath.normpath(relative)
    if urls.is_url(relative) or path.startswith(("/", "../")) or path in (".", ".."):
        raise row.error(f"path {text!r} leads out of {root}", "give --audio-root the URL that all paths begin with")
    if not path.isprintable():
        raise row.error(f"path {text!a} has a character that a URL cannot hold")
    return escape(path)


class _PathResolver:
    """Convert the paths of a list to manifest paths.

    Args:
        root: local audio root, absolute.
        allow_absolute: True if paths may be absolute.
    """

    def __init__(self, root: Path, *, allow_absolute: bool) -> None:
        self._allow_absolute = allow_absolute
        self._root = _as_prefix(os.fspath(root))
        self._real_root = _as_prefix(os.path.realpath(root))
        self._inside_cache: dict[bytes, bool] = {}

    def resolve(self, row: Row) -> str:
        """The path of a row, relative to the audio root, normalised and escaped.

        Raises:
            DatasetError: the path is missing, or leads out of the root, by itself or through a linked folder. (A link
                to a single file may point anywhere.)
        """
        text = row.cells.get("path", "")
        if not text.strip():
            raise row.error("it has no path")
        raw = self._encode(text)
        if b"\0" in raw:
            raise row.error(f"path {text!a} holds a null character")
        if urls.is_url(text):
            raise row.error(f"path {text!r} is a URL", "give --audio-root the URL that all paths begin with")
        if raw.startswith(b"/") and not self._allow_absolute:
            raise row.error(f"path {text!r} is absolute", "give --audio-root the folder that holds all the files")
        path = posixpath.normpath(posixpath.join(self._root, raw))
        if not path.startswith(self._root) or not self._is_inside(posixpath.dirname(path)):
            raise row.error(
                f"path {text!r} leads out of {os.fsdecode(self._root)}",
                "give --audio-root the folder that holds all the files",
            )
        return escape(path.removeprefix(self._root))

    def _is_inside(self, folder: bytes) -> bool:
        """True if a folder, with links resolved, is the root or below it."""
        if folder not in self._inside_cache:
            if len(self._inside_cache) >= blocks.BLOCK_ROWS:  # a list may have a folder for each track
                self._inside_cache.clear()
            self._inside_cache[folder] = _as_prefix(os.path.realpath(folder)).startswith(self._real_root)
        return self._inside_cache[folder]

    def _encode(self, text: str) -> bytes:
        r"""Encode a path as bytes. `\xNN` means a byte, as in manifests, unless a file has `\xNN` in its name."""
        literal = os.fsencode(text)
        if "\\x" not in text or b"\0" in literal or os.path.lexists(posixpath.join(self._root, literal)):
            return literal
        return unescape(text)


def _as_prefix(folder: str | bytes) -> bytes:
    return os.fsencode(folder).rstrip(b"/") + b"/"


def _track_ids(rows: Rows, paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Track ids: the list's own, else derived from the path by `path_ids`."""
    listed = rows.texts("track_id")
    if not listed.null_count:
        return listed
    unnamed = listed.is_null().to_numpy()
    derived = path_ids(paths.filter(pa.array(unnamed)), reserved=listed.drop_null())
    return pc.coalesce(listed, derived.take(pa.array(np.cumsum(unnamed) - 1, mask=~unnamed)))


def _require_unique(rows: Rows, values: pa.ChunkedArray, column: str) -> None:
    """Raise a DatasetError that names two rows with the same value in a column."""
    positions = repeated(values)
    if len(positions):
        texts = values.take(pa.array(positions)).combine_chunks()
        first = pc.index_in(texts, texts).to_numpy()
        again = np.flatnonzero(first != np.arange(len(texts)))[0]  # the first row whose value was there before
        problem = f"{column} {texts[again].as_py()!r} is also in {rows.location(positions[first[again]])}"
        raise rows.error(int(positions[again]), problem, "remove or rename one of them")
