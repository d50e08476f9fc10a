"""Tracks of the demo dataset: artists, splits, file formats, and the tracks that are broken on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from mgc.pipeline.demo.styles import STYLES

#: Tracks that are broken on purpose, all by the first artist of their style, and what extraction has to make of them:
#: the reason for which it drops the track, or "ok" for a file that is cut off half-way but still long enough for a
#: slice. tracks.csv lists them like all others.
BROKEN_TRACKS = {1199: "empty", 2199: "not-audio", 3199: "ok", 4199: "too-short", 5199: "silence", 6199: "missing"}

#: Names of artists, albums and tracks consist of one word of each string.
WORDS = (
    "Amber Broken Copper Distant Electric Frozen Golden Hollow Iron Little Northern Paper Quiet Velvet",
    "Bridge Candle Engine Garden Harbour Island Lantern Meadow Mirror Orchard River Signal Tower Window",
)


@dataclass(frozen=True)
class ArtistSettings:
    """Split and MP3 format of an artist's tracks.

    Attributes:
        split: one of `mgc.pipeline.datasets.tracks.SPLITS`.
        sample_rate: Hz.
        channels: 1 or 2.
        bit_rate: bit/s.
    """

    split: str
    sample_rate: int = 44_100
    channels: int = 2
    bit_rate: int = 192_000


#: Settings of the six artists of a style. They are the same for every style, so that no format reveals the style.
ARTIST_SETTINGS = (
    ArtistSettings("training"),
    ArtistSettings("training", bit_rate=256_000),
    ArtistSettings("training", sample_rate=48_000),
    ArtistSettings("training", channels=1, bit_rate=96_000),
    ArtistSettings("validation"),
    ArtistSettings("test", bit_rate=224_000),
)


@dataclass(frozen=True)
class Track:
    """A track of the demo: its row of tracks.csv, and the settings of its file.

    Attributes:
        track_id: track number within the artist + 100 * artist's number within the style + 1000 * style's number.
        style: a name in STYLES.
        artist_id: artist's number within the style + 10 * style's number.
        artist: name of the artist.
        album: title of the album.
        title: title of the track.
        settings: the artist's settings.
    """

    track_id: int
    style: str
    artist_id: int
    artist: str
    album: str
    title: str
    settings: ArtistSettings

    @property
    def path(self) -> str:
        """Path of the MP3 file, relative to the audio folder."""
        return f"{self.track_id // 1000:03d}/{self.track_id:06d}.mp3"


def plan_tracks(seed: int, tracks_per_artist: int) -> list[Track]:
    """Draw names for all tracks of the demo.

    Args:
        seed: int >= 0.
        tracks_per_artist: number of tracks per artist, broken ones not counted.

    Returns:
        All tracks in the order of their ids, broken ones included.
    """
    names = [" ".join(words) for words in product(*(words.split() for words in WORDS))]
    rng = np.random.default_rng([seed])
    artists = iter(rng.permutation(names).tolist())
    tracks = []
    for s, style in enumerate(STYLES, start=1):
        for a, settings in enumerate(ARTIST_SETTINGS, start=1):
            artist = next(artists)
            album, *titles = rng.choice(names, tracks_per_artist + 2, replace=False).tolist()
            ids = [1000 * s + 100 * a + number for number in range(1, tracks_per_artist + 1)]
            ids += [track_id for track_id in BROKEN_TRACKS if track_id // 100 == 10 * s + a]
            tracks += [
                Track(track_id, style, 10 * s + a, artist, album, title, settings)
                for track_id, title in zip(ids, titles, strict=False)
            ]
    return tracks
