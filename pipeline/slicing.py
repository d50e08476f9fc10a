"""Slices: windows over a track's frames. Rows of an index, not copies, so re-slicing a store costs no decoding."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import SpecError
from pipeline.features import FeatureSpec

PLACES = ("all", "start", "centre", "random")

#: One row per slice, in the order of the manifest's tracks. `start_s` is the moment in the track, `first_frame` the row
#: of its shard where it begins. `split` is its track's, so that a reader can leave out what it must not see.
SLICE_SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("start_s", pa.float64()),
        pa.field("shard", pa.int32()),
        pa.field("first_frame", pa.int64()),
        pa.field("n_frames", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Slicing:
    """How tracks are cut.

    Attributes:
        seconds: length of a slice, which then has `1 + floor(seconds * sr / hop_length)` frames.
        frames: length in frames instead.
        whole: one slice per track, all of its frames, instead.
        overlap: share of a slice that the next one repeats, in [0, 1).
        offset: seconds at the start of each track that are left out.
        max_slices: slices per track at most.
        place: which of the possible slices are kept: all, the first ones, those in the centre, or random positions.
        seed: of the random positions.
    """

    seconds: float | None = 4.0
    frames: int | None = None
    whole: bool = False
    overlap: float = 0.5
    offset: float = 0.0
    max_slices: int | None = None
    place: str = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        ways = [self.seconds is not None, self.frames is not None, self.whole]
        if sum(ways) != 1:
            raise SpecError("a slice has one length", "give one of --slice SECONDS, --frames N and --whole")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise SpecError(f"--slice {self.seconds:g}", "it must be a positive number of seconds")
        if self.frames is not None and self.frames < 1:
            raise SpecError(f"--frames {self.frames}", "it must be at least 1")
        if not 0 <= self.overlap < 1:
            raise SpecError(f"--overlap {self.overlap:g}", "it must be in [0, 1): 0.5 repeats half of each slice")
        if not 0 <= self.offset < math.inf:
            raise SpecError(f"--offset {self.offset:g}", "it must be a number of seconds, 0 or more")
        if self.max_slices is not None and self.max_slices < 1:
            raise SpecError(f"--max-slices {self.max_slices}", "it must be at least 1")
        if self.whole and (self.offset or self.max_slices is not None or self.place != "all"):
            raise SpecError("--whole takes all of a track", "leave out --offset, --max-slices and --place")
        if self.place not in PLACES:
            raise SpecError(f"--place {self.place}", f"choose from {', '.join(PLACES)}")

    def fitted(self, spec: FeatureSpec) -> Slicing:
        """This slicing; whole tracks for a feature that has one frame per track."""
        return self if spec.frame_rate else Slicing(seconds=None, whole=True)

    def n_frames(self, spec: FeatureSpec) -> int | None:
        """Frames of a slice; None where each slice is a whole track."""
        return spec.frames(self.seconds) if self.seconds is not None else self.frames

    def length_s(self, spec: FeatureSpec) -> float:
        """Seconds of audio that a track must have to hold one slice."""
        if self.seconds is not None:
            return self.seconds
        if self.whole:
            return 0.0
        return ((self.frames or 1) - 1) / spec.frame_rate

    def as_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Slicing:
        """The slicing that `as_dict` made `values` of."""
        return cls(**values)

    def __str__(self) -> str:
        if self.whole:
            return "whole tracks"
        length = f"{self.seconds:g} s" if self.seconds is not None else f"{self.frames} frames"
        parts = [f"slices of {length}", f"{self.overlap:.0%} overlap"]
        if self.offset:
            parts.append(f"from {self.offset:g} s on")
        if self.max_slices is not None or self.place != "all":
            parts.append(f"at most {self._kept} a track ({self.place})")
        return ", ".join(parts)

    @property
    def _kept(self) -> int:
        """Slices a track may keep; one where a place but no number is given."""
        if self.max_slices is not None:
            return self.max_slices
        return 2**31 if self.place == "all" else 1


def cut(slicing: Slicing, spec: FeatureSpec, tracks: pa.Table) -> pa.Table:
    """The slices of all tracks: `SLICE_SCHEMA`.

    A window lies inside its track in seconds, hence in frames, and touches none of its gaps.

    Args:
        slicing: how to cut.
        spec: the feature, for its frame rate.
        tracks: manifest rows of tracks with frames (`status` ok).
    """
    n_frames = tracks["n_frames"].to_numpy()
    duration = tracks["duration_s"].to_numpy()
    per_track, starts = _starts(slicing, spec, tracks["track_id"].to_pylist(), duration, n_frames)
    row = np.repeat(np.arange(len(tracks)), per_track)
    # floor, not round: a slice that is inside the track in seconds is then inside it in frames.
    first = np.floor(starts * spec.frame_rate + 1e-9).astype(np.int64)
    length = slicing.n_frames(spec)
    lengths = n_frames[row] if length is None else np.full(len(row), length)
    keep = _outside_gaps(tracks["gaps"], per_track, first, lengths) & (first + lengths <= n_frames[row])
    row, first, lengths, starts = row[keep], first[keep], lengths[keep], starts[keep]
    return pa.table(
        {
            "track_id": tracks["track_id"].take(row),
            "split": tracks["split"].take(row),
            "start_s": starts,
            "shard": tracks["shard"].take(row),
            "first_frame": tracks["first_frame"].to_numpy()[row] + first,
            "n_frames": lengths.astype(np.int32),
        },
        schema=SLICE_SCHEMA,
    )


def _starts(
    slicing: Slicing, spec: FeatureSpec, ids: list[str], duration: np.ndarray, n_frames: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slices per track `(tracks,)` and the start of each slice in seconds `(slices,)`."""
    if slicing.whole:
        return np.ones(len(ids), np.int64), np.zeros(len(ids))
    length, kept = slicing.length_s(spec), slicing._kept
    step = length * (1 - slicing.overlap)
    if slicing.frames is not None:  # a window of N frames moves by whole frames
        step = max(1, round(slicing.frames * (1 - slicing.overlap))) / spec.frame_rate
        duration = (n_frames - 1) / spec.frame_rate
    room = duration - slicing.offset - length
    possible = np.where(room >= -1e-9, np.floor(np.maximum(room, 0) / step + 1e-9) + 1, 0).astype(np.int64)
    per_track = np.minimum(possible, kept)
    if slicing.place == "random":
        drawn = [_random_starts(slicing, i, n, r) for i, n, r in zip(ids, per_track, room, strict=True) if n]
        return per_track, np.concatenate([*drawn, np.empty(0)])
    ordinal = np.arange(per_track.sum()) - np.repeat(np.cumsum(per_track) - per_track, per_track)
    starts = slicing.offset + ordinal * step
    if slicing.place == "centre":
        slack = room - (per_track - 1) * step
        starts = starts + np.repeat(np.maximum(slack, 0) / 2, per_track)
    return per_track, starts


def _random_starts(slicing: Slicing, track_id: str, count: int, room: float) -> np.ndarray:
    """Sorted random moments; they depend on seed and track alone, so other tracks may come and go."""
    seed = hashlib.sha256(json.dumps([slicing.seed, track_id]).encode()).digest()[:8]
    return slicing.offset + np.sort(np.random.default_rng(int.from_bytes(seed)).uniform(0, max(room, 0), count))


def _outside_gaps(gaps: pa.ChunkedArray, per_track: np.ndarray, first: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Which slices `(slices,)` touch no gap of their track."""
    keep = np.ones(len(first), bool)
    ends = np.cumsum(per_track)
    for row in np.flatnonzero(pc.fill_null(pc.list_value_length(gaps), 0).to_numpy()):
        mine = slice(ends[row] - per_track[row], ends[row])
        for start, stop in gaps[row].as_py():
            keep[mine] &= (first[mine] >= stop) | (first[mine] + length[mine] <= start)
    return keep
