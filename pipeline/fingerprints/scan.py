"""One pass over the frames of a store: what an audit of its recordings needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.fingerprints.codes import Codes, Extractor
from mgc.pipeline.fingerprints.levels import Levels
from mgc.pipeline.storage import files
from mgc.pipeline.store.store import Store


@dataclass(frozen=True)
class Scan:
    """Digests, sub-fingerprints and levels of the tracks of a store.

    Attributes:
        codes: sub-fingerprints of one track of each recording: the first of tracks with equal frames.
        digests: digest of the stored frames, by track id.
        levels: levels of each track, by track id.
    """

    codes: Codes
    digests: dict[str, str]
    levels: dict[str, Levels]

    def equal_tracks(self) -> list[list[str]]:
        """Return the ids of tracks with equal frames, a list for each recording that is there more than once."""
        groups: dict[str, list[str]] = {}
        for track, digest in self.digests.items():
            groups.setdefault(digest, []).append(track)
        return [group for group in groups.values() if len(group) > 1]


def scan(store: Store, progress: Callable[[int], None] = lambda n: None, only: Sequence[str] | None = None) -> Scan:
    """Read all frames of the usable tracks of a store once.

    Holds one shard at a time, and 4 bytes for each sub-fingerprint: 520 MB for 100,000 tracks of 30 s.

    Args:
        store: store of a feature for which `codes.can_fingerprint` is true.
        progress: called after each shard with its number of tracks.
        only: ids of the tracks to read; None for all usable ones.

    Raises:
        StoreError: a shard is damaged.
    """
    extractor = Extractor.of(store.spec)
    tracks = store.read_tracks(["track_id", "status", "shard", "first_frame", "n_frames"])
    if only is None:
        tracks = tracks.filter(pc.equal(tracks["status"], "ok"))
    else:
        tracks = tracks.filter(pc.is_in(tracks["track_id"], value_set=pa.array(only, pa.string())))
    tracks = tracks.sort_by([("shard", "ascending"), ("first_frame", "ascending")])
    ids = tracks["track_id"].to_pylist()
    shards, firsts, lengths = (tracks[name].to_numpy() for name in ("shard", "first_frame", "n_frames"))
    digests: dict[str, str] = {}
    levels: dict[str, Levels] = {}
    seen: set[str] = set()
    names: list[str] = []
    values = np.empty(sum(extractor.count(int(length)) for length in lengths), np.uint32)
    ends = [0]
    for shard in np.unique(shards):
        rows = np.flatnonzero(shards == shard)
        frames = store.read(int(shard))
        for row in rows:
            track = frames[firsts[row] : firsts[row] + lengths[row]]
            digest = digests[ids[row]] = files.digest(np.ascontiguousarray(track).view(np.uint8).data)
            power = extractor.meter.power(track)
            levels[ids[row]] = extractor.meter.measure(power)
            if digest in seen:
                continue
            seen.add(digest)
            codes = extractor.compute(track, power)
            names.append(ids[row])
            ends.append(ends[-1] + len(codes))
            values[ends[-2] : ends[-1]] = codes
        progress(len(rows))
    codes_of_all = Codes(names, np.array(ends, np.int64), values[: ends[-1]], extractor.bits, extractor.rate)
    return Scan(codes_of_all, digests, levels)
