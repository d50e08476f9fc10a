"""Labels that the layout of a dataset does not state: genres and artists from tags, and the names of genres."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from mgc.pipeline.datasets import artists, labels
from mgc.pipeline.datasets.labels import Labelling, Recorded
from mgc.pipeline.datasets.tag_table import TagTable, tag_table
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.storage.remote import Place, RemotePath


class Origin(NamedTuple):
    """Where a dataset is.

    Attributes:
        source: the folder or list that the user named.
        root: audio root.
        format: name of the layout.
        cache_folder: folder of caches; None for none.
    """

    source: Place
    root: Place
    format: str
    cache_folder: Path | None


class LabelledTracks(NamedTuple):
    """Tracks with genres and artists.

    Attributes:
        tracks: track table; `genre` is null for tracks that are left out.
        unlabelled: why each of these is left out, by track id.
        notes: one sentence each, for the user.
    """

    tracks: pa.Table
    unlabelled: dict[str, str]
    notes: tuple[str, ...]


def label(tracks: pa.Table, origin: Origin, labelling: Labelling, recorded: Recorded | None) -> LabelledTracks:
    """Give tracks their genres and, where the layout does not state them, artists.

    Args:
        tracks: track table of the layout; `genre` is null if it is to come from tags.
        origin: where the dataset is.
        labelling: how tracks get their genres.
        recorded: what the stores of the dataset record; None if there is none.

    Raises:
        DatasetError: no track has a genre; the files are at a URL and their tags are wanted; or the folders of a
            dataset without a store look like artists, and nobody has said what the genres are.
    """
    genres = tracks["genre"]
    by_tag = labelling.source == "tag"
    states_artists = origin.format == "fma" or tracks["artist_id"].null_count < len(tracks)
    notes: list[str] = list(labels.describe_change(recorded.labelling, labelling, origin.format)) if recorded else []
    if by_tag or not states_artists:
        if isinstance(origin.root, RemotePath):
            if by_tag:
                problem = f"--genre-from tag: {origin.root} is a URL, and tags are read of local files only"
                raise DatasetError(problem, "name a CSV or Parquet list with the genres, or copy the files")
            notes.append("tags are not read of files at a URL")
        else:
            paths = tracks["path"]
            tags = tag_table(origin.root, paths, origin.cache_folder)
            if by_tag:
                genres, more = labels.tagged_genres(tags)
                notes += more
            elif origin.format == "folder" and labelling.source == "auto" and recorded is None:
                notes += labels.refuse_artist_folders(origin.source, paths, tags)
            if not states_artists:
                level = _artist_level(origin.format, paths, tags, by_tag)
                tracks, more = artists.from_tags(tracks, tags, level)
                notes += more
    known = recorded.genres if recorded else ()
    result = labels.relabel(genres, labelling, known, tracks["path"])
    if len(result.why) == len(tracks):
        problem = "; ".join([f"{origin.source}: no track has a genre", *result.notes])
        raise DatasetError(problem, "check --genre-from, --genre-map and --min-tracks")
    if by_tag or not result.genres.equals(genres):
        tracks = labels.with_genres(tracks, result.genres)
    unlabelled = {tracks["track_id"][row].as_py(): reason for row, reason in result.why.items()}
    return LabelledTracks(tracks, unlabelled, (*notes, *result.notes))


def _artist_level(format: str, paths: pa.ChunkedArray, tags: TagTable, by_tag: bool) -> int | None:
    """Return the level of the folders in which artists are looked for: below the genre, if folders are genres.

    If tags hold the genres, it is the level at which folders are named like the artists of most tagged files.
    """
    if format != "folder":
        return None
    return artists.matching_level(paths, tags) if by_tag else 1
