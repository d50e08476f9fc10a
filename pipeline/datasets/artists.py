"""Artists, albums and titles of tracks whose dataset does not state them: from tags, else from a folder per artist."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from mgc.pipeline.datasets import blocks
from mgc.pipeline.datasets.catalogue import format_names
from mgc.pipeline.datasets.tag_table import TagTable
from mgc.pipeline.datasets.tags import Tags, clean, fold, names_artist
from mgc.pipeline.storage import mapped

#: Columns of a track table that tags fill in.
_FILLED = pa.schema([(name, pa.string()) for name in ("artist_id", "album_id", "title")])


def from_tags(tracks: pa.Table, tags: TagTable, level: int | None) -> tuple[pa.Table, tuple[str, ...]]:
    """Fill in `artist_id`, `album_id` and `title`, where they are null.

    Args:
        tracks: track table.
        tags: the tags of each track's file.
        level: level of the path that is the artist's folder, for files without an artist tag; None if there is none.

    Returns:
        The table; notes for the user on where the artists come from.
    """
    filler = _Filler(level)
    columns = (tracks[name] for name in ("path", *_FILLED.names))
    rows = map(filler.fill, *map(blocks.each, columns), tags)
    filled = mapped.collect((blocks.record_batch(block, _FILLED) for block in blocks.batched(rows)), _FILLED)
    for name in _FILLED.names:
        at = tracks.schema.get_field_index(name)
        tracks = tracks.set_column(at, tracks.schema.field(at), filled[name])
    notes = []
    if filler.n_tagged:
        notes.append(f"artists of {filler.n_tagged:,} of {len(tags):,} files read from their tags")
    if filler.n_by_folder:
        below = "below the genre" if level else "at the top"
        count, names = f"{filler.n_by_folder:,}", format_names(filler.folders)
        notes.append(f"files without an artist tag, whose folder {below} is taken for it: {count} ({names})")
    return tracks, tuple(notes)


class _Filler:
    """Fills in artist, album and title of one track after the other, and counts where the artists come from.

    Attributes:
        n_tagged: number of files with an artist tag.
        n_by_folder: number of files whose folder is taken for their artist.
        folders: names of these folders, in the order in which they came.
    """

    def __init__(self, level: int | None) -> None:
        self._level = level
        self.n_tagged = self.n_by_folder = 0
        self.folders: dict[str, None] = {}

    def fill(
        self, path: str, artist: str | None, album: str | None, title: str | None, tags: Tags
    ) -> tuple[str | None, str | None, str | None]:
        """Return artist, album and title of a track."""
        tagged = _artist(tags)
        self.n_tagged += tagged is not None
        if artist is None:
            artist = tagged
        if artist is None and (artist := artist_folder(path, self._level)) is not None:
            self.n_by_folder += 1
            self.folders[path.split("/")[self._level or 0]] = None
        if album is None and tags.album is not None:
            owner = tags.album_artist or tags.artist
            album = " / ".join(fold(text) for text in (owner, tags.album) if text)
        return artist, album, title or tags.title


def _artist(tags: Tags) -> str | None:
    """The folded artist of a file, that of its album if its own is unknown; None if there is none."""
    return next((fold(text) for text in (tags.artist, tags.album_artist) if text and names_artist(text)), None)


def artist_folder(path: str, level: int | None) -> str | None:
    """The folded name of the folder at a level of a path; None if there is none, or it stands for no one artist."""
    folders = path.split("/")[:-1]
    if level is None or len(folders) <= level:
        return None
    name = clean(folders[level])
    return fold(name) if name and names_artist(name) else None


def matching_level(paths: pa.ChunkedArray, tags: TagTable) -> int | None:
    """The level of the folders that are named like the artist of their files, for most files with an artist tag.

    Returns:
        0 or 1; None if there is no such level.
    """
    n_tagged, matches = 0, [0, 0]
    for path, of_file in zip(blocks.each(paths), tags, strict=True):
        if of_file.artist:
            n_tagged += 1
            for level in (0, 1):
                matches[level] += lies_with_artist(path, of_file.artist, level)
    return next((level for level in (0, 1) if 2 * matches[level] > n_tagged), None)


def lies_with_artist(path: str, artist: str, level: int = 0) -> bool:
    """True if a folder of a path is named like an artist. Only letters and digits count: `/` cannot be in a name."""
    folders = path.split("/")[:-1]
    return level < len(folders) and _letters(folders[level]) == _letters(artist) != ""


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, fold(text)))


def one_artist_each(paths: pa.ChunkedArray, tags: TagTable) -> bool:
    """True if nearly all top folders hold tracks of one artist only, as folders of artists and albums do."""
    artists: dict[str, set[str]] = {}
    sizes: Counter[str] = Counter()
    for path, of_file in zip(blocks.each(paths), tags, strict=True):
        if of_file.artist:
            folder = path.split("/", 1)[0]
            artists.setdefault(folder, set()).add(fold(of_file.album_artist or of_file.artist))
            sizes[folder] += 1
    several = [names for folder, names in artists.items() if sizes[folder] > 1]
    return len(several) > 3 and sum(len(names) == 1 for names in several) >= 0.8 * len(several)
