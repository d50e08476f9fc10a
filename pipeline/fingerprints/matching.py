"""Pairs of tracks that hold one recording or versions of a piece, found by their sub-fingerprints.

1. Equal sub-fingerprints of two tracks are a hint that the tracks agree if one is shifted by the difference of the two
   times. Equal values are found by sorting. With a tenth of the bits different, two 30 s clips still share dozens.
2. A hint holds if the sub-fingerprints around it agree, too. Few false hints do.
3. The pair is confirmed by the bit error rate: the share of different bits where the two tracks overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mgc.pipeline.fingerprints.codes import Codes

#: Highest bit error rate of copies of one recording, and of recordings that share enough to be suspected of being
#: versions of one piece. docs/audit.md shows the distributions.
COPY, VERSION = 0.25, 0.40
#: Least overlap in seconds. Of shorter passages, some unrelated ones agree by chance.
LEAST_OVERLAP_S = 5.0
#: A value that more sub-fingerprints than this have says nothing: silence, or a steady tone.
COMMON = 32
#: Sub-fingerprints before and after a hint that are compared, and the highest share of different bits among them.
AROUND, AROUND_ERROR = 16, 0.35
#: Offsets of two tracks that are tried, those with most hints.
OFFSETS = 4
#: Sub-fingerprints that are sorted at once, and hints that are looked at at once; they bound the memory.
GROUP, HINTS = 4_000_000, 100_000


@dataclass(frozen=True)
class Pair:
    """Two tracks that share a recording.

    Attributes:
        a: id of one track.
        b: id of the other.
        offset_s: time in `a` at which `b` starts, in seconds; negative if `b` starts earlier.
        overlap_s: seconds that were compared.
        error: bit error rate there: 0 for equal frames, 0.5 for unrelated ones.
    """

    a: str
    b: str
    offset_s: float
    overlap_s: float
    error: float

    @property
    def kind(self) -> str:
        """`near-duplicate` for copies of one recording, `version` for a suspicion."""
        return "near-duplicate" if self.error <= COPY else "version"


def find_pairs(codes: Codes, highest_error: float = VERSION) -> list[Pair]:
    """Find all pairs of tracks that overlap with at most this bit error rate, the lowest first.

    Holds 14 bytes for each sub-fingerprint, and 200 MB for the group of values that is being sorted.
    """
    pairs = []
    for a, b, offsets in _candidates(codes):
        error, offset, overlap = min(_bit_error(codes, a, b, offset) for offset in offsets)
        if error <= highest_error and overlap >= LEAST_OVERLAP_S * codes.rate:
            ids = codes.track_ids[a], codes.track_ids[b]
            pairs.append(Pair(*ids, offset / codes.rate, overlap / codes.rate, error))
    return sorted(pairs, key=lambda pair: (pair.error, pair.a, pair.b))


def _candidates(codes: Codes) -> Iterator[tuple[int, int, list[int]]]:
    """Yield two tracks and the offsets at which they may overlap: the start of the second one in the first."""
    track = np.repeat(np.arange(len(codes.track_ids), dtype=np.int32), np.diff(codes.first))
    place = np.arange(len(codes.values)) - codes.first[track]
    kept = [np.empty((0, 3), np.int64)]
    for hints in _hints(codes.values, track):
        left, right = hints[:, _agree_around(codes, track, hints)]
        kept.append(np.stack([track[left], track[right], place[left] - place[right]], axis=1))
    hints, counts = np.unique(np.concatenate(kept), axis=0, return_counts=True)
    ends = np.flatnonzero(np.any(np.diff(hints[:, :2], axis=0), axis=1)) + 1
    for rows in np.split(np.arange(len(hints)), ends) if len(hints) else ():
        most = rows[np.argsort(-counts[rows], kind="stable")[:OFFSETS]]
        offsets = np.unique(hints[most, 2, None] + [-1, 0, 1])
        yield int(hints[rows[0], 0]), int(hints[rows[0], 1]), offsets.tolist()


def _hints(values: np.ndarray, track: np.ndarray) -> Iterator[np.ndarray]:
    """Yield pairs of positions of equal sub-fingerprints in different tracks, int64 `(2, n)`, the earlier track first.

    Args:
        values: sub-fingerprints, uint32 `(n,)`.
        track: index of the track of each.
    """
    # Equal values in a row are one moment that lasts.
    new = np.ones(len(values), bool)
    new[1:] = (values[1:] != values[:-1]) | (track[1:] != track[:-1])
    n_groups = 1 + len(values) // GROUP
    # Multiplied by a large odd number modulo 2^32, similar values are spread over the groups.
    group_of = (((values * np.uint32(2654435761)).astype(np.uint64) * np.uint64(n_groups)) >> np.uint64(32)).astype(
        np.uint16
    )
    for group in range(n_groups):
        positions = np.flatnonzero(new & (group_of == group))
        positions = positions[np.argsort(values[positions], kind="stable")]
        ordered = values[positions]
        sizes = np.unique(ordered, return_counts=True)[1]
        rare = np.repeat((sizes > 1) & (sizes <= COMMON), sizes)
        positions, ordered = positions[rare], ordered[rare]
        for distance in range(1, COMMON):
            left = np.flatnonzero(ordered[distance:] == ordered[:-distance])
            pairs = np.stack([positions[left], positions[left + distance]])
            pairs = pairs[:, track[pairs[0]] != track[pairs[1]]]
            yield from np.array_split(pairs, 1 + pairs.shape[1] // HINTS, axis=1)


def _agree_around(codes: Codes, track: np.ndarray, hints: np.ndarray) -> np.ndarray:
    """Tell which hints hold: the sub-fingerprints around them agree, as far as both tracks go; bool `(n,)`."""
    steps = np.arange(-AROUND, AROUND + 1)
    left, right = (positions[:, None] + steps for positions in hints)
    inside = np.ones(left.shape, bool)
    for positions, own in ((left, track[hints[0]]), (right, track[hints[1]])):
        inside &= (positions >= codes.first[own, None]) & (positions < codes.first[own + 1, None])
    last = len(codes.values) - 1
    differences = codes.values[left.clip(0, last)] ^ codes.values[right.clip(0, last)]
    errors = (np.bitwise_count(differences) * inside).sum(axis=1)
    return errors <= AROUND_ERROR * codes.bits * inside.sum(axis=1)


def _bit_error(codes: Codes, a: int, b: int, offset: int) -> tuple[float, int, int]:
    """Compare two tracks where they overlap if the second starts at this offset in the first.

    Returns:
        Bit error rate, 1 without an overlap; the offset; sub-fingerprints in the overlap.
    """
    first, second = codes.track(a)[max(0, offset) :], codes.track(b)[max(0, -offset) :]
    overlap = min(len(first), len(second))
    if not overlap:
        return 1.0, offset, 0
    errors = np.bitwise_count(first[:overlap] ^ second[:overlap]).sum(dtype=np.int64)
    return float(errors) / (overlap * codes.bits), offset, overlap
