"""The demo dataset: composed music as MP3s in FMA's layout, a few of the files broken on purpose.

    folder/README.txt, demo.json             what this is; what it was made from
    folder/fma_demo/NNN/NNNNNN.mp3           six artists a style, no artist in two splits
    folder/fma_metadata/tracks.csv, genres.csv

Track id 4102 is style 4, artist 1 of the style, track 2. The folder appears whole or not at all. On one machine the
same seed gives the same bytes; another processor or another version of a library may round the last bit differently.
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
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from mgc.pipeline.demo.composer import compose
from mgc.pipeline.demo.instruments import Audio
from mgc.pipeline.demo.styles import STYLES, invent_artist
from mgc.pipeline.errors import DatasetError, SpecError
from mgc.pipeline.storage.files import TEMPORARY_PREFIX, replace_folder, translate_write_errors, write_json

Progress = Callable[[int], contextlib.AbstractContextManager[Callable[[int], Any]]]

AUDIO, METADATA, MARKER = "fma_demo", "fma_metadata", "demo.json"

#: Of the music and of the layout; to be raised with every change to either, so that an old demo is not taken for a new.
VERSION = 1

#: How each track that is broken on purpose has to end in the manifest: its reason, or "ok" for one that is cut off
#: half-way but still good for a slice. All are listed in tracks.csv like any other, as of the style's first artist.
BROKEN = {1199: "empty", 2199: "not-audio", 3199: "ok", 4199: "too-short", 5199: "silence", 6199: "missing"}

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

#: Artists, albums and tracks are named by one of each.
WORDS = (
    "Amber Broken Copper Distant Electric Frozen Golden Hollow Iron Little Northern Paper Quiet Velvet",
    "Bridge Candle Engine Garden Harbour Island Lantern Meadow Mirror Orchard River Signal Tower Window",
)


@dataclass(frozen=True)
class Medium:
    """The MP3s of an artist: the split they are in, sample rate in Hz, channels, bit rate in bit/s."""

    split: str
    sample_rate: int = 44_100
    channels: int = 2
    bit_rate: int = 192_000


#: The six artists of every style; the same for each, so that no format gives a style away.
MEDIA = (
    Medium("training"),
    Medium("training", bit_rate=256_000),
    Medium("training", sample_rate=48_000),
    Medium("training", channels=1, bit_rate=96_000),
    Medium("validation"),
    Medium("test", bit_rate=224_000),
)


@dataclass(frozen=True)
class Track:
    """One row of tracks.csv, and what its file is made from."""

    track_id: int
    style: str
    artist_id: int
    artist: str
    album: str
    title: str
    medium: Medium

    @property
    def path(self) -> str:
        """Of the MP3, relative to the audio folder."""
        return f"{self.track_id // 1000:03d}/{self.track_id:06d}.mp3"


def make_demo(
    folder: Path,
    *,
    seed: int = 0,
    tracks_per_artist: int = 2,
    seconds: float = 10.0,
    progress: Progress = lambda total: contextlib.nullcontext(lambda done: None),
) -> Path:
    """Composes the demo dataset into `folder`, or finds it there, finished, from an earlier call.

    Args:
        folder: absent, empty, or a demo of the same version and arguments.
        seed: int >= 0; other seeds give other artists and music.
        tracks_per_artist: int in 1 to 98, tracks, the broken ones not counted.
        seconds: length of each track, at least 1.
        progress: given the number of files, a context manager whose value is called with files done.

    Returns:
        The folder of the MP3s; the metadata lies beside it.

    Raises:
        DatasetError: `folder` holds something else, or libsndfile cannot write MP3.
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
                tracks = _catalogue(seed, tracks_per_artist)
                _write_audio(unfinished / AUDIO, tracks, seed, seconds, progress)
                _write_metadata(unfinished / METADATA, tracks, seconds)
                (unfinished / "README.txt").write_text(README.format(**recipe), encoding="utf-8")
                write_json(unfinished / MARKER, {"recipe": recipe, "sizes": _sizes(unfinished)})
                if not _holds_demo(folder, recipe):  # another process may have been faster
                    replace_folder(unfinished, folder)
    return folder / AUDIO


def _holds_demo(folder: Path, recipe: dict[str, int | float]) -> bool:
    """Whether the demo of `recipe` is in `folder`; False if nothing is, DatasetError if anything else is."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    remedy = "choose another folder, or remove this one to have it composed anew"
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        made_with, sizes = marker["recipe"], dict(marker["sizes"])
    except (OSError, ValueError, TypeError, KeyError):
        raise DatasetError(f"{folder} exists and is not a demo that mgc composed", remedy) from None
    if made_with != recipe:
        raise DatasetError(f"{folder} is a demo made with {made_with}, not with {recipe}", remedy)
    present = _sizes(folder)
    for path, size in sizes.items():
        if present.get(path) != size:
            raise DatasetError(f"{folder} has changed since mgc composed it ({path})", remedy)
    return True


def _sizes(folder: Path) -> dict[str, int]:
    """The size in bytes of every file below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _catalogue(seed: int, tracks_per_artist: int) -> list[Track]:
    """All tracks in the order of their ids, the broken ones included."""
    names = [" ".join(words) for words in product(*(words.split() for words in WORDS))]
    rng = np.random.default_rng([seed])
    artists = iter(rng.permutation(names).tolist())
    tracks = []
    for s, style in enumerate(STYLES, start=1):
        for a, medium in enumerate(MEDIA, start=1):
            artist = next(artists)
            album, *titles = rng.choice(names, tracks_per_artist + 2, replace=False).tolist()
            ids = [1000 * s + 100 * a + number for number in range(1, tracks_per_artist + 1)]
            ids += [track_id for track_id in BROKEN if track_id // 100 == 10 * s + a]
            tracks += [
                Track(track_id, style, 10 * s + a, artist, album, title, medium)
                for track_id, title in zip(ids, titles, strict=False)
            ]
    return tracks


def _write_audio(folder: Path, tracks: list[Track], seed: int, seconds: float, progress: Progress) -> None:
    """Writes the MP3s; each track has a random generator of its own, so that their order changes nothing."""

    def write(track: Track) -> None:
        content = _content(track, seed, seconds)
        if content is not None:
            path = folder / track.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    # Threads are enough: two thirds of the time goes into LAME, which runs without the interpreter's lock.
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    try:
        with progress(len(tracks)) as advance:
            for _ in pool.map(write, tracks):
                advance(1)
    finally:
        pool.shutdown(cancel_futures=True)


def _content(track: Track, seed: int, seconds: float) -> bytes | None:
    """The bytes of a track's file, broken if BROKEN says so; None where there is to be no file."""
    medium = track.medium
    fault = BROKEN.get(track.track_id)
    if fault in ("missing", "empty", "not-audio"):
        return {"missing": None, "empty": b"", "not-audio": ERROR_PAGE}[fault]
    if fault == "silence":
        audio = np.zeros((round(seconds * medium.sample_rate), 2), np.float32)
    else:
        artist = invent_artist(track.style, np.random.default_rng([seed, track.artist_id]))
        rng = np.random.default_rng([seed, track.track_id])
        audio = compose(artist, 1.0 if fault == "too-short" else seconds, rng, medium.sample_rate)
    content = _encode(audio, medium)
    return content[: len(content) // 2] if fault == "ok" else content


def _encode(audio: Audio, medium: Medium) -> bytes:
    """`audio` (sample, 2) as MP3."""
    if medium.channels == 1:
        audio = audio.mean(axis=1, keepdims=True)
    file = io.BytesIO()
    with sf.SoundFile(
        file,
        "w",
        medium.sample_rate,
        medium.channels,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        compression_level=(320_000 - medium.bit_rate) / 288_000,  # libsndfile's scale: 0 is 320 kbit/s, 1 is 32
    ) as mp3:
        mp3.write(audio)
    return file.getvalue()


#: The columns of FMA's tracks.csv after the track id, by the first of its header rows.
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
    """Writes tracks.csv, with FMA's three header rows, and genres.csv."""
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
                ("set", "split"): track.medium.split,
                ("set", "subset"): "small",
                ("track", "bit_rate"): track.medium.bit_rate,
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
