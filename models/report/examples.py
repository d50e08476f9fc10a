"""The tracks that a report shows in full: those that a system gets most wrong, and the most typical ones."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import numpy as np

from mgc.models.report.excerpt import SECONDS
from mgc.models.report.material import Material
from mgc.models.report.results import Results, Track
from mgc.models.report.spectrogram import Spectrogram

#: Most tracks of each kind.
MOST = 6
#: Rows of probabilities below a spectrogram.
_GENRES = 4


@dataclass(frozen=True)
class Example:
    """A track shown in full.

    Attributes:
        track: the track.
        starts: start of each slice in seconds, float64 `(slices,)`.
        genres: indices of the genres whose probabilities are shown: the true one, then the most probable others.
        probabilities: probability of each slice and of these genres, float64 `(slices, len(genres))`.
        spectrogram: its frames; None if they cannot be drawn.
        mp3: an excerpt; None if there is none.
        excerpt_s: second at which the excerpt begins.
    """

    track: Track
    starts: np.ndarray
    genres: tuple[int, ...]
    probabilities: np.ndarray
    spectrogram: Spectrogram | None
    mp3: bytes | None
    excerpt_s: float


def choose(results: Results) -> tuple[list[Track], list[Track]]:
    """Choose the worst tracks, and the most typical one of each genre.

    The worst are the wrong tracks whose predicted genre is most probable compared with the true one, at most one of an
    artist. The typical ones are the right tracks with the highest probability.
    """
    wrong = [track for track in results.tracks if not track.right]
    worst = _one_each(sorted(wrong, key=lambda t: (-t.excess, t.id)), lambda t: t.artist or t.id)
    right = [track for track in results.tracks if track.right]
    typical = _one_each(sorted(right, key=lambda t: (-t.probabilities[t.true], t.id)), lambda t: t.true)
    return worst[:MOST], typical[:MOST]


def make(results: Results, tracks: Iterable[Track], material: Material) -> list[Example]:
    """Collect what is shown of tracks: probabilities over time, spectrogram and excerpt."""
    return [_example(results, track, material) for track in tracks]


def _example(results: Results, track: Track, material: Material) -> Example:
    slices = results.slices
    first, stop = np.searchsorted(slices.tracks, [track.id, track.id], side="left")
    stop = first + int(np.sum(slices.tracks[first:] == track.id))
    order = np.argsort(-track.probabilities, kind="stable")
    genres = (track.true, *(int(k) for k in order if k != track.true))[:_GENRES]
    probabilities, starts = slices.probabilities[first:stop], slices.starts[first:stop]
    # The moment at which the system is surest of what it predicts.
    start = float(starts[np.argmax(probabilities[:, track.predicted])]) if len(starts) else 0.0
    made = material.excerpt(track.id, start)
    return Example(
        track,
        starts,
        genres,
        probabilities[:, genres],
        material.spectrogram(track.id),
        made[0] if made else None,
        made[1] if made else 0.0,
    )


def excerpt_end(example: Example) -> float:
    """Second at which the excerpt of an example ends."""
    return example.excerpt_s + SECONDS


def _one_each(tracks: list[Track], key: Callable[[Track], Hashable]) -> list[Track]:
    """Keep the first track of each key."""
    first: dict[Hashable, Track] = {}
    for track in tracks:
        first.setdefault(key(track), track)
    return list(first.values())
