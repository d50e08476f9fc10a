"""GTZAN's clips by genre and number: the artists who play in them, and published lists of splits.

The files in `manifests/artists` and `manifests/splits` hold them as ranges, such as `blues = "0-11 50-60"`.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa

from mgc.pipeline.datasets.published import published_dataset
from mgc.pipeline.datasets.splits import read_splits
from mgc.pipeline.datasets.tracks import SPLITS
from mgc.pipeline.errors import DatasetError

#: What is known of GTZAN's faults, for the user.
FAULTS = (
    "GTZAN repeats 50 clips exactly and 22 recordings, and has 106 doubtful labels (Sturm 2012); the WAV copy of"
    " jazz.00054 is broken: `--splits gtzan-filtered` leaves faulty clips out and keeps artists apart"
)


@cache
def artists(dataset: str) -> Mapping[str, str]:
    """Return the artist of each clip of a dataset, by clip such as `blues.00012`; unknown ones are missing."""
    genres = _read(f"artists/{dataset}.toml")
    return {
        clip: artist for genre, by_artist in genres.items() for artist, ranges in by_artist.items()
        for clip in _clips(genre, ranges)
    }  # fmt: skip


def with_artists(tracks: pa.Table, dataset: str | None) -> pa.Table:
    """Fill in the artists of a copy of a published dataset that does not state them itself.

    Args:
        tracks: the tracks; their ids are those of the published clips.
        dataset: name of the published dataset; None, or that of a dataset without an index, changes nothing.
    """
    if dataset != "gtzan":
        return tracks
    known = artists(dataset)
    column = pa.array([known.get(track) for track in tracks["track_id"].to_pylist()], pa.string())
    at = tracks.schema.get_field_index("artist_id")
    return tracks.set_column(at, tracks.schema.field(at), column)


def split_lists() -> tuple[str, ...]:
    """Return the names of the published lists of splits, sorted."""
    names = (file.name for file in (files("mgc.manifests") / "splits").iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


@cache
def split_list(name: str) -> Mapping[str, str]:
    """Return the split of each clip that a published list names, by clip such as `blues.00012`."""
    entry = _read(f"splits/{name}.toml")
    return {clip: split for split in SPLITS for genre, text in entry[split].items() for clip in _clips(genre, text)}


def choose_splits(value: Path | None, tracks: pa.Table, source: object) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Read the value of `--splits`: a file, or the name of a published list.

    Args:
        value: the value; None if the option was not given.
        tracks: the dataset's tracks.
        source: the dataset's folder or list, for error messages.

    Returns:
        `{track_id: split}`, whose keys are paths where a file has no ids; and `{track_id: why}` of the tracks that a
        published list leaves out.

    Raises:
        DatasetError: the file cannot be used, there is no such file or list, or the list is one of another dataset.
    """
    if value is None:
        return {}, {}
    name = str(value)
    if value.exists() or name not in split_lists():
        if not value.exists():
            remedy = f"check the path, or name a published list: {', '.join(split_lists())}"
            raise DatasetError(f"cannot read {name}: No such file or directory", remedy)
        return read_splits(value), {}
    clips = dict(zip(tracks["track_id"].to_pylist(), map(_clip, tracks["path"].to_pylist()), strict=True))
    known = Counter(clip is not None for clip in clips.values())[True]
    if 2 * known < len(clips):
        problem = f"--splits {name}: {source} is not GTZAN, {known} of its {len(clips)} files are named like its clips"
        raise DatasetError(problem, "name a CSV or Parquet file with track_id (or path) and split")
    listed = split_list(name)
    chosen = {track: listed[clip] for track, clip in clips.items() if clip in listed}
    return chosen, {track: f"not in the list {name}" for track in clips if track not in chosen}


@cache
def _clip_pattern() -> re.Pattern[str]:
    genres = "|".join(published_dataset("gtzan").genres)
    return re.compile(rf"(?:.*[^a-z])?((?:{genres})\.[0-9]{{5}})(?:\.[^./]*)?")


def _clip(path: str) -> str | None:
    """Return the GTZAN clip that a file is named after, whatever stands before it and its suffix; None for others."""
    match = _clip_pattern().fullmatch(path.lower())
    return match and match[1]


def _clips(genre: str, ranges: str) -> Iterator[str]:
    """Yield the clips of ranges such as `0-11 50`."""
    for part in ranges.split():
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield f"{genre}.{number:05d}"


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((files("mgc.manifests") / name).read_text(encoding="utf-8"))
