"""Artists, albums and titles of tracks whose dataset does not state them: from tags, else from a folder per artist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from mgc.pipeline.datasets.catalogue import format_names
from mgc.pipeline.datasets.tags import Tags, clean, fold, names_artist


def from_tags(tracks: pa.Table, tags: Sequence[Tags], level: int | None) -> tuple[pa.Table, tuple[str, ...]]:
    """Fill in `artist_id`, `album_id` and `title`, where they are null.

    Args:
        tracks: track table.
        tags: the tags of each track's file.
        level: level of the path that is the artist's folder, for files without an artist tag; None if there is none.

    Returns:
        The table; notes for the user on where the artists come from.
    """
    columns = {name: tracks[name].to_pylist() for name in ("path", "artist_id", "album_id", "title")}
    by_folder = []
    for row, (path, of_file) in enumerate(zip(columns["path"], tags, strict=True)):
        artist = _artist(of_file)
        if artist is None and (folder := artist_folder(path, level)) is not None:
            artist = folder
            if columns["artist_id"][row] is None:
                by_folder.append(path)
        if columns["artist_id"][row] is None:
            columns["artist_id"][row] = artist
        if columns["album_id"][row] is None and of_file.album is not None:
            owner = of_file.album_artist or of_file.artist
            columns["album_id"][row] = " / ".join(fold(text) for text in (owner, of_file.album) if text)
        columns["title"][row] = columns["title"][row] or of_file.title
    for name in ("artist_id", "album_id", "title"):
        at = tracks.schema.get_field_index(name)
        tracks = tracks.set_column(at, tracks.schema.field(at), pa.array(columns[name], pa.string()))
    n_tagged = sum(_artist(of_file) is not None for of_file in tags)
    notes = []
    if n_tagged:
        notes.append(f"artists of {n_tagged:,} of {len(tags):,} files read from their tags")
    if by_folder:
        below = "below the genre" if level else "at the top"
        names = format_names(dict.fromkeys(path.split("/")[level or 0] for path in by_folder))
        notes.append(f"files without an artist tag, whose folder {below} is taken for it: {len(by_folder):,} ({names})")
    return tracks, tuple(notes)


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


def matching_level(paths: Sequence[str], tags: Sequence[Tags]) -> int | None:
    """The level of the folders that are named like the artist of their files, for most files with an artist tag.

    Returns:
        0 or 1; None if there is no such level.
    """
    tagged = [(path, of_file.artist) for path, of_file in zip(paths, tags, strict=True) if of_file.artist]
    for level in (0, 1):
        if 2 * sum(lies_with_artist(path, artist, level) for path, artist in tagged) > len(tagged):
            return level
    return None


def lies_with_artist(path: str, artist: str, level: int = 0) -> bool:
    """True if a folder of a path is named like an artist. Only letters and digits count: `/` cannot be in a name."""
    folders = path.split("/")[:-1]
    return level < len(folders) and _letters(folders[level]) == _letters(artist) != ""


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, fold(text)))


def one_artist_each(paths: Sequence[str], tags: Sequence[Tags]) -> bool:
    """True if nearly all top folders hold tracks of one artist only, as folders of artists and albums do."""
    artists: dict[str, set[str]] = {}
    sizes: Counter[str] = Counter()
    for path, of_file in zip(paths, tags, strict=True):
        if of_file.artist:
            folder = path.split("/", 1)[0]
            artists.setdefault(folder, set()).add(fold(of_file.album_artist or of_file.artist))
            sizes[folder] += 1
    several = [names for folder, names in artists.items() if sizes[folder] > 1]
    return len(several) > 3 and sum(len(names) == 1 for names in several) >= 0.8 * len(several)
