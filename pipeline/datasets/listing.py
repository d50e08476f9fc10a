"""Lists: a CSV or Parquet file with a row per track, its columns `path` and `genre` and what else is known."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from mgc.pipeline.datasets.catalogue import Catalogue, path_ids, track_table
from mgc.pipeline.datasets.tabular import Row, read_rows
from mgc.pipeline.datasets.tracks import escape, unescape
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.storage import urls
from mgc.pipeline.storage.remote import Place, RemotePath

_OPTIONAL = ("track_id", "split", "artist", "artist_id", "album", "album_id", "title")


def read(source: Path, *, audio_root: Place | None = None, genre_column: str | None = None) -> Catalogue:
    """The tracks of a list, whether their files exist or not.

    Args:
        source: the list, an absolute path.
        audio_root: the folder, absolute, or the URL that the paths are relative to and may not leave; by default the
            folder of the list. Where it is given, paths may be absolute, too.
        genre_column: the column that holds the genre, `genre` by default.

    Raises:
        DatasetError: the list cannot be read, lacks a column, has a malformed row, or two rows with the same path or
            the same track id.
    """
    genre_column = (genre_column or "genre").strip().lower()
    rows = read_rows(source, required=("path", genre_column), optional=_OPTIONAL)
    if not rows:
        raise DatasetError(f"{source} has no rows", "write one row per track")
    if isinstance(audio_root, RemotePath):
        paths = [_locate_object(row, audio_root) for row in rows]
    else:
        places = _Places(audio_root or source.parent, absolute=audio_root is not None)
        paths = [places.locate(row) for row in rows]
    _refuse_twice(rows, paths, "path")
    ids = _track_ids(rows, paths)
    _refuse_twice(rows, ids, "track_id")

    columns = {
        "track_id": ids,
        "path": paths,
        "genre": [row.text(genre_column) for row in rows],
        "split": [row.split() for row in rows],
        "artist_id": [row.text("artist_id") or row.text("artist") for row in rows],
        "album_id": [row.text("album_id") or row.text("album") for row in rows],
        "title": [row.text("title") for row in rows],
    }
    tracks = track_table(columns)
    labelled = tracks.filter(tracks["genre"].is_valid())
    unlabelled = tracks.num_rows - labelled.num_rows
    if labelled.num_rows == 0:
        raise DatasetError(f"{source}: no row has a genre", f"fill in the column {genre_column}")
    notes = (f"rows without a genre, left out: {unlabelled:,}",) if unlabelled else ()
    return Catalogue(labelled, notes)


def _locate_object(row: Row, root: RemotePath) -> str:
    """The path of a row, relative to the URL of the audio root, normalised and escaped.

    Raises:
        DatasetError: there is none, it leads out of the root, or cannot be part of a URL.
    """
    text = row.cells.get("path", "")
    if not text.strip():
        raise row.error("it has no path")
    inside = text.removeprefix(f"{root}/")
    path = posixpath.normpath(inside)
    if urls.is_url(inside) or path.startswith(("/", "../")) or path in (".", ".."):
        raise row.error(f"path {text!r} leads out of {root}", "give --audio-root the URL that all paths begin with")
    if not path.isprintable():
        raise row.error(f"path {text!a} holds what no URL can hold")
    return escape(path)


class _Places:
    """Turns the paths of a list into the manifest's form, refusing those that leave the audio root."""

    def __init__(self, root: Path, *, absolute: bool) -> None:
        self.absolute = absolute
        self.root = _as_prefix(os.fspath(root))
        self._real_root = _as_prefix(os.path.realpath(root))
        self._inside: dict[bytes, bool] = {}

    def locate(self, row: Row) -> str:
        """The path of a row, relative to the audio root, normalised and escaped.

        Raises:
            DatasetError: there is none, or it leads out of the root, by itself or through a linked folder. (A link to
                a single file may point anywhere.)
        """
        text = row.cells.get("path", "")
        if not text.strip():
            raise row.error("it has no path")
        raw = self._raw(text)
        if b"\0" in raw:
            raise row.error(f"path {text!a} holds a null character")
        if urls.is_url(text):
            raise row.error(f"path {text!r} is a URL", "give --audio-root the URL that all paths begin with")
        if raw.startswith(b"/") and not self.absolute:
            raise row.error(f"path {text!r} is absolute", "give --audio-root the folder that holds all the files")
        path = posixpath.normpath(posixpath.join(self.root, raw))
        if not path.startswith(self.root) or not self._is_inside(posixpath.dirname(path)):
            raise row.error(
                f"path {text!r} leads out of {os.fsdecode(self.root)}",
                "give --audio-root the folder that holds all the files",
            )
        return escape(path.removeprefix(self.root))

    def _is_inside(self, folder: bytes) -> bool:
        """Whether a folder is the root or below it once links are followed."""
        if folder not in self._inside:
            self._inside[folder] = _as_prefix(os.path.realpath(folder)).startswith(self._real_root)
        return self._inside[folder]

    def _raw(self, text: str) -> bytes:
        r"""The bytes of a path. `\xNN` stands for a byte, as in manifests, unless a file is really called that."""
        literal = os.fsencode(text)
        if "\\x" not in text or b"\0" in literal or os.path.lexists(posixpath.join(self.root, literal)):
            return literal
        return unescape(text)


def _as_prefix(folder: str | bytes) -> bytes:
    return os.fsencode(folder).rstrip(b"/") + b"/"


def _track_ids(rows: list[Row], paths: list[str]) -> list[str]:
    """The ids the rows give; for the others their path, without its suffix where that is unambiguous."""
    given = [row.text("track_id") for row in rows]
    unnamed = [path for path, track_id in zip(paths, given, strict=True) if track_id is None]
    made = dict(zip(unnamed, path_ids(unnamed, taken=filter(None, given)), strict=True))
    return [track_id or made[path] for path, track_id in zip(paths, given, strict=True)]


def _refuse_twice(rows: list[Row], values: list[str], what: str) -> None:
    """Raise a DatasetError that names two rows with the same value."""
    first: dict[str, Row] = {}
    for row, value in zip(rows, values, strict=True):
        if value in first:
            raise row.error(f"{what} {value!r} is that of {first[value].place} too", "remove or rename one of them")
        first[value] = row
