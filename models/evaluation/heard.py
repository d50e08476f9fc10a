"""Tracks of another dataset that a run has heard in training: the same files, frames, or recordings in another form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.fingerprints import matching
from mgc.pipeline.fingerprints.codes import Codes
from mgc.pipeline.fingerprints.scan import Scan, scan
from mgc.pipeline.store.store import Store

#: Returns a context manager whose value is called with the number of tracks that are done.
Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Copy:
    """A track of another dataset that is also a track that a run was made of.

    Attributes:
        track: its id in the other dataset.
        of: id of the run's track.
        kind: `file` for the same bytes, `frames` for the same frames, `near-duplicate` for the recording in another
            form.
        error: bit error rate of the sub-fingerprints, see `mgc.pipeline.fingerprints.matching`; 0 for the same frames.
    """

    track: str
    of: str
    kind: str
    error: float


def same_files(tracks: pa.Table, known: pa.Table) -> list[Copy]:
    """Find the tracks whose file, byte for byte, is one of the run's.

    Args:
        tracks: `track_id` and `content_hash` of the other dataset's tracks.
        known: the same columns of the run's tracks.
    """
    known = known.filter(pc.is_valid(known["content_hash"]))
    row = pc.index_in(tracks["content_hash"], value_set=known["content_hash"].combine_chunks())
    copies = tracks["track_id"].filter(pc.is_valid(row)).to_pylist()
    return [
        Copy(track, of, "file", 0.0)
        for track, of in zip(copies, known["track_id"].take(row.drop_null()).to_pylist(), strict=True)
    ]


def same_recordings(
    other: Store, tracks: Sequence[str], own: Store, known: Sequence[str], progress: Progress
) -> list[Copy]:
    """Find the tracks that hold a recording of the run's tracks, from the stored frames of both.

    Args:
        other: store of the other dataset, of a feature for which `codes.can_fingerprint` is true.
        tracks: ids of its tracks.
        own: store of the run, of the same feature.
        known: ids of the run's tracks.
        progress: shows how many tracks have been read.

    Returns:
        At most one entry for each track, with the most similar of the run's tracks.

    Raises:
        StoreError: a shard is damaged.
    """
    with progress(len(tracks) + len(known)) as advance:
        scans = [scan(store, advance, ids) for store, ids in ((other, tracks), (own, known))]
    own_by_digest = {digest: track for track, digest in scans[1].digests.items()}
    found = {
        track: Copy(track, own_by_digest[digest], "frames", 0.0)
        for track, digest in scans[0].digests.items()
        if digest in own_by_digest
    }
    equal = {group[0]: group for group in scans[0].equal_tracks()}
    for a, b, error in _near_pairs(scans):
        for track in equal.get(a, [a]):
            found.setdefault(track, Copy(track, b, "near-duplicate", round(error, 4)))
    return [found[track] for track in sorted(found)]


def _near_pairs(scans: Sequence[Scan]) -> list[tuple[str, str, float]]:
    """Return a track of the first scan, one of the second, and their bit error rate, the lowest first."""
    parts = [part.codes for part in scans]
    prefixes = ("0", "1")
    names = [prefix + id for prefix, part in zip(prefixes, parts, strict=True) for id in part.track_ids]
    first = np.concatenate([parts[0].first, parts[1].first[1:] + parts[0].first[-1]])
    values = np.concatenate([part.values for part in parts])
    pairs = matching.find_pairs(Codes(names, first, values, parts[0].bits, parts[0].rate), matching.COPY)
    # Of a pair, `a` comes first in the codes.
    return [(pair.a[1:], pair.b[1:], pair.error) for pair in pairs if pair.a[0] != pair.b[0]]
