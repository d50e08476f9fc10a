"""Placement: the start of each slice in its track, on a grid, in the centre or at random, clear of gaps."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow as pa

from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.store.slicing import Slicing


def slice_starts(
    slicing: Slicing,
    spec: FeatureSpec,
    ids: pa.ChunkedArray,
    duration: np.ndarray,
    n_frames: np.ndarray,
    gaps: dict[int, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Place slices in tracks.

    Args:
        slicing: slicing parameters.
        spec: feature of the store, for its frame rate.
        ids: track id of each track; the random positions depend on it.
        duration: duration of each track in seconds, float64 `(tracks,)`.
        n_frames: frames of each track, int `(tracks,)`.
        gaps: gaps in frames, int `(gaps, 2)`, ascending, of the tracks that have gaps, by row.

    Returns:
        The row of each slice's track, int64, and the slice's start in seconds, float64; both `(slices,)`, in the order
        of the tracks.
    """
    if slicing.whole:
        rows = np.array([row for row in range(len(ids)) if row not in gaps], np.int64)
        return rows, np.zeros(len(rows))
    length = slicing.length_s(spec)
    step = length * (1 - slicing.overlap)
    if slicing.frames is not None:  # a window of N frames moves by whole frames
        step = max(1, round(slicing.frames * (1 - slicing.overlap))) / spec.frame_rate
        duration = (n_frames - 1) / spec.frame_rate
    room = duration - slicing.offset - length
    possible = np.where(room >= -1e-9, np.floor(np.maximum(room, 0) / step + 1e-9) + 1, 0).astype(np.int64)
    rows_with_gaps = np.array([row for row in gaps if possible[row]], np.int64)
    gapped = [
        _clear_starts(slicing, spec, ids[int(i)].as_py(), room[i], possible[i], step, gaps[i]) for i in rows_with_gaps
    ]
    possible[list(gaps)] = 0
    per_track = np.minimum(possible, slicing.limit)
    rows = np.repeat(np.arange(len(ids)), per_track)
    if slicing.place == "random":
        tracks = zip(ids.to_pylist(), per_track, room, strict=True)
        drawn = [_random_starts(slicing, id, n, np.array([[0, seconds]])) for id, n, seconds in tracks if n]
        starts = np.concatenate([*drawn, np.empty(0)])
    else:
        ordinal = np.arange(len(rows)) - np.repeat(np.cumsum(per_track) - per_track, per_track)
        starts = slicing.offset + ordinal * step
        if slicing.place == "centre":
            slack = room - (per_track - 1) * step
            starts = starts + np.repeat(np.maximum(slack, 0) / 2, per_track)
    rows = np.concatenate([rows, np.repeat(rows_with_gaps, [len(track) for track in gapped])])
    order = np.argsort(rows, kind="stable")
    return rows[order], np.concatenate([starts, *gapped])[order]


def _clear_starts(
    slicing: Slicing, spec: FeatureSpec, track_id: str, room: float, possible: int, step: float, gaps: np.ndarray
) -> np.ndarray:
    """Place slices in a track with gaps, so that none touches a gap.

    `all` and `start` use the grid of starts of a track without gaps, and take the slices on it that are clear. `centre`
    and `random` also find clear slices off the grid: at least as many as on it, up to the slicing's limit.

    Args:
        slicing: slicing parameters, not `whole`.
        spec: feature of the store, for its frame rate.
        track_id: id of the track; the random positions depend on it and on the seed.
        room: seconds after the offset in which a slice may start.
        possible: slices on the grid, 1 or more.
        step: seconds between two starts on the grid.
        gaps: gaps in frames, int `(gaps, 2)`, ascending.

    Returns:
        Starts in seconds, float64 `(slices,)`, ascending.
    """
    if slicing.place in ("all", "start"):
        frames = slicing.n_frames(spec) or 1
        starts = slicing.offset + np.arange(possible) * step
        first = np.floor(starts * spec.frame_rate + 1e-9)[:, None]
        clear = np.all((first >= gaps[:, 1]) | (first + frames <= gaps[:, 0]), axis=1)
        return starts[clear][: slicing.limit]
    first, last_frame, last, capacity = _clear_ranges(slicing, spec, room, possible, step, gaps)
    if slicing.place == "random":
        ranges = np.stack([first, last], axis=1)
        return _random_starts(slicing, track_id, min(int(capacity.sum()), slicing.limit), ranges)
    # A slice starts at the beginning of its last possible frame, unless the capacity needs a later start: a feature
    # with a finer frame grid may see the gap begin within that frame.
    last = np.maximum(np.minimum(last_frame, last), first + (capacity - 1) * step)
    return slicing.offset + _central_starts(first, last, capacity, slicing.limit, step, max(room, 0) / 2)


def _clear_ranges(
    slicing: Slicing, spec: FeatureSpec, room: float, possible: int, step: float, gaps: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the ranges of time in which a slice may start and touch no gap. See `_clear_starts` for the arguments.

    Returns:
        Four arrays `(ranges,)`, ascending, times in seconds after the offset: the first possible start; the time at
        which the last possible frame begins, infinite if no gap ends the range; the last possible start; and the number
        of slices, `step` apart, that fit (int64).
    """
    frames, rate = slicing.n_frames(spec) or 1, spec.frame_rate
    first = np.maximum(np.append(0.0, np.maximum.accumulate(gaps[:, 1]) / rate - slicing.offset), 0)
    last_frame = np.append((gaps[:, 0] - frames) / rate - slicing.offset, np.inf)
    # A slice may start anywhere in its last possible frame, until just before the next frame.
    last = np.append((gaps[:, 0] - frames + 1 - 1e-6) / rate - slicing.offset, np.inf)
    last = np.minimum(last, max(room, 0))
    # The capacity must not depend on rounding, which may put the last start of the grid just behind the room. 5e-9
    # frames are more than `_cut` adds when it rounds, and less than decimal seconds and overlaps can differ by.
    tolerance = 5e-9 / rate
    end = np.minimum(last_frame + 1 / rate - tolerance, max(room, (possible - 1) * step) + tolerance)
    capacity = np.floor((end - first) / step).astype(np.int64) + 1
    holds = end >= first
    return first[holds], last_frame[holds], last[holds], capacity[holds]


def _central_starts(
    first: np.ndarray, last: np.ndarray, capacity: np.ndarray, limit: int, step: float, middle: float
) -> np.ndarray:
    """Choose the most central starts in ranges of time: as many as fit, up to a limit, `step` or more apart.

    The most central starts minimise the sum of squared distances to `middle`; without gaps, this is the row of slices
    around it. Of two ranges that are equally near, the earlier one is used.

    The best n starts in one range are a row, `step` apart, as near to the middle as the range allows. The cost that the
    n-th start of a range adds grows with n, and the ranges are independent, because slices on two sides of a gap do not
    overlap. So the starts with the least added cost over all ranges are the best choice.

    Args:
        first: first possible start of each range, float64 `(ranges,)`, ascending.
        last: last possible start of each range.
        capacity: number of starts that each range holds, 1 or more.
        limit: maximum number of starts over all ranges.
        step: minimum distance between two starts of a range.
        middle: time that the starts shall be near to.

    Returns:
        float64 `(slices,)`, ascending.
    """
    count = np.minimum(capacity, limit)
    range_of = np.repeat(np.arange(len(count)), count)
    before = np.cumsum(count) - count
    n = np.arange(len(range_of)) - before[range_of] + 1
    half = (n - 1) * step / 2
    centre = np.maximum(np.minimum(middle, last[range_of] - half), first[range_of] + half)
    cost = n * ((centre - middle) / step) ** 2 + n * (n * n - 1) / 12  # in squared steps
    added_cost = cost - np.where(n > 1, np.roll(cost, 1), 0)
    best = np.argsort(added_cost.round(9), kind="stable")[:limit]
    number = np.bincount(range_of[best], minlength=len(count))
    rows = np.flatnonzero(number)
    row = np.repeat(rows, number[rows])
    ordinal = np.arange(len(row)) - (np.cumsum(number) - number)[row]
    row_start = (centre - half)[before[row] + number[row] - 1]
    return row_start + ordinal * step


def _random_starts(slicing: Slicing, track_id: str, count: int, ranges: np.ndarray) -> np.ndarray:
    """Draw sorted random starts, uniform over ranges of seconds after the offset, `(ranges, 2)`.

    They depend on the seed and the track alone, so adding or removing other tracks does not move them.
    """
    if not count:
        return np.empty(0)
    widths = np.maximum(ranges[:, 1] - ranges[:, 0], 0)
    edges = np.cumsum(widths)
    seed = hashlib.sha256(json.dumps([slicing.seed, track_id]).encode()).digest()[:8]
    drawn = np.sort(np.random.default_rng(int.from_bytes(seed)).uniform(0, edges[-1], count))
    at = np.minimum(np.searchsorted(edges, drawn, side="right"), len(edges) - 1)
    return slicing.offset + ranges[at, 0] + (drawn - (edges - widths)[at])
