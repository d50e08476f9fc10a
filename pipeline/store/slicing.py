"""Slices: windows over a track's frames. Rows of an index, not copies, so re-slicing a store costs no decoding."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.errors import SpecError
from mgc.pipeline.features import FeatureSpec

PLACES = ("all", "start", "centre", "random")

#: One row per slice, in the order of the manifest's tracks. `start_s` is the moment in the track, `first_frame` the row
#: of its shard where it begins. `split` is its track's, so that a reader can leave out what it must not see. `variant`
#: is null for slices of the track itself; only training tracks have others.
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
    """How tracks are cut.

    Attributes:
        seconds: length of a slice, which then has `1 + floor(seconds * sr / hop_length)` frames.
        frames: length in frames instead.
        whole: one slice per track, all of its frames, instead.
        overlap: share of a slice that the next one repeats, in [0, 1).
        offset: seconds at the start of each track that are left out.
        max_slices: slices per track at most.
        place: which of the possible slices are kept: all, the first ones, the most central ones, or random positions.
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
    """The slices of all tracks: `SLICE_SCHEMA`. Those of the variants of training tracks come last.

    A track that has left the training split may still have variants in the store: they are not cut. A window lies
    inside its track in seconds, hence in frames, and touches none of its gaps. Which of the possible ones are kept is
    chosen among those.

    Args:
        slicing: how to cut.
        spec: the feature, for its frame rate.
        tracks: manifest rows of tracks with frames (`status` ok).
    """
    own = _cut(slicing, spec, tracks)
    variants = _variants(tracks.filter(pc.is_in(tracks["track_id"], value_set=own["track_id"].combine_chunks())))
    return pa.concat_tables([own, _cut(slicing, spec, variants)]) if len(variants) else own


def _variants(tracks: pa.Table) -> pa.Table:
    """The variants of the training tracks among manifest rows, as rows of what `_cut` needs, and `variant`."""
    tracks = tracks.filter(pc.and_(pc.equal(tracks["split"], "training"), pc.is_valid(tracks["variants"])))
    variants = tracks["variants"].combine_chunks()
    made, row = pc.list_flatten(variants), pc.list_parent_indices(variants)
    columns = {name: tracks[name].take(row) for name in ("track_id", "split", "shard")}
    for field in ("variant", "duration_s", "gaps", "first_frame", "n_frames"):
        columns[field] = pc.struct_field(made, field)
    return pa.table(columns).filter(pc.is_null(pc.struct_field(made, "reason")))


def _cut(slicing: Slicing, spec: FeatureSpec, tracks: pa.Table) -> pa.Table:
    """The slices of some tracks, or of some variants."""
    n_frames = tracks["n_frames"].to_numpy()
    duration = tracks["duration_s"].to_numpy()
    row, starts = _starts(slicing, spec, tracks["track_id"], duration, n_frames, _gaps(tracks))
    # floor, not round: a slice that is inside the track in seconds is then inside it in frames.
    first = np.floor(starts * spec.frame_rate + 1e-9).astype(np.int64)
    length = slicing.n_frames(spec)
    lengths = n_frames[row] if length is None else np.full(len(row), length)
    keep = first + lengths <= n_frames[row]
    row, first, lengths, starts = row[keep], first[keep], lengths[keep], starts[keep]
    return pa.table(
        {
            "track_id": tracks["track_id"].take(row),
            "split": tracks["split"].take(row),
            "start_s": starts,
            "shard": tracks["shard"].take(row),
            "first_frame": tracks["first_frame"].to_numpy()[row] + first,
            "n_frames": lengths.astype(np.int32),
            "variant": tracks["variant"].take(row) if "variant" in tracks.schema.names else pa.nulls(len(row)),
        },
        schema=SLICE_SCHEMA,
    )


def cut_alike(
    slices: pa.Table, seconds: float | None, spec: FeatureSpec, tracks: pa.Table
) -> tuple[pa.Table, np.ndarray]:
    """The slices of one store, cut from another store of the same tracks: the same moments, in its frames.

    Args:
        slices: rows of `SLICE_SCHEMA` of the first store, none of a variant.
        seconds: their length; None where they are whole tracks.
        spec: the feature of the other store.
        tracks: its manifest rows of tracks with frames.

    Returns:
        Rows of `SLICE_SCHEMA`, and which of the first store's rows they belong to, ascending, int64: a slice is left
        out where the other store lacks the track, or where it does not lie inside it or touches one of its gaps there.
    """
    row = pc.index_in(slices["track_id"], value_set=tracks["track_id"].combine_chunks())
    kept = np.flatnonzero(pc.is_valid(row).to_numpy())
    row, slices = row.drop_null().to_numpy(), slices.take(kept)
    first = np.floor(slices["start_s"].to_numpy() * spec.frame_rate + 1e-9).astype(np.int64)
    n_frames = tracks["n_frames"].to_numpy()[row]
    lengths = n_frames if seconds is None else np.full(len(row), spec.frames(seconds))
    inside = first + lengths <= n_frames
    for damaged, gaps in _gaps(tracks).items():
        mine = np.flatnonzero(row == damaged)[:, None]
        inside[mine[:, 0]] &= np.all((first[mine] >= gaps[:, 1]) | (first[mine] + lengths[mine] <= gaps[:, 0]), axis=1)
    table = pa.table(
        {
            "track_id": slices["track_id"],
            "split": slices["split"],
            "start_s": slices["start_s"],
            "shard": tracks["shard"].take(row),
            "first_frame": tracks["first_frame"].to_numpy()[row] + first,
            "n_frames": lengths.astype(np.int32),
            "variant": pa.nulls(len(row)),
        },
        schema=SLICE_SCHEMA,
    )
    return table.filter(inside), kept[inside]


def widened(joined: Sequence[pa.Table], manifests: Sequence[pa.Table]) -> list[pa.Table]:
    """Slices that take in all of their tracks, for windows to be drawn from.

    Those of tracks with gaps stay as they are: they lie between them.

    Args:
        joined: rows of `SLICE_SCHEMA` in one store or several, row i the same moment of the same track.
        manifests: of the stores.

    Returns:
        Tables of as many rows: only `start_s`, `first_frame` and `n_frames` are others.
    """
    spans = [_spans(slices, tracks) for slices, tracks in zip(joined, manifests, strict=True)]
    whole = np.logical_and.reduce([whole for _, _, whole in spans])
    made = []
    for slices, (first, n_frames, _) in zip(joined, spans, strict=True):
        columns = {"start_s": np.zeros(len(slices)), "first_frame": first, "n_frames": n_frames.astype(np.int32)}
        for name, values in columns.items():
            at = SLICE_SCHEMA.get_field_index(name)
            column = pa.array(np.where(whole, values, slices[name].to_numpy()), SLICE_SCHEMA.field(at).type)
            slices = slices.set_column(at, SLICE_SCHEMA.field(at), column)
        made.append(slices)
    return made


def _spans(slices: pa.Table, tracks: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the track or variant of each slice: first frame in its shard, frames, and whether it is without gaps."""
    tracks = tracks.filter(pc.greater(tracks["n_frames"], 0))
    owners = (tracks.append_column("variant", pa.nulls(len(tracks), pa.string())), _variants(tracks))
    keys = [_keys(table) for table in (slices, *owners)]
    row = pc.index_in(keys[0], value_set=pa.chunked_array(keys[1:]).combine_chunks()).to_numpy()
    first, n_frames, gaps = (
        np.concatenate([column.to_numpy() for column in columns])[row]
        for columns in (
            [table["first_frame"] for table in owners],
            [table["n_frames"] for table in owners],
            [pc.fill_null(pc.list_value_length(table["gaps"]), 0) for table in owners],
        )
    )
    return first, n_frames, gaps == 0


def _keys(table: pa.Table) -> pa.Array:
    """Which track or variant a row belongs to, as one text."""
    variant = pc.fill_null(table["variant"].cast(pa.string()), "")
    return pc.binary_join_element_wise(variant, table["track_id"], "\n").combine_chunks()


def _gaps(tracks: pa.Table) -> dict[int, np.ndarray]:
    """Gaps in frames `(gaps, 2)`, ascending, of the tracks that have some, by row."""
    counts = pc.fill_null(pc.list_value_length(tracks["gaps"]), 0).to_numpy()
    return {int(row): np.array(sorted(tracks["gaps"][row].as_py())) for row in np.flatnonzero(counts)}


def _starts(
    slicing: Slicing,
    spec: FeatureSpec,
    ids: pa.ChunkedArray,
    duration: np.ndarray,
    n_frames: np.ndarray,
    gaps: dict[int, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The track of each slice, as a row, and its start in seconds, `(slices,)` each, in the order of the tracks."""
    if slicing.whole:
        rows = np.array([row for row in range(len(ids)) if row not in gaps], np.int64)
        return rows, np.zeros(len(rows))
    length, kept = slicing.length_s(spec), slicing._kept
    step = length * (1 - slicing.overlap)
    if slicing.frames is not None:  # a window of N frames moves by whole frames
        step = max(1, round(slicing.frames * (1 - slicing.overlap))) / spec.frame_rate
        duration = (n_frames - 1) / spec.frame_rate
    room = duration - slicing.offset - length
    possible = np.where(room >= -1e-9, np.floor(np.maximum(room, 0) / step + 1e-9) + 1, 0).astype(np.int64)
    damaged = np.array([row for row in gaps if possible[row]], np.int64)
    between = [_clear_starts(slicing, spec, ids[int(i)].as_py(), room[i], possible[i], step, gaps[i]) for i in damaged]
    possible[list(gaps)] = 0
    per_track = np.minimum(possible, kept)
    rows = np.repeat(np.arange(len(ids)), per_track)
    if slicing.place == "random":
        whole = zip(ids.to_pylist(), per_track, room, strict=True)
        drawn = [_random_starts(slicing, i, n, np.array([[0, r]])) for i, n, r in whole if n]
        starts = np.concatenate([*drawn, np.empty(0)])
    else:
        ordinal = np.arange(len(rows)) - np.repeat(np.cumsum(per_track) - per_track, per_track)
        starts = slicing.offset + ordinal * step
        if slicing.place == "centre":
            slack = room - (per_track - 1) * step
            starts = starts + np.repeat(np.maximum(slack, 0) / 2, per_track)
    rows = np.concatenate([rows, np.repeat(damaged, [len(found) for found in between])])
    order = np.argsort(rows, kind="stable")
    return rows[order], np.concatenate([starts, *between])[order]


def _clear_starts(
    slicing: Slicing, spec: FeatureSpec, track_id: str, room: float, possible: int, step: float, gaps: np.ndarray
) -> np.ndarray:
    """Starts in seconds `(slices,)`, ascending, of the windows of a track with gaps that touch none of them.

    `all` and `start` take the clear windows of the grid on which a track without gaps is cut. `centre` and `random`
    also find those between its points: at least as many, up to `max_slices`.

    Args:
        slicing: how to cut, not `whole`.
        spec: the feature, for its frame rate.
        track_id: what the random positions depend on, beside the seed.
        room: seconds after the offset in which a window may start.
        possible: windows of the grid, 1 or more.
        step: seconds from one window of the grid to the next.
        gaps: in frames `(gaps, 2)`, ascending.
    """
    if slicing.place in ("all", "start"):
        frames = slicing.n_frames(spec) or 1
        starts = slicing.offset + np.arange(possible) * step
        first = np.floor(starts * spec.frame_rate + 1e-9)[:, None]
        clear = np.all((first >= gaps[:, 1]) | (first + frames <= gaps[:, 0]), axis=1)
        return starts[clear][: slicing._kept]
    first, begin, last, most = _clear_ranges(slicing, spec, room, possible, step, gaps)
    if slicing.place == "random":
        ranges = np.stack([first, last], axis=1)
        return _random_starts(slicing, track_id, min(int(most.sum()), slicing._kept), ranges)
    # Within its last frame a window starts no later than the others need: a gap that another feature sees more finely
    # begins where this window's last frame does.
    last = np.maximum(np.minimum(begin, last), first + (most - 1) * step)
    return slicing.offset + _central_starts(first, last, most, slicing._kept, step, max(room, 0) / 2)


def _clear_ranges(
    slicing: Slicing, spec: FeatureSpec, room: float, possible: int, step: float, gaps: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where a window may start and touch no gap; the arguments are those of `_clear_starts`.

    Returns:
        `(ranges,)` each, ascending: the first moments, in seconds after the offset; those at which the last frames
        begin, infinite where no gap ends the range; the last moments; and how many windows, `step` apart, fit, int64.
    """
    frames, rate = slicing.n_frames(spec) or 1, spec.frame_rate
    first = np.maximum(np.append(0.0, np.maximum.accumulate(gaps[:, 1]) / rate - slicing.offset), 0)
    begin = np.append((gaps[:, 0] - frames) / rate - slicing.offset, np.inf)
    # The last frame at which a window may start lasts until just before the next one.
    last = np.append((gaps[:, 0] - frames + 1 - 1e-6) / rate - slicing.offset, np.inf)
    last = np.minimum(last, max(room, 0))
    # What fits must not depend on rounding, which may also put the last window of the grid a hair behind the room.
    # 5e-9 frames are more than `_cut` adds when it rounds, and less than decimal seconds and overlaps can differ by.
    hair = 5e-9 / rate
    end = np.minimum(begin + 1 / rate - hair, max(room, (possible - 1) * step) + hair)
    most = np.floor((end - first) / step).astype(np.int64) + 1
    some = end >= first
    return first[some], begin[some], last[some], most[some]


def _central_starts(
    first: np.ndarray, last: np.ndarray, most: np.ndarray, kept: int, step: float, middle: float
) -> np.ndarray:
    """The most central starts in ranges, `(slices,)`, ascending, `step` apart or more: as many as fit, up to `kept`.

    Most central are those with the least sum of squared distances between starts and `middle`, which without gaps is
    the row of windows around it. Of two ranges that are equally near, the earlier one is used.

    The best n starts in one range are a row, `step` apart, as near to the middle as the range allows. What the n-th of
    a range adds to the sum grows with n, and no range limits another, because windows on two sides of a gap do not
    overlap. So the best choice is that of the least additions over all ranges.

    Args:
        first: first moment of each range, ascending.
        last: last moment of each.
        most: starts that each can hold, 1 or more.
        kept: starts at most, over all ranges.
        step: between two starts of a range, at least.
        middle: the moment to be near to.
    """
    count = np.minimum(most, kept)
    of = np.repeat(np.arange(len(count)), count)
    before = np.cumsum(count) - count
    n = np.arange(len(of)) - before[of] + 1
    half = (n - 1) * step / 2
    centre = np.maximum(np.minimum(middle, last[of] - half), first[of] + half)
    total = n * ((centre - middle) / step) ** 2 + n * (n * n - 1) / 12  # in squared steps
    added = total - np.where(n > 1, np.roll(total, 1), 0)
    taken = np.argsort(added.round(9), kind="stable")[:kept]
    number = np.bincount(of[taken], minlength=len(count))
    rows = np.flatnonzero(number)
    row = np.repeat(rows, number[rows])
    ordinal = np.arange(len(row)) - (np.cumsum(number) - number)[row]
    begin = (centre - half)[before[row] + number[row] - 1]
    return begin + ordinal * step


def _random_starts(slicing: Slicing, track_id: str, count: int, ranges: np.ndarray) -> np.ndarray:
    """Sorted random moments in ranges `(ranges, 2)` of seconds after the offset.

    They depend on seed and track alone, so other tracks may come and go.
    """
    if not count:
        return np.empty(0)
    widths = np.maximum(ranges[:, 1] - ranges[:, 0], 0)
    edges = np.cumsum(widths)
    seed = hashlib.sha256(json.dumps([slicing.seed, track_id]).encode()).digest()[:8]
    drawn = np.sort(np.random.default_rng(int.from_bytes(seed)).uniform(0, edges[-1], count))
    at = np.minimum(np.searchsorted(edges, drawn, side="right"), len(edges) - 1)
    return slicing.offset + ranges[at, 0] + (drawn - (edges - widths)[at])
