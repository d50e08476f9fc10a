"""Slicing parameters, and the schema of the slice index.

A slice is a window over a track's frames: a row of an index, not a copy, so re-slicing a store needs no decoding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mgc.pipeline.errors import SpecError
from mgc.pipeline.features import FeatureSpec

PLACES = ("all", "start", "centre", "random")

#: The slice index: one row per slice, in the order of the manifest's tracks. `start_s` is the slice's start in the
#: track in seconds, `first_frame` its first row in the shard. `split` is repeated from the track, so that a reader can
#: skip splits it must not see. `variant` is null for slices of the track itself; only training tracks have variants.
SLICE_SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("start_s", pa.float64()),
        pa.field("shard", pa.int32()),
        pa.field("first_frame", pa.int64()),
        pa.field("n_frames", pa.int32()),
        pa.field("variant", pa.string()),
    ]
)


@dataclass(frozen=True)
class Slicing:
    """Parameters of cutting tracks into slices. Exactly one of `seconds`, `frames` and `whole` gives the length.

    Attributes:
        seconds: length of a slice in seconds; it has `1 + floor(seconds * sr / hop_length)` frames.
        frames: length of a slice in frames.
        whole: one slice per track, with all of its frames.
        overlap: fraction of a slice that the next slice repeats, in [0, 1).
        offset: seconds to skip at the start of each track.
        max_slices: maximum number of slices per track; None for no limit.
        place: which of the possible slices to take: `all`, the first (`start`), the most central (`centre`), or slices
            at `random` positions.
        seed: seed of the random positions.

    Raises:
        SpecError: a value is out of its range, or the length is not given exactly once.
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
        """Return this slicing, or whole tracks for a feature with one frame per track."""
        return self if spec.frame_rate else Slicing(seconds=None, whole=True)

    def n_frames(self, spec: FeatureSpec) -> int | None:
        """Return the number of frames of a slice; None if each slice is a whole track."""
        return spec.frames(self.seconds) if self.seconds is not None else self.frames

    def length_s(self, spec: FeatureSpec) -> float:
        """Return the shortest duration in seconds of a track that holds one slice."""
        if self.seconds is not None:
            return self.seconds
        if self.whole:
            return 0.0
        return ((self.frames or 1) - 1) / spec.frame_rate

    def as_dict(self) -> dict[str, Any]:
        """Return the parameters as a dict for JSON; `from_dict` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Slicing:
        """Return the slicing that `as_dict` described."""
        return cls(**values)

    def __str__(self) -> str:
        if self.whole:
            return "whole tracks"
        length = f"{self.seconds:g} s" if self.seconds is not None else f"{self.frames} frames"
        return ", ".join([f"slices of {length}", f"{self.overlap:.0%} overlap", *self._restrictions()])

    @property
    def brief(self) -> str:
        """The slicing in a few words, such as `4 s, 50 %` for slices of 4 s with an overlap of 50 %."""
        if self.whole:
            return "whole tracks"
        length = f"{self.seconds:g} s" if self.seconds is not None else f"{self.frames} frames"
        overlap = [f"{self.overlap * 100:g} %"] * (self.overlap > 0)
        return ", ".join([length, *overlap, *self._restrictions()])

    def _restrictions(self) -> list[str]:
        """Describe which part of a track is cut; empty for all of it."""
        parts = [f"from {self.offset:g} s on"] * (self.offset > 0)
        if self.max_slices is not None or self.place != "all":
            parts.append(f"at most {self.limit} a track ({self.place})")
        return parts

    @property
    def limit(self) -> int:
        """Maximum number of slices per track; 1 if a place but no number is given."""
        if self.max_slices is not None:
            return self.max_slices
        return 2**31 if self.place == "all" else 1
