"""Sampling: what is balanced, windows from whole tracks, and that both are functions of seed and epoch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import kstest
from stores import TINY, frames_of, make_store

from mgc.models.data import stream
from mgc.models.data.parts import SplitData, open_part
from mgc.models.data.sampling import sample_balanced
from mgc.models.runs.selection import select_tracks
from mgc.pipeline.features.variants import parse_variants
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

FRAMES = 60


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Folk tracks of 9 seconds, others of 4: 8 slices, or 3."""
    return make_store(tmp_path_factory.mktemp("stores") / "mel", seconds=(9.0, 4.0, 4.0))


def open_training(store: Store, *, seed: int = 5, batch_size: int = 10, **how: Any) -> SplitData:
    selection = select_tracks(store)
    return open_part(
        selection, [store], store.slicing, "training", frames=[FRAMES], batch_size=batch_size,
        device=torch.device("cpu"), seed=seed, **how,
    )  # fmt: skip


def test_every_stratum_is_drawn_as_often_and_so_is_every_slice_of_one() -> None:
    rng = np.random.default_rng(0)
    strata = rng.choice(5, 500, p=[0.6, 0.2, 0.1, 0.08, 0.02])
    drawn = np.zeros(500)
    for epoch in range(300):
        rows = sample_balanced(strata, np.random.default_rng([1, epoch]))
        assert len(rows) == 500
        assert set(np.bincount(strata[rows], minlength=5)) <= {99, 100, 101}
        counts = np.bincount(rows, minlength=500)
        assert all(np.ptp(counts[strata == stratum]) <= 1 for stratum in range(5))
        drawn += counts
    expected = 300 * 100 / np.bincount(strata)[strata]
    # Each epoch a slice comes floor or ceil of its share: a variance of a quarter at most.
    assert np.abs(drawn - expected).max() < 5 * np.sqrt(300 / 4)


@pytest.mark.parametrize("balance", ["class", "track"])
def test_an_epoch_is_balanced(store: Store, balance: str) -> None:
    part = open_training(store, balance=balance)
    strata = part.stream.labels if balance == "class" else part.tracks
    assert np.ptp(np.bincount(strata)) > 0
    rows = np.concatenate([batch.rows for batch in part.stream.batches(2)])
    assert len(rows) == len(strata)
    assert np.ptp(np.bincount(strata[rows])) <= 1


def test_balanced_batches_depend_on_seed_and_epoch_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "GROUP_BYTES", 25_000)
    ours, streamed = open_training(store, balance="track"), open_training(store, balance="track")
    streamed.streams[0].residency = "stream"
    whole = list(ours.stream.batches(3))
    for start in (0, 4):
        for one, other in zip(whole[start:], streamed.stream.batches(3, start), strict=True):
            assert one.rows.tolist() == other.rows.tolist()
            assert one.draws.tolist() == other.draws.tolist()
            assert torch.equal(one.frames, other.frames)
    other = open_training(store, balance="track", seed=6)
    assert [batch.rows.tolist() for batch in other.stream.batches(3)] != [batch.rows.tolist() for batch in whole]


def test_a_slice_that_comes_twice_is_another_draw_with_another_window(store: Store) -> None:
    part = open_training(store, balance="track")
    order = part.streams[0].order(0)
    assert sorted(order.draws) == list(range(len(order.rows)))
    twice = [row for row, count in Counter(order.rows.tolist()).items() if count > 1]
    assert twice
    moved = [len(set(order.crops[order.draws[order.rows == row]])) > 1 for row in twice]
    assert np.mean(moved) > 0.8  # of 28 places each


def test_windows_come_from_anywhere_in_their_track(store: Store) -> None:
    part = open_training(store, crop=True)
    tracks = {row["track_id"]: row for row in store.tracks.to_pylist()}
    ids = part.slices["track_id"].to_pylist()
    frames = {track: frames_of(store, track) for track in set(ids)}
    assert Counter(ids) == {track: 8 if len(frames[track]) > 300 else 3 for track in frames}
    places = []
    for epoch in range(20):
        order = part.streams[0].order(epoch)
        for row, crop in zip(order.rows, order.crops[order.draws], strict=True):
            spare = tracks[ids[row]]["n_frames"] - FRAMES
            assert 0 <= crop <= spare
            places.append((crop + 0.5) / (spare + 1))
    assert kstest(places, "uniform").pvalue > 0.01
    crops = part.streams[0].order(1).crops
    for batch in part.stream.batches(1):
        for row, window in zip(batch.rows, batch.frames.numpy(), strict=True):
            np.testing.assert_array_equal(window, frames[ids[row]][crops[row] : crops[row] + FRAMES])


def test_windows_of_a_seed_are_the_same_again(store: Store) -> None:
    ours, again, other = (open_training(store, crop=True, seed=seed).streams[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(ours.order(4).crops, again.order(4).crops)
    assert (ours.order(4).crops != other.order(4).crops).any()
    assert (ours.order(4).crops != ours.order(5).crops).any()


def test_a_variant_is_cropped_within_itself(tmp_path: Path) -> None:
    store = make_store(tmp_path / "mel", TINY, Slicing(seconds=2.0), variants=parse_variants("noise:20"))
    part = open_training(store, crop=True, variants=True)
    spans: dict[tuple[str, str | None], tuple[int, int]] = {}
    for row in store.tracks.to_pylist():
        for span in (row | {"variant": None}, *row["variants"]):
            spans[row["track_id"], span["variant"]] = span["first_frame"], span["n_frames"]
    rows = part.slices.to_pylist()
    assert len(rows) == 2 * 144
    assert isinstance(part.slices, pa.Table)
    for row in rows:
        assert (row["first_frame"], row["n_frames"]) == spans[row["track_id"], row["variant"]]
