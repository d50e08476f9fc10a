"""Genres of tracks: taken from folders, tags or columns, renamed by a map, spelled alike, and enough of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from mgc.pipeline.datasets import artists, blocks
from mgc.pipeline.datasets.catalogue import format_names
from mgc.pipeline.datasets.tabular import read_rows
from mgc.pipeline.datasets.tag_table import TagTable
from mgc.pipeline.datasets.tags import fold
from mgc.pipeline.errors import DatasetError

#: Values of `--genre-from`.
SOURCES = ("auto", "folder", "tag", "column")

#: Begins the `detail` of a track that has no genre, or whose genre is left out.
NO_GENRE = "without a genre: "

#: Layouts whose genres are folders, and those whose genres are a column.
_LAYOUTS = {"folder": ("folder", "gtzan"), "column": ("fma", "list")}


@dataclass(frozen=True)
class Labelling:
    """How tracks get their genres.

    Attributes:
        source: one of SOURCES; `auto` takes what the layout has.
        genre_map: new name by folded genre; None leaves the genre out.
        min_tracks: genres with fewer tracks are left out.
    """

    source: str = "auto"
    genre_map: Mapping[str, str | None] = field(default_factory=dict)
    min_tracks: int = 1

    def as_dict(self) -> dict[str, Any]:
        """The settings that are not the default, as `store.json` records them."""
        values = {"genre_from": self.source, "genre_map": dict(self.genre_map), "min_tracks": self.min_tracks}
        return {name: value for name, value in values.items() if value not in ("auto", {}, 1)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Labelling:
        """Invert `as_dict`."""
        return cls(values.get("genre_from", "auto"), values.get("genre_map", {}), values.get("min_tracks", 1))


class Recorded(NamedTuple):
    """What the stores of a dataset record: how tracks got their genres, and the genres."""

    labelling: Labelling
    genres: Sequence[str]


class Request(NamedTuple):
    """What a call asks for: the fields of `Labelling`, None for an option that was not given."""

    source: str | None = None
    genre_map: Mapping[str, str | None] | None = None
    min_tracks: int | None = None

    def merged(self, recorded: Labelling) -> Labelling:
        """The recorded settings with those of the call in their place."""
        return Labelling(
            recorded.source if self.source in (None, "auto") else self.source or "auto",
            recorded.genre_map if self.genre_map is None else self.genre_map,
            recorded.min_tracks if self.min_tracks is None else self.min_tracks,
        )


def read_map(path: Path) -> dict[str, str | None]:
    """Read a `--genre-map` file.

    Args:
        path: CSV or Parquet with the columns `genre` and `as`; an empty `as` leaves a genre out.

    Returns:
        `{folded genre: new name}`, with None for a genre that is left out.

    Raises:
        DatasetError: the file cannot be read, has other columns, or a row is incomplete or repeats a genre.
    """
    names: dict[str, str | None] = {}
    rows = read_rows(path, required=("genre", "as"), optional=())
    if others := [name for name in rows.header if name not in ("genre", "as")]:
        raise DatasetError(f"{path} has the columns {format_names(others)}", "a genre map has only genre and as")
    for row in rows.each("genre", "as"):
        if (genre := row.text("genre")) is None:
            raise row.error("it has no genre")
        if fold(genre) in names:
            raise row.error(f"genre {genre!r} was named before", "remove one of the rows")
        names[fold(genre)] = row.text("as")
    return names


def describe_change(before: Labelling, after: Labelling, format: str) -> Iterator[str]:
    """Yield a note for each setting that differs from the one that the stores of a dataset record."""

    def source(labelling: Labelling) -> str:
        default = next((name for name, layouts in _LAYOUTS.items() if format in layouts), format)
        return default if labelling.source == "auto" else labelling.source

    if source(before) != source(after):
        yield f"--genre-from: {source(before)} before, {source(after)} now; the tracks of the stores get other genres"
    if before.genre_map != after.genre_map:
        yield f"--genre-map: {len(before.genre_map):,} genres before, {len(after.genre_map):,} now"
    if before.min_tracks != after.min_tracks:
        yield f"--min-tracks: {before.min_tracks:,} before, {after.min_tracks:,} now"


def require_source(source: str, format: str) -> None:
    """Raise a DatasetError if a layout does not have its genres where `--genre-from` says."""
    if source in _LAYOUTS and format not in _LAYOUTS[source]:
        has = next((name for name, layouts in _LAYOUTS.items() if format in layouts), None)
        remedy = f"use {has} or tag" if has else "use tag, or leave it out"
        raise DatasetError(f"--genre-from {source} cannot be used with a dataset in {format} format", remedy)


def refuse_artist_folders(source: object, paths: pa.ChunkedArray, tags: TagTable) -> Iterator[str]:
    """Stop if the folders of a plain folder layout look like artists, and its tags hold genres.

    Folders look like artists if most files with an artist tag lie in a folder of that name, or if there are more
    folders than genres in the tags, and at least four fifths of four folders or more have one artist each (albums).
    Folders that are the genre of at least half of the tags are genres, whoever plays.

    Yields:
        A note if the folders look like artists, but no tags hold genres.

    Raises:
        DatasetError: they look like artists, and at least half of the files have a genre tag.
    """
    folders: set[str] = set()
    genres: Counter[str] = Counter()
    n_tagged = n_match = as_folder = 0
    for path, of_file in zip(blocks.each(paths), tags, strict=True):
        folder = path.split("/", 1)[0]
        folders.add(folder)
        if of_file.artist:
            n_tagged += 1
            n_match += artists.lies_with_artist(path, of_file.artist)
        if of_file.genre:
            genres[fold(of_file.genre)] += 1
            as_folder += fold(folder) == fold(of_file.genre)
    folders = set(map(fold, folders))
    if not n_tagged or 2 * as_folder >= max(1, genres.total()):
        return
    if 2 * n_match > n_tagged:
        why = f"{n_match:,} of {n_tagged:,} files with an artist tag lie in a folder with that name"
    elif len(genres) < len(folders) and genres and artists.one_artist_each(paths, tags):
        why = "nearly every folder has one artist only"
    else:
        return
    if 2 * genres.total() >= len(paths):
        number = f"{len(genres):,} genres" if len(genres) > 1 else "one genre"
        problem = f"{source}: its {len(folders):,} folders look like artists ({why}), and the tags name {number}"
        raise DatasetError(problem, "add --genre-from tag to learn these, or --genre-from folder to learn the folders")
    if 2 * n_match > n_tagged:
        yield f"the folders look like artists ({why}), and few tags name a genre: each artist is a class"


def tagged_genres(tags: TagTable) -> tuple[pa.ChunkedArray, tuple[str, ...]]:
    """Return the genre of each file by its tags, null without one; notes for the user."""
    several = sum(of_file.n_genres > 1 for of_file in tags)
    notes = [f"files whose tags name several genres, of which the first counts: {several:,}"] if several else []
    return blocks.collect(of_file.genre for of_file in tags), tuple(notes)


class Labels(NamedTuple):
    """Genres of tracks.

    Attributes:
        genres: genre of each track, string `(tracks,)`; null if it has none, or is left out.
        why: `detail` of each track without a genre, by row.
        notes: one sentence each, for the user.
    """

    genres: pa.ChunkedArray
    why: dict[int, str]
    notes: tuple[str, ...]


def relabel(genres: pa.ChunkedArray, labelling: Labelling, known: Sequence[str], paths: pa.ChunkedArray) -> Labels:
    """Rename genres by the map, spell those alike that differ in case or blanks only, and leave small ones out.

    Args:
        genres: genre of each track, string `(tracks,)`, null without one.
        labelling: map and least number of tracks.
        known: genres of the stores that exist; these keep their spelling.
        paths: path of each track, string `(tracks,)`, for notes.

    Returns:
        The genres in the same order.
    """
    counts = Counter(genre for genre in blocks.each(genres) if genre is not None)
    new = {genre: labelling.genre_map.get(fold(genre), genre) for genre in counts}
    why = {genre: f"the genre map leaves {genre} out" for genre, name in new.items() if name is None}
    notes = []
    if genres.null_count:
        names = format_names(paths.filter(genres.is_null()).to_pylist())
        notes.append(f"files without a genre tag, left out: {genres.null_count:,} ({names})")
    if renamed := {f"{genre} as {name}": counts[genre] for genre, name in new.items() if name not in (genre, None)}:
        notes.append(f"genres renamed by the genre map: {_with_counts(renamed)}")
    if why:
        notes.append(f"genres left out by the genre map: {_with_counts({genre: counts[genre] for genre in why})}")
    if unused := labelling.genre_map.keys() - {fold(genre) for genre in counts}:
        notes.append(f"genres of the genre map that no track has: {format_names(sorted(unused))}")
    sizes: Counter[str] = Counter()
    for genre, name in new.items():
        sizes.update({name: counts[genre]} if name is not None else {})
    spelling = _spell_alike(sizes, [*known], [name for name in labelling.genre_map.values() if name])
    others = sorted(name for name in sizes if spelling[name] != name)
    if replaced := [f"{name!r} is {spelling[name]!r} ({sizes[name]:,})" for name in others]:
        notes.append(f"genres that differ only in case or blanks are one: {format_names(replaced)}")
    new = {genre: name and spelling[name] for genre, name in new.items()}
    totals: Counter[str] = Counter()
    for name, n in sizes.items():
        totals[spelling[name]] += n
    if small := {name: n for name, n in totals.items() if n < labelling.min_tracks}:
        notes.append(f"genres with fewer than {labelling.min_tracks:,} tracks, left out: {_with_counts(small)}")
        why |= {
            genre: f"{name} has {small[name]:,} of at least {labelling.min_tracks:,} tracks"
            for genre, name in new.items()
            if name in small
        }
    reasons = {genre: NO_GENRE + reason for genre, reason in why.items()} | {None: f"{NO_GENRE}its tags name none"}
    left_out = {row: reasons[genre] for row, genre in enumerate(blocks.each(genres)) if genre in reasons}
    result = blocks.collect(None if genre in reasons else new[genre] for genre in blocks.each(genres))
    return Labels(result, left_out, tuple(notes))


def _with_counts(genres: Mapping[str, int]) -> str:
    return format_names((f"{genre} ({genres[genre]:,})" for genre in sorted(genres)), 20)


def _spell_alike(counts: Mapping[str, int], known: list[str], preferred: list[str]) -> dict[str, str]:
    """Choose one spelling for genres that differ only in case or blanks: a known, a preferred or the most frequent one.

    Args:
        counts: number of tracks by genre.
        known: genres whose spelling stays. Stores of earlier versions may have several spellings of one genre.
        preferred: spellings that the user wrote.

    Returns:
        The spelling of each genre.
    """
    spelling: dict[str, str] = {}
    for genre in sorted(known) + preferred + sorted(counts, key=lambda genre: (-counts[genre], genre)):
        spelling.setdefault(fold(genre), genre)
    return {genre: genre if genre in known else spelling[fold(genre)] for genre in counts}


def with_genres(tracks: pa.Table, genres: pa.ChunkedArray) -> pa.Table:
    """Return a track table with other genres."""
    at = tracks.schema.get_field_index("genre")
    return tracks.set_column(at, tracks.schema.field(at), genres)
