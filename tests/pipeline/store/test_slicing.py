"""Slices: counts and places in closed form, and what holds for every slicing of every track."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import json
import math
import time
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA
from mgc.pipeline.errors import SpecError
from mgc.pipeline.features import FeatureSpec, Mel, Stats, Stft, Waveform
from mgc.pipeline.store.cutting import cut, widened
from mgc.pipeline.store.slicing import PLACES, SLICE_SCHEMA, Slicing

SPECS = [Stft(), Mel(), Mel(hop_length=604), Stft(sr=16000, n_fft=512, hop_length=160)]


def manifest(spec: FeatureSpec, *durations: float, gaps: dict[int, list[list[int]]] | None = None) -> pa.Table:
    """Tracks of so many seconds, one behind the other in shard 3; gaps by number of the track."""
    rows, first = [], 1000
    for i, duration in enumerate(durations):
        frames = spec.frames(duration)
        row = {"track_id": f"t{i}", "path": f"{i}.mp3", "split": ("training", "test")[i % 2], "duration_s": duration}
        row |= {"status": "ok", "shard": 3, "first_frame": first, "n_frames": frames, "gaps": (gaps or {}).get(i)}
        rows.append(row)
        first += frames
    return pa.Table.from_pylist(rows, MANIFEST_SCHEMA)


def starts(slicing: Slicing, spec: FeatureSpec, *durations: float, **kwargs) -> list[float]:
    return cut(slicing, spec, manifest(spec, *durations, **kwargs))["start_s"].to_pylist()


def by_track(slices: pa.Table) -> dict[str, list[dict]]:
    grouped = defaultdict(list)
    for row in slices.to_pylist():
        grouped[row["track_id"]].append(row)
    return grouped


thousandths = st.integers(0, 90_000).map(lambda n: Fraction(n, 1000))


@st.composite
def slicings(draw, lengths=("seconds", "frames"), places=PLACES) -> Slicing:
    """Any slicing in seconds or frames."""
    by_frames = draw(st.sampled_from(lengths)) == "frames"
    return Slicing(
        seconds=None if by_frames else draw(st.integers(50, 30_000)) / 1000,
        frames=draw(st.integers(1, 1500)) if by_frames else None,
        overlap=draw(st.integers(0, 95)) / 100,
        offset=draw(st.integers(0, 8000)) / 1000,
        max_slices=draw(st.none() | st.integers(1, 20)),
        place=draw(st.sampled_from(places)),
        seed=draw(st.integers(0, 9)),
    )


class TestClosedForms:
    def test_four_seconds_with_half_overlap_of_a_clip_of_the_field(self):
        slices = cut(Slicing(seconds=4.0, overlap=0.5), Stft(), manifest(Stft(), 29.976))
        assert slices["start_s"].to_pylist() == [2.0 * k for k in range(13)]
        assert slices["n_frames"].to_pylist() == [345] * 13
        assert slices["first_frame"].to_pylist() == [1000 + 2 * k * 44100 // 512 for k in range(13)]

    @pytest.mark.parametrize(
        ("spec", "seconds", "frames"),
        [(Stft(), 4.0, 345), (Mel(hop_length=604), 3.5, 128), (Mel(), 3.0, 130), (Mel(), 29.12, 1255)],
        ids=str,
    )
    def test_frames_of_a_slice_of_the_studies(self, spec, seconds, frames):
        assert Slicing(seconds=seconds).n_frames(spec) == frames
        assert cut(Slicing(seconds=seconds), spec, manifest(spec, 30.0))["n_frames"][0].as_py() == frames

    def test_ten_slices_of_three_seconds(self):
        slicing = Slicing(seconds=3.0, overlap=0.0, max_slices=10)
        assert starts(slicing, Mel(), 30.0) == [3.0 * k for k in range(10)]
        assert starts(slicing, Mel(), 31.0) == [3.0 * k for k in range(10)]
        assert len(starts(slicing, Mel(), 29.99)) == 9

    def test_the_first_frames(self):
        slices = cut(Slicing(seconds=None, frames=640, max_slices=1), Mel(), manifest(Mel(), 29.98, 10.0))
        assert slices.drop(["variant"]).to_pylist() == [
            {"track_id": "t0", "split": "training", "start_s": 0, "shard": 3, "first_frame": 1000, "n_frames": 640}
        ]

    def test_frames_move_by_whole_frames(self):
        slices = cut(Slicing(seconds=None, frames=7, overlap=0.5), Mel(), manifest(Mel(), 1.0))  # 44 frames
        assert slices["first_frame"].to_pylist() == [1000 + 4 * k for k in range(10)]  # half of 7 is 3.5, rounded to 4

    @pytest.mark.parametrize("frames", [1, 2, 44])
    def test_frames_fill_a_track_to_its_last_frame(self, frames):
        slices = cut(Slicing(seconds=None, frames=frames, overlap=0.0), Mel(), manifest(Mel(), 1.0))
        assert len(slices) == 44 // frames
        assert not len(cut(Slicing(seconds=None, frames=45), Mel(), manifest(Mel(), 1.0)))

    def test_whole_tracks(self):
        slices = cut(Slicing(seconds=None, whole=True), Mel(), manifest(Mel(), 5.0, 0.01, 1000.0))
        assert slices["n_frames"].to_pylist() == [Mel().frames(seconds) for seconds in (5.0, 0.01, 1000.0)]
        assert slices["first_frame"].to_pylist() == [1000, 1216, 1217]
        assert slices["start_s"].to_pylist() == [0, 0, 0]

    @pytest.mark.parametrize("slicing", [Slicing(), Slicing(seconds=None, frames=640, max_slices=2, place="centre")])
    def test_a_track_of_one_frame_is_one_slice(self, slicing):
        fitted = slicing.fitted(Stats())
        assert (fitted.whole, slicing.fitted(Stft())) == (True, slicing)
        slices = cut(fitted, Stats(), manifest(Stats(), 0.1, 30.0, 900.0)).to_pylist()
        assert [(row["track_id"], row["first_frame"], row["n_frames"]) for row in slices] == [
            ("t0", 1000, 1),
            ("t1", 1001, 1),
            ("t2", 1002, 1),
        ]
        assert (fitted.length_s(Stats()), fitted.n_frames(Stats())) == (0, None)

    def test_slices_of_samples_cover_the_moments_of_those_of_spectra(self):
        slicing = Slicing(seconds=None, frames=256)
        of_samples, of_spectra = (cut(slicing, spec, manifest(spec, 29.976)) for spec in (Waveform(), Mel()))
        assert of_samples.equals(of_spectra)
        assert 256 * Waveform().bins == 2**17

    def test_a_slice_as_long_as_its_track_fits(self):
        for seconds in (3.0, 3.5, 4.0, 29.976):
            assert starts(Slicing(seconds=seconds), Mel(), seconds, seconds - 1e-4, seconds + 1e-4) == [0, 0]

    @pytest.mark.parametrize("seconds", ["0.3", "0.7", "2", "3.3", "4"])
    @pytest.mark.parametrize("overlap", ["0", "0.1", "0.5", "0.9"])
    @pytest.mark.parametrize("offset", ["0", "0.1", "1.7"])
    def test_a_track_that_ends_with_a_slice_holds_it(self, seconds, overlap, offset):
        """Though sums of decimal fractions fall short of it in floating point."""
        length, begin = Fraction(seconds), Fraction(offset)
        step = length * (1 - Fraction(overlap))
        durations = [float(begin + length + k * step) for k in range(100)]
        slicing = Slicing(seconds=float(seconds), overlap=float(overlap), offset=float(offset))
        slices = by_track(cut(slicing, Mel(), manifest(Mel(), *durations)))
        assert [len(slices[f"t{k}"]) for k in range(100)] == list(range(1, 101))

    def test_an_offset_is_left_out(self):
        assert starts(Slicing(seconds=4.0, overlap=0.5, offset=3.0), Mel(), 12.0) == [3.0, 5.0, 7.0]
        assert starts(Slicing(seconds=4.0, offset=9.0), Mel(), 12.0) == []

    @pytest.mark.parametrize(
        ("place", "expected"), [("all", [0, 2, 4, 6, 8]), ("start", [0]), ("centre", [4.5]), ("random", [None])]
    )
    def test_places_of_one_slice(self, place, expected):
        found = starts(Slicing(seconds=4.0, overlap=0.5, place=place), Mel(), 13.0)
        assert len(found) == len(expected)
        assert place == "random" or found == pytest.approx(expected)

    def test_places_of_two_slices(self):
        two = {"seconds": 4.0, "overlap": 0.5, "max_slices": 2}
        assert starts(Slicing(**two), Mel(), 13.0) == [0, 2]
        assert starts(Slicing(**two, place="start"), Mel(), 13.0) == [0, 2]
        assert starts(Slicing(**two, place="centre"), Mel(), 13.0) == pytest.approx([3.5, 5.5])
        assert starts(Slicing(**two, place="centre", offset=1.0), Mel(), 13.0) == pytest.approx([4.0, 6.0])

    def test_tracks_keep_their_order_split_and_shard(self):
        slices = cut(Slicing(seconds=4.0), Mel(), manifest(Mel(), 6.0, 3.0, 6.0, 6.0))
        assert slices.schema.equals(SLICE_SCHEMA)
        assert slices["track_id"].to_pylist() == ["t0", "t0", "t2", "t2", "t3", "t3"]
        assert slices["split"].to_pylist() == ["training"] * 4 + ["test"] * 2
        assert set(slices["shard"].to_pylist()) == {3}

    @pytest.mark.parametrize("slicing", [Slicing(), Slicing(seconds=None, whole=True), Slicing(place="random")])
    def test_no_tracks_have_no_slices(self, slicing):
        slices = cut(slicing, Mel(), MANIFEST_SCHEMA.empty_table())
        assert len(slices) == 0
        assert slices.schema.equals(SLICE_SCHEMA)


class TestGaps:
    def test_slices_that_touch_a_gap_are_left_out(self):
        spec = Mel(sr=1024, n_fft=512, hop_length=512)  # two frames a second
        ten = {"seconds": None, "frames": 4, "overlap": 0.0}

        def first(*gaps: list[int]) -> list[int]:
            tracks = manifest(spec, 9.5, 9.5, gaps={1: list(gaps)})  # 20 frames
            slices = by_track(cut(Slicing(**ten), spec, tracks))
            assert [row["first_frame"] for row in slices["t0"]] == [1000, 1004, 1008, 1012, 1016]
            return [row["first_frame"] - 1020 for row in slices["t1"]]

        assert first([4, 8]) == [0, 8, 12, 16]
        assert first([3, 4]) == [4, 8, 12, 16]
        assert first([7, 9]) == [0, 12, 16]
        assert first([0, 1], [19, 20]) == [4, 8, 12]
        assert first([0, 20]) == []

    def test_a_whole_track_with_a_gap_is_no_slice(self):
        tracks = manifest(Mel(), 9.5, 9.5, gaps={0: [[5, 6]]})
        assert cut(Slicing(seconds=None, whole=True), Mel(), tracks)["track_id"].to_pylist() == ["t1"]

    def firsts(self, gaps: list[list[int]], **how) -> list[int]:
        """Frames at which the slices of a track of 20 frames (two a second) begin, each of four."""
        spec = Mel(sr=1024, n_fft=512, hop_length=512)
        slicing = Slicing(**{"seconds": None, "frames": 4, "overlap": 0.0} | how)
        slices = cut(slicing, spec, manifest(spec, 9.5, gaps={0: gaps}))
        return [first - 1000 for first in slices["first_frame"].to_pylist()]

    def test_slices_are_chosen_among_the_healthy_ones(self):
        """A gap at the very beginning took away all slices of a track of which only the first were kept."""
        assert self.firsts([[0, 1]], place="start") == [4]
        assert self.firsts([[0, 1], [9, 10]], max_slices=2) == [4, 12]
        assert self.firsts([[0, 1]], max_slices=2, overlap=0.5) == [2, 4]
        assert self.firsts([[0, 20]], place="start") == []

    @pytest.mark.parametrize(
        ("gap", "kept", "expected"),
        [
            ([0, 1], 1, [8]),
            ([8, 9], 1, [9]),
            ([9, 11], 1, [5]),  # not 11, which is as near
            ([4, 9], 1, [9]),
            ([8, 9], 2, [4, 9]),  # two whole slices centred begin at 6 and at 10
            ([8, 13], 3, [0, 4, 13]),
            ([8, 9], 5, [0, 4, 9, 13]),
        ],
    )
    def test_of_those_the_ones_nearest_to_the_centre(self, gap, kept, expected):
        assert self.firsts([gap], place="centre", max_slices=kept) == expected

    def test_a_slice_between_the_points_of_the_grid_is_found(self):
        """`centre` looked at one grid only, on which no slice of this track is clear, and the track was dropped."""
        gaps = [[3, 7], [11, 15]]
        assert self.firsts(gaps, place="all") == [16]
        assert self.firsts(gaps, place="centre") == [7]
        assert self.firsts(gaps, place="centre", max_slices=2) == [7, 15]
        assert len(self.firsts(gaps, place="random", max_slices=2)) == 2

    def test_the_distance_that_counts_is_that_of_each_slice(self):
        """After the gap two slices fit, at 8 and 14; the second is 7 frames from the middle, the one before it 6."""
        assert self.firsts([[7, 8]], place="centre", frames=6, max_slices=1) == [8]
        assert self.firsts([[7, 8]], place="centre", frames=6, max_slices=2) == [1, 8]

    def test_of_two_that_are_equally_near_the_earlier_is_taken(self):
        """Whatever rounding makes of frames that are no round number of seconds."""
        total = Mel().frames(12.0)
        gaps = {i: [[gap, total - gap]] for i, gap in enumerate(range(20, total // 2))}
        slicing = Slicing(seconds=None, frames=20, place="centre")
        slices = by_track(cut(slicing, Mel(), manifest(Mel(), *[12.0] * len(gaps), gaps=gaps)))
        found = [slices[f"t{i}"][0]["first_frame"] - 1000 - i * total for i in range(len(gaps))]
        assert found == list(range(len(gaps)))

    @pytest.mark.parametrize("place", ["centre", "random"])
    def test_a_slice_that_fits_by_a_rounding_error_is_found(self, place):
        """Of 9.5 s, 5.5 s after the gap are left, in floating point a hair less: the offset was subtracted twice."""
        spec = Mel(sr=1024, n_fft=512, hop_length=512)
        tracks = manifest(spec, 9.5, gaps={0: [[3, 11]]})
        slicing = Slicing(seconds=4.0, overlap=0.0, offset=2.39, max_slices=3, place=place)
        assert cut(slicing, spec, tracks)["first_frame"].to_pylist() == [1011]

    @pytest.mark.parametrize("place", ["centre", "random"])
    @pytest.mark.parametrize("seconds", ["0.3", "0.7", "3.3"])
    @pytest.mark.parametrize("overlap", ["0", "0.1", "0.9"])
    def test_a_gap_before_the_offset_takes_no_slice_away(self, place, seconds, overlap):
        """Not by rounding either: each track ends with a slice."""
        length, begin = Fraction(seconds), Fraction("1.7")
        durations = [float(begin + length * (1 + k * (1 - Fraction(overlap)))) for k in range(100)]
        tracks = manifest(Mel(), *durations, gaps={i: [[5, 9]] for i in range(100)})
        slicing = Slicing(float(seconds), overlap=float(overlap), offset=1.7, max_slices=1000, place=place)
        slices = by_track(cut(slicing, Mel(), tracks))
        assert [len(slices[f"t{k}"]) for k in range(100)] == list(range(1, 101))

    def test_random_places_are_drawn_from_what_is_healthy(self):
        """Evenly: 4 s of a track of 22 s are bad, in its middle; a slice of 2 s may start in 0 to 7 or 13 to 20."""
        spec = Mel(sr=1024, n_fft=512, hop_length=512)
        tracks = manifest(spec, *[22.0] * 4000, gaps={i: [[19, 26]] for i in range(4000)})
        slices = cut(Slicing(seconds=2.0, place="random"), spec, tracks)
        found = np.array(slices["start_s"])
        first = np.floor(found * 2)
        assert len(found) == 4000
        assert np.all((first + 5 <= 19) | (first >= 26))
        shares = np.histogram(found, bins=[0, 3.75, 7.5, 13, 16.5, 20])[0] / len(found)
        np.testing.assert_allclose(shares, np.array([3.75, 3.75, 0, 3.5, 3.5]) / 14.5, atol=0.03)

    def test_random_places_are_no_more_than_fit_between_gaps(self):
        assert len(self.firsts([[5, 6]], place="random", max_slices=9)) == 4  # in 0 to 4 one, in 6 to 19 three
        assert self.firsts([[3, 4], [7, 8], [11, 12], [15, 20]], place="random", max_slices=9) == []

    @given(
        st.sampled_from(PLACES),
        st.integers(1, 8),
        st.sampled_from([0.0, 0.5]),
        st.lists(st.tuples(st.integers(0, 19), st.integers(1, 4)), max_size=4),
    )
    def test_as_many_are_kept_as_there_are(self, place, kept, overlap, spans):
        gaps = [[first, min(20, first + length)] for first, length in spans]
        every = self.firsts(gaps, place="all", overlap=overlap)
        found = self.firsts(gaps, place=place, overlap=overlap, max_slices=kept)
        assert all(first + 4 <= start or first >= stop for first in found for start, stop in gaps)
        if place in ("all", "start"):
            assert found == every[:kept]
        else:
            assert min(kept, len(every)) <= len(found) <= kept


def least_distances(moments: list[int], step: int, kept: int, middle: int) -> list[int]:
    """Least sum of squared distances to the middle of 0, 1, 2 ... moments, `step` apart or more, by trying all."""
    best = [[0]]  # of the first so many moments
    for i, moment in enumerate(moments):
        shorter = best[bisect.bisect_right(moments, moment - step, hi=i)]
        with_it = [total + (moment - middle) ** 2 for total in shorter]
        pairs = itertools.zip_longest(best[-1], [math.inf, *with_it], fillvalue=math.inf)
        best.append([min(pair) for pair in pairs][: kept + 1])
    return best[-1]


class TestCentralOnesAmongGaps:
    """Against all choices there are, of tracks of 20 frames, two a second."""

    SPEC = Mel(sr=1024, n_fft=512, hop_length=512)
    SPANS = st.lists(st.tuples(st.integers(0, 19), st.integers(1, 8)), min_size=1, max_size=5)

    def starts(self, slicing: Slicing, gaps: list[list[int]]) -> np.ndarray:
        """Starts in frames, after what holds of all slices is asserted of these."""
        tracks = manifest(self.SPEC, 9.5, gaps={0: gaps} if gaps else None)
        slices = cut(slicing, self.SPEC, tracks)
        every = cut(dataclasses.replace(slicing, place="all"), self.SPEC, tracks)
        assert min(slicing.limit, len(every)) <= len(slices) <= slicing.limit
        frames = slicing.n_frames(self.SPEC)
        for first in slices["first_frame"].to_numpy() - 1000:
            assert 0 <= first <= 20 - frames
            assert all(first + frames <= start or first >= stop for start, stop in gaps)
        return slices["start_s"].to_numpy() * 2

    @given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 95), SPANS)
    def test_windows_of_frames(self, frames, kept, overlap, spans):
        """They start at frames, or half-way between two if they may start at both."""
        gaps = [[first, first + length] for first, length in spans]
        slicing = Slicing(seconds=None, frames=frames, overlap=overlap / 100, max_slices=kept, place="centre")
        step = max(1, round(frames * (1 - overlap / 100)))
        clear = [all(i + frames <= start or i >= stop for start, stop in gaps) for i in range(21 - frames)]
        halves = [half for half in range(2 * len(clear) - 1) if clear[half // 2] and clear[(half + 1) // 2]]
        found = 2 * self.starts(slicing, gaps)
        best = least_distances(halves, 2 * step, kept, 20 - frames)
        assert np.all(np.diff(found) >= 2 * step - 1e-6)
        assert len(found) == len(best) - 1
        assert np.sum((found - (20 - frames)) ** 2) == pytest.approx(best[-1], abs=1e-6)

    @given(st.integers(20, 400), st.integers(1, 6), st.integers(0, 95), st.integers(0, 300), SPANS)
    def test_windows_of_seconds(self, hundredths, kept, overlap, offset, spans):
        """They may start within a frame, but are moved to its beginning where as many fit then."""
        gaps = [[first, first + length] for first, length in spans]
        slicing = Slicing(hundredths / 100, overlap=overlap / 100, offset=offset / 100, max_slices=kept, place="centre")
        frames, unit = slicing.n_frames(self.SPEC), 50  # a frame has 50 units of 0.01 s
        moments = [
            moment
            for moment in range(offset, 950 - hundredths + 1)
            if all(moment // unit + frames <= start or moment // unit >= stop for start, stop in gaps)
        ]
        middle = (offset + 950 - hundredths) / 2
        step = hundredths * (100 - overlap) / 100
        found = unit * self.starts(slicing, gaps)
        best = least_distances(moments, math.ceil(step), kept, middle)
        assert np.all(np.diff(found) >= step - 1e-6)
        assert len(found) >= len(best) - 1
        if len(found) == len(best) - 1:
            assert np.linalg.norm(found - middle) <= math.sqrt(best[-1]) + unit * math.sqrt(len(found)) + 1e-6

    @given(slicings(places=["centre"]), st.lists(st.tuples(st.integers(0, 600), st.integers(1, 40)), max_size=3))
    def test_gaps_beside_the_slices_of_a_healthy_track_change_nothing(self, slicing, spans):
        healthy = cut(slicing, Mel(), manifest(Mel(), 12.0))
        rows = [(row["first_frame"] - 1000, row["n_frames"]) for row in healthy.to_pylist()]
        gaps = [
            [start, start + length]
            for start, length in spans
            if rows and all(start > first + frames or start + length < first for first, frames in rows)
        ]
        damaged = cut(slicing, Mel(), manifest(Mel(), 12.0, gaps={0: gaps} if gaps else None))
        assert damaged.drop(["start_s"]).equals(healthy.drop(["start_s"]))
        np.testing.assert_allclose(damaged["start_s"], healthy["start_s"], atol=1e-9)


def decimal(value: float) -> Fraction:
    """The number that was meant, such as 0.1, not the nearest binary one."""
    return Fraction(str(value))


class TestProperties:
    @given(slicings(), st.sampled_from(SPECS), st.lists(thousandths, min_size=1, max_size=5))
    def test_every_window_lies_inside_its_track(self, slicing, spec, durations):
        tracks = manifest(spec, *map(float, durations))
        slices = by_track(cut(slicing, spec, tracks))
        length, frames = slicing.length_s(spec), slicing.n_frames(spec)
        for track in tracks.to_pylist():
            rows = slices.get(track["track_id"], [])
            first = [row["first_frame"] - track["first_frame"] for row in rows]
            begins = [row["start_s"] for row in rows]
            assert {row["n_frames"] for row in rows} <= {frames}
            assert {row["split"] for row in rows} <= {track["split"]}
            assert all(f >= 0 and f + frames <= track["n_frames"] for f in first)
            assert all(slicing.offset <= t and t + length <= track["duration_s"] + 1e-6 for t in begins)
            assert begins == sorted(begins)
            assert first == [math.floor(t * spec.sr / spec.hop_length + 1e-6) for t in begins]
            assert len(rows) <= slicing.limit

    @given(slicings(lengths=["seconds"]), st.sampled_from(SPECS), thousandths)
    def test_slices_are_as_many_as_exact_arithmetic_says(self, slicing, spec, duration):
        length = decimal(slicing.seconds)
        step = length * (1 - decimal(slicing.overlap))
        room = duration - decimal(slicing.offset) - length
        possible = int(room // step) + 1 if room >= 0 else 0
        kept = slicing.max_slices or (possible if slicing.place == "all" else 1)
        found = starts(slicing, spec, float(duration))
        assert len(found) == min(possible, kept)
        if slicing.place in ("all", "start"):
            assert found == pytest.approx([float(decimal(slicing.offset) + k * step) for k in range(len(found))])
        elif slicing.place == "centre" and found:
            before, behind = found[0] - slicing.offset, float(duration) - found[-1] - slicing.seconds
            assert before == pytest.approx(behind, abs=1e-6)
            assert np.diff(found) == pytest.approx(float(step))

    @given(slicings(lengths=["frames"], places=["all", "start"]), st.sampled_from(SPECS), thousandths)
    def test_windows_of_frames_are_as_many_as_fit(self, slicing, spec, duration):
        slicing = dataclasses.replace(slicing, offset=0.0)
        step = max(1, round(slicing.frames * (1 - slicing.overlap)))
        ends = range(slicing.frames, spec.frames(float(duration)) + 1, step)
        kept = slicing.max_slices or (len(ends) if slicing.place == "all" else 1)
        slices = cut(slicing, spec, manifest(spec, float(duration)))
        assert slices["first_frame"].to_pylist() == [1000 + end - slicing.frames for end in ends[:kept]]

    @given(slicings(places=["all"]), st.lists(st.tuples(st.integers(0, 600), st.integers(1, 40)), max_size=3))
    def test_gaps_take_away_the_slices_they_touch_and_no_others(self, slicing, spans):
        slicing = dataclasses.replace(slicing, max_slices=None)
        gaps = [[first, first + length] for first, length in spans]
        healthy = cut(slicing, Mel(), manifest(Mel(), 12.0)).to_pylist()
        damaged = cut(slicing, Mel(), manifest(Mel(), 12.0, gaps={0: gaps} if gaps else None)).to_pylist()

        def touches(row: dict) -> bool:
            first = row["first_frame"] - 1000
            return any(first < stop and start < first + row["n_frames"] for start, stop in gaps)

        assert damaged == [row for row in healthy if not touches(row)]


class TestRandomPlaces:
    SLICING = Slicing(seconds=2.0, max_slices=4, place="random", seed=7)

    def test_they_depend_on_the_track_alone(self):
        tracks = manifest(Mel(), *(10.0 + i for i in range(8)))
        every = by_track(cut(self.SLICING, Mel(), tracks))
        for chosen in ([5], [1, 6], [0, 2, 3, 7]):
            some = by_track(cut(self.SLICING, Mel(), tracks.take(chosen)))
            assert some == {f"t{i}": every[f"t{i}"] for i in chosen}

    def test_another_seed_gives_other_places(self):
        other = Slicing(seconds=2.0, max_slices=4, place="random", seed=8)
        assert starts(self.SLICING, Mel(), 20.0) != starts(other, Mel(), 20.0)
        assert starts(self.SLICING, Mel(), 20.0) == starts(self.SLICING, Mel(), 20.0)

    def test_they_spread_over_the_whole_track(self):
        found = np.array(starts(Slicing(seconds=2.0, place="random"), Mel(), *[22.0] * 4000))
        assert np.all((found >= 0) & (found <= 20))
        shares = np.histogram(found, bins=4, range=(0, 20))[0] / len(found)
        np.testing.assert_allclose(shares, 0.25, atol=0.03)  # four standard deviations

    def test_equal_tracks_are_cut_at_different_places(self):
        assert len(set(starts(Slicing(seconds=2.0, place="random"), Mel(), *[22.0] * 50))) == 50


class TestParameters:
    @pytest.mark.parametrize(
        ("values", "problem", "remedy"),
        [
            ({"seconds": 0.0}, "--slice 0", "positive"),
            ({"seconds": -4.0}, "--slice -4", "positive"),
            ({"seconds": math.inf}, "--slice inf", "positive"),
            ({"seconds": math.nan}, "--slice nan", "positive"),
            ({"seconds": None, "frames": 0}, "--frames 0", "at least 1"),
            ({"overlap": 1.0}, "--overlap 1", "[0, 1)"),
            ({"overlap": -0.1}, "--overlap -0.1", "[0, 1)"),
            ({"overlap": math.nan}, "--overlap nan", "[0, 1)"),
            ({"overlap": 50.0}, "--overlap 50", "[0, 1)"),
            ({"offset": -1.0}, "--offset -1", "0 or more"),
            ({"offset": math.inf}, "--offset inf", "0 or more"),
            ({"max_slices": 0}, "--max-slices 0", "at least 1"),
            ({"place": "middle"}, "--place middle", "all, start, centre, random"),
            ({"frames": 10}, "one length", "--frames"),
            ({"whole": True}, "one length", "--whole"),
            ({"seconds": None}, "one length", "--slice"),
        ],
    )
    def test_errors_name_the_option_and_what_is_allowed(self, values, problem, remedy):
        with pytest.raises(SpecError) as caught:
            Slicing(**values)
        assert problem in caught.value.problem
        assert remedy in caught.value.remedy

    @given(slicings())
    def test_a_slicing_survives_json(self, slicing):
        assert Slicing.from_dict(json.loads(json.dumps(slicing.as_dict()))) == slicing

    @pytest.mark.parametrize(
        ("slicing", "text"),
        [
            (Slicing(), "slices of 4 s, 50% overlap"),
            (Slicing(seconds=None, frames=640, overlap=0.0), "slices of 640 frames, 0% overlap"),
            (Slicing(seconds=None, whole=True), "whole tracks"),
            (Slicing(offset=1.5, max_slices=3), "slices of 4 s, 50% overlap, from 1.5 s on, at most 3 a track (all)"),
            (Slicing(place="centre"), "slices of 4 s, 50% overlap, at most 1 a track (centre)"),
        ],
        ids=str,
    )
    def test_a_slicing_says_what_it_is(self, slicing, text):
        assert str(slicing) == text

    def test_a_million_slices_are_cut_in_seconds(self):
        """Re-slicing a dataset of the field takes about a second; nothing here may loop over slices."""
        tracks = manifest(Mel(), *itertools.repeat(29.98, 8000))
        start = time.process_time()
        slices = cut(Slicing(seconds=1.0, overlap=0.75), Mel(), tracks)
        assert len(slices) == 8000 * 116
        assert time.process_time() - start < 10


@pytest.mark.parametrize("other", [{"offset": 1.0}, {"max_slices": 2}, {"place": "centre"}])
def test_whole_tracks_take_no_part_of_a_track(other: dict):
    with pytest.raises(SpecError, match="--whole"):
        Slicing(seconds=None, whole=True, **other)


class TestWidened:
    def test_slices_take_in_their_tracks_unless_these_have_gaps(self):
        spec, seconds = Mel(), (9.5, 6.2, 8.0)
        tracks = manifest(spec, *seconds, gaps={1: [[200, 210]]})
        slices = cut(Slicing(seconds=2.0), spec, tracks)
        (wide,) = widened([slices], [tracks])
        assert wide.schema == SLICE_SCHEMA
        assert wide["track_id"] == slices["track_id"]
        of = {row["track_id"]: row for row in tracks.to_pylist()}
        for before, after in zip(slices.to_pylist(), wide.to_pylist(), strict=True):
            track = of[before["track_id"]]
            if track["gaps"]:
                assert after == before
            else:
                whole = {"start_s": 0.0, "first_frame": track["first_frame"], "n_frames": track["n_frames"]}
                assert after == before | whole
