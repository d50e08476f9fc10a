"""The demo dataset: composed music as MP3 files in FMA's layout; a few of the files are broken on purpose.

    folder/README.txt, demo.json             description; seed and other arguments
    folder/fma_demo/NNN/NNNNNN.mp3           six artists per style, no artist in two splits
    folder/fma_metadata/tracks.csv, genres.csv

Track id 4102 is style 4, artist 1 of the style, track 2. The folder appears with all its files or not at all. On one
machine the same seed gives the same bytes; another processor or another version of a library may round the last bit
differently.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from mgc.pipeline.demo.composer import compose
from mgc.pipeline.demo.instruments import Audio
from mgc.pipeline.demo.styles import STYLES, invent_artist
from mgc.pipeline.demo.tracks import BROKEN_TRACKS, ArtistSettings, Track, plan_tracks
from mgc.pipeline.errors import DatasetError, SpecError
from mgc.pipeline.storage.files import TEMPORARY_PREFIX, replace_folder, translate_write_errors, write_json

Progress = Callable[[int], contextlib.AbstractContextManager[Callable[[int], Any]]]

AUDIO, METADATA, MARKER = "fma_demo", "fma_metadata", "demo.json"

#: Version of the music and the layout. Raise it with every change to either: an old demo must not pass for a new one.
VERSION = 1

ERROR_PAGE = b"""<!DOCTYPE html>
<html><head><title>404 Not Found</title></head>
<body><h1>Not Found</h1><p>The requested recording was not found on this server.</p></body></html>
"""

README = """\
The music in this folder is synthetic: mgc (demo version {version}, seed {seed}) computed every note and sample of it.
It is in the public domain (CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/).

Accuracy on it means nothing beyond "the pipeline works". The styles are caricatures of genres, and whoever programmed
them decided how far apart they are.

The layout is that of the FMA dataset. Some files are empty, damaged, silent or missing on purpose.
"""


def make_demo(
    folder: Path,
    *,
    seed: int = 0,
    tracks_per_artist: int = 2,
    seconds: float = 10.0,
    progress: Progress = lambda total: contextlib.nullcontext(lambda step: None),
) -> Path:
    """Compose the demo dataset into a folder, unless the folder holds it already.

    Args:
        folder: must be absent, empty, or a demo of the same version and arguments.
        seed: int >= 0; other seeds give other artists and music.
        tracks_per_artist: number of tracks per artist, 1 to 98, broken ones not counted.
        seconds: length of each track, at least 1.
        progress: function of the number of files that returns a context manager; its value is called with 1 for each
            file written.

    Returns:
        The folder of the MP3 files; the metadata is beside it.

    Raises:
        DatasetError: `folder` holds other files, or libsndfile cannot write MP3.
        MgcError: `folder` cannot be written.
        SpecError: an argument is out of range.
    """
    if seed < 0 or not 1 <= tracks_per_artist <= 98 or seconds < 1:
        raise SpecError(
            f"no demo with seed {seed}, {tracks_per_artist} tracks an artist, {seconds:g} s a track",
            "use a seed of 0 or more, 1 to 98 tracks, and 1 s or more",
        )
    if "MP3" not in sf.available_formats():
        raise DatasetError(
            f"libsndfile {sf.__libsndfile_version__} cannot write MP3", "install soundfile from its wheel, which can"
        )
    recipe = {"version": VERSION, "seed": seed, "tracks_per_artist": tracks_per_artist, "seconds": seconds}
    with translate_write_errors(folder):
        if not _holds_demo(folder, recipe):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=TEMPORARY_PREFIX) as scratch:
                unfinished = Path(scratch) / "demo"
                tracks = plan_tracks(seed, tracks_per_artist)
                _write_audio(unfinished / AUDIO, tracks, seed, seconds, progress)
                _write_metadata(unfinished / METADATA, tracks, seconds)
                (unfinished / "README.txt").write_text(README.format(**recipe), encoding="utf-8")
                write_json(unfinished / MARKER, {"recipe": recipe, "sizes": _sizes(unfinished)})
                if not _holds_demo(folder, recipe):  # another process may have been faster
                    replace_folder(unfinished, folder)
    return folder / AUDIO


def _holds_demo(folder: Path, recipe: dict[str, int | float]) -> bool:
    """True if `folder` holds the demo with these arguments, False if it is absent or empty.

    Raises:
        DatasetError: `folder` holds other files, another demo, or a demo that has changed.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    remedy = "choose another folder, or remove this one to compose it again"
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        other_recipe, sizes = marker["recipe"], dict(marker["sizes"])
    except (OSError, ValueError, TypeError, KeyError):
        raise DatasetError(f"{folder} exists and is not a demo that mgc composed", remedy) from None
    if other_recipe != recipe:
        raise DatasetError(f"{folder} is a demo made with {other_recipe}, not with {recipe}", remedy)
    present = _sizes(folder)
    for path, size in sizes.items():
        if present.get(path) != size:
            raise DatasetError(f"{folder} has changed since mgc composed it ({path})", remedy)
    return True


def _sizes(folder: Path) -> dict[str, int]:
    """Size in bytes of every file below `folder`, by its relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _write_audio(folder: Path, tracks: list[Track], seed: int, seconds: float, progress: Progress) -> None:
    """Write the MP3 files in threads; each track has its own random generator, so their order does not matter."""

    def write(track: Track) -> None:
        content = _content(track, seed, seconds)
        if content is not None:
            path = folder / track.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    # Threads suffice: two thirds of the time is LAME's, which runs without the interpreter's lock.
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    try:
        with progress(len(tracks)) as advance:
            for _ in pool.map(write, tracks):
                advance(1)
    finally:
        pool.shutdown(cancel_futures=True)


def _content(track: Track, seed: int, seconds: float) -> bytes | None:
    """Encode a track's file, broken on purpose for BROKEN_TRACKS; None for a missing file."""
    settings = track.settings
    fault = BROKEN_TRACKS.get(track.track_id)
    if fault in ("missing", "empty", "not-audio"):
        return {"missing": None, "empty": b"", "not-audio": ERROR_PAGE}[fault]
    if fault == "silence":
        audio = np.zeros((round(seconds * settings.sample_rate), 2), np.float32)
    else:
        artist = invent_artist(track.style, np.random.default_rng([seed, track.artist_id]))
        rng = np.random.default_rng([seed, track.track_id])
        audio = compose(artist, 1.0 if fault == "too-short" else seconds, rng, settings.sample_rate)
    content = _encode(audio, settings)
    return content[: len(content) // 2] if fault == "ok" else content


def _encode(audio: Audio, settings: ArtistSettings) -> bytes:
    """Encode audio as MP3.

    Args:
        audio: float32 `(samples, 2)` in [-1, 1]; averaged if the settings ask for one channel.
        settings: sample rate, channels and bit rate.
    """
    if settings.channels == 1:
        audio = audio.mean(axis=1, keepdims=True)
    file = io.BytesIO()
    with sf.SoundFile(
        file,
        "w",
        settings.sample_rate,
        settings.channels,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        compression_level=(320_000 - settings.bit_rate) / 288_000,  # libsndfile's scale: 0 is 320 kbit/s, 1 is 32
    ) as mp3:
        mp3.write(audio)
    return file.getvalue()


#: Columns of FMA's tracks.csv after the track id: `{first header row: second header row}`.
COLUMNS = {
    "album": "comments date_created date_released engineer favorites id information listens producer tags title tracks "
    "type",
    "artist": "active_year_begin active_year_end associated_labels bio comments date_created favorites id latitude "
    "location longitude members name related_projects tags website wikipedia_page",
    "set": "split subset",
    "track": "bit_rate comments composer date_created date_recorded duration favorites genre_top genres genres_all "
    "information interest language_code license listens lyricist number publisher tags title",
}


def _write_metadata(folder: Path, tracks: list[Track], seconds: float) -> None:
    """Write tracks.csv, with FMA's three header rows, and genres.csv."""
    folder.mkdir()
    columns = [(group, name) for group, names in COLUMNS.items() for name in names.split()]
    genres = {style: number for number, style in enumerate(STYLES, start=1)}
    with (folder / "tracks.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["", *(group for group, _ in columns)])
        table.writerow(["", *(name for _, name in columns)])
        table.writerow(["track_id", *("" for _ in columns)])
        for track in tracks:
            genre = [genres[track.style]]
            row = {
                ("album", "id"): track.artist_id,
                ("album", "tags"): [],
                ("album", "title"): track.album,
                ("album", "type"): "Album",
                ("artist", "id"): track.artist_id,
                ("artist", "name"): track.artist,
                ("artist", "tags"): [],
                ("set", "split"): track.settings.split,
                ("set", "subset"): "small",
                ("track", "bit_rate"): track.settings.bit_rate,
                ("track", "composer"): "mgc",
                ("track", "duration"): round(seconds),
                ("track", "genre_top"): track.style,
                ("track", "genres"): genre,
                ("track", "genres_all"): genre,
                ("track", "license"): "CC0-1.0",
                ("track", "number"): track.track_id % 100,
                ("track", "tags"): [],
                ("track", "title"): track.title,
            }
            table.writerow([track.track_id, *(row.get(column, "") for column in columns)])
    with (folder / "genres.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["genre_id", "#tracks", "parent", "title", "top_level"])
        for style, number in genres.items():
            table.writerow([number, sum(track.style == style for track in tracks), 0, style, number])
