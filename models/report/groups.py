"""Accuracy of groups of tracks: by artist, by bit rate, by pair of confused genres."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mgc.models.evaluation import intervals
from mgc.models.report.results import Results, Track

#: Upper ends of the groups of bit rates in kbit/s, with their names.
_BIT_RATES = ((96, "up to 96"), (128, "97 to 128"), (192, "129 to 192"), (256, "193 to 256"), (320, "257 to 320"))
_SEED, _RESAMPLES = 0, 2000


@dataclass(frozen=True)
class Group:
    """Right tracks of a group.

    Attributes:
        name: name of the group.
        n: number of tracks.
        right: number of right ones.
        low, high: ends of the 95 % interval of the accuracy; None for groups that have none.
    """

    name: str
    n: int
    right: int
    low: float | None = None
    high: float | None = None

    @property
    def accuracy(self) -> float:
        """Share of right tracks."""
        return self.right / self.n


@dataclass(frozen=True)
class Pair:
    """Tracks of one genre that were taken for another.

    Attributes:
        true, predicted: names of the genres.
        count: number of these tracks.
        support: number of tracks of the true genre.
    """

    true: str
    predicted: str
    count: int
    support: int


def by_artist(tracks: Sequence[Track]) -> list[Group]:
    """Accuracy of each known artist, most tracks first."""
    members: dict[str, list[Track]] = defaultdict(list)
    for track in tracks:
        if track.artist is not None:
            members[track.artist].append(track)
    groups = [Group(artist, len(own), sum(track.right for track in own)) for artist, own in members.items()]
    return sorted(groups, key=lambda group: (-group.n, group.accuracy, group.name))


def artists_by_success(groups: Sequence[Group]) -> list[tuple[str, int]]:
    """Number of artists that have none, fewer than half, at least half or all of their tracks right."""
    shares = np.array([group.accuracy for group in groups])
    return [
        ("all right", int(np.sum(shares == 1))),
        ("half or more", int(np.sum((shares >= 0.5) & (shares < 1)))),
        ("less than half", int(np.sum((shares > 0) & (shares < 0.5)))),
        ("none right", int(np.sum(shares == 0))),
    ]


def by_bit_rate(results: Results, bit_rates: Mapping[str, int | None]) -> list[Group]:
    """Accuracy by bit rate, with intervals from resampling artists; empty if no bit rate is known.

    Args:
        results: results of the run.
        bit_rates: bit rate of each track in bit/s; None or absent if unknown.
    """
    if not any(bit_rates.values()):
        return []
    names = np.array([_bit_rate_name(bit_rates.get(track.id)) for track in results.tracks])
    right = np.array([track.right for track in results.tracks])
    artists = results.slices.by_track().groups
    order = [*(name for _, name in _BIT_RATES), "above 320", "unknown"]
    return [_with_interval(name, right[names == name], artists[names == name]) for name in order if name in names]


def _bit_rate_name(bit_rate: int | None) -> str:
    if not bit_rate:
        return "unknown"
    kilobits = round(bit_rate / 1000)
    return next((name for most, name in _BIT_RATES if kilobits <= most), "above 320")


def _with_interval(name: str, right: np.ndarray, artists: np.ndarray) -> Group:
    """Compute the accuracy of a group and its interval, as those of whole splits (`intervals`)."""
    groups = np.unique(artists, return_inverse=True)[1]
    counts = np.stack([np.bincount(groups, right), np.bincount(groups)], axis=1)
    sums = intervals.resample(counts, _RESAMPLES, _SEED)
    found = intervals.interval(float(right.mean()), sums[:, 0] / sums[:, 1], counts[:, 1])
    return Group(name, len(right), int(right.sum()), found.low, found.high)


def confused_pairs(results: Results, most: int = 10) -> list[Pair]:
    """The pairs of genres that are confused most often, by the number of tracks."""
    confusion = np.array(results.metrics["by_track"]["confusion"])
    supports = confusion.sum(axis=1)
    wrong = confusion - np.diag(np.diag(confusion))
    genres = results.genres
    rows, columns = np.nonzero(wrong)
    pairs = [Pair(genres[r], genres[c], int(wrong[r, c]), int(supports[r])) for r, c in zip(rows, columns, strict=True)]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.count / pair.support, pair.true, pair.predicted))[:most]
