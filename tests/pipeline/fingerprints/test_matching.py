"""Pairs of tracks that share a recording, found among made-up sub-fingerprints."""

from __future__ import annotations

import numpy as np
import properties
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgc.pipeline.fingerprints import matching
from mgc.pipeline.fingerprints.codes import Codes

BITS, RATE = 29, 43.0


def join(tracks: dict[str, np.ndarray]) -> Codes:
    first = np.cumsum([0, *map(len, tracks.values())])
    return Codes(list(tracks), first, np.concatenate(list(tracks.values())).astype(np.uint32), BITS, RATE)


def recording(seed: int, length: int = 600) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**BITS, length, dtype=np.uint32)


def damage(values: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Flip each bit with this probability."""
    flips = np.random.default_rng(seed).random((len(values), BITS)) < share
    return values ^ (flips @ (1 << np.arange(BITS, dtype=np.uint32)))


@pytest.mark.parametrize(
    ("share", "passages", "kind"), [(0.0, 0.0, "near-duplicate"), (0.15, 0.0, "near-duplicate"), (0.1, 0.5, "version")]
)
@pytest.mark.parametrize("offset", [-250, -1, 0, 37, 250])
def test_a_copy_is_found_where_it_starts(share: float, passages: float, kind: str, offset: int):
    """Bits differ by this share, and wholly in this share of the passages."""
    whole = recording(1, 1200)
    copy = damage(whole, share).reshape(-1, 50)
    copy[::2] = copy[::2] if not passages else recording(2, 600).reshape(-1, 50)
    a, b = whole[300:900], copy.reshape(-1)[300 + offset :][:600]
    others = {f"other{i}": recording(10 + i) for i in range(20)}
    (pair,) = matching.find_pairs(join({"a": a, **others, "b": b}))
    assert (pair.a, pair.b, pair.kind) == ("a", "b", kind)
    assert pair.offset_s == pytest.approx(offset / RATE)
    assert pair.overlap_s == pytest.approx((600 - abs(offset)) / RATE)
    assert pair.error == pytest.approx(share * (1 - passages) + 0.5 * passages, abs=0.05)


def test_short_overlaps_and_unrelated_tracks_are_no_pairs():
    whole = recording(1, 1200)
    least = int(matching.LEAST_OVERLAP_S * RATE)
    tracks = {"a": whole[:600], "b": whole[600 - least + 5 :], **{f"other{i}": recording(i + 2) for i in range(30)}}
    assert matching.find_pairs(join(tracks)) == []


def test_silence_and_steady_tones_are_no_recordings():
    silence = {f"silent{i}": np.zeros(600, np.uint32) for i in range(50)}
    assert matching.find_pairs(join(silence)) == []


@properties.examples(30)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(230, 500), st.floats(0, 0.04)), max_size=7),
    st.integers(50, 3000),
)
def test_all_pairs_are_found_however_the_values_are_grouped(cuts: list[tuple[int, int, int, float]], group: int):
    """The pairs are those of a comparison of all tracks at all offsets."""
    tracks = {
        f"{i}": damage(recording(source, 700), share, i)[start : start + length]
        for i, (source, start, length, share) in enumerate(cuts)
    } | {"unrelated": recording(99)}
    codes = join(tracks)
    expected = set()
    for i, (source, start, length, _) in enumerate(cuts):
        for j, (other, other_start, other_length, _) in enumerate(cuts[:i]):
            stop = min(start + length, other_start + other_length, 700)
            if source == other and stop - max(start, other_start) >= matching.LEAST_OVERLAP_S * RATE:
                expected.add((str(j), str(i)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "GROUP", group)
        patch.setattr(matching, "HINTS", group)
        assert {(pair.a, pair.b) for pair in matching.find_pairs(codes)} == expected
