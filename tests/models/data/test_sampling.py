"""Sampling: balanced epochs and windows from whole tracks, both functions of seed and epoch."""

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

from mgc.models.data import sampling
from mgc.models.data.sampling import Sampling, sample_balanced
from mgc.models.data.split_data import RunInputs, SplitData
from mgc.models.data.stream import Batching
from mgc.models.runs import narrow
from mgc.models.runs.selection import select_tracks
from mgc.pipeline.features.variants import parse_variants
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

FRAMES = 60


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Folk tracks of 9 s, which give 8 slices, and others of 4 s, which give 3."""
    return make_store(tmp_path_factory.mktemp("stores") / "mel", seconds=(9.0, 4.0, 4.0))


def open_training(store: Store, *, seed: int = 5, **sampling: Any) -> SplitData:
    inputs = RunInputs(select_tracks(store), [store], store.slicing, [FRAMES])
    return inputs.split("training", Batching(10, torch.device("cpu"), seed=seed), Sampling(**sampling))


def test_strata_are_drawn_equally_often_and_so_are_slices_of_a_stratum() -> None:
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
    # In an epoch, a slice is drawn floor or ceil of its expectation times: a variance of a quarter at most.
    assert np.abs(drawn - expected).max() < 5 * np.sqrt(300 / 4)


@pytest.mark.parametrize("part", [1, 2, 3, 50, narrow.PART])
def test_balanced_slices_are_drawn_part_by_part_as_all_at_once(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.setattr(narrow, "PART", part)
    rng = np.random.default_rng(7)
    for seed in range(40):
        n = int(rng.integers(1, 120))
        _, strata = np.unique(rng.integers(0, rng.integers(1, n + 1), n), return_inverse=True)
        generator, expected = np.random.default_rng(seed), np.random.default_rng(seed)
        by_stratum = np.lexsort((expected.random(n), strata))
        edges = np.cumsum(1 / np.bincount(strata)[strata[by_stratum]])
        steps = np.searchsorted(edges * (n / edges[-1]), np.arange(n) + expected.random(), side="right")
        assert sample_balanced(strata, generator).tolist() == by_stratum[np.minimum(steps, n - 1)].tolist()
        assert generator.random() == expected.random()


@pytest.mark.parametrize("balance", ["class", "track"])
def test_an_epoch_is_balanced(store: Store, balance: str) -> None:
    data = open_training(store, balance=balance)
    strata = data.stream.labels if balance == "class" else data.tracks
    assert np.ptp(np.bincount(strata)) > 0
    rows = np.concatenate([batch.rows for batch in data.stream.batches(2)])
    assert len(rows) == len(strata)
    assert np.ptp(np.bincount(strata[rows])) <= 1


def test_balanced_batches_depend_on_seed_and_epoch_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "GROUP_BYTES", 25_000)
    resident, streamed = open_training(store, balance="track"), open_training(store, balance="track")
    streamed.streams[0].residency = "stream"
    whole = list(resident.stream.batches(3))
    for start in (0, 4):
        for one, other in zip(whole[start:], streamed.stream.batches(3, start), strict=True):
            assert one.rows.tolist() == other.rows.tolist()
            assert one.draws.tolist() == other.draws.tolist()
            assert torch.equal(one.frames, other.frames)
    other = open_training(store, balance="track", seed=6)
    assert [batch.rows.tolist() for batch in other.stream.batches(3)] != [batch.rows.tolist() for batch in whole]


def test_two_draws_of_a_slice_have_different_windows(store: Store) -> None:
    data = open_training(store, balance="track")
    order = data.streams[0].order(0)
    assert sorted(order.draws) == list(range(len(order.rows)))
    repeated = [row for row, count in Counter(order.rows.tolist()).items() if count > 1]
    assert repeated
    windows_differ = [len(set(order.crops[order.draws[order.rows == row]])) > 1 for row in repeated]
    assert np.mean(windows_differ) > 0.8  # a window has 28 possible positions


def test_windows_come_from_anywhere_in_their_track(store: Store) -> None:
    data = open_training(store, crop=True)
    tracks = {row["track_id"]: row for row in store.tracks.to_pylist()}
    ids = data.slices["track_id"].to_pylist()
    frames = {track: frames_of(store, track) for track in set(ids)}
    assert Counter(ids) == {track: 8 if len(frames[track]) > 300 else 3 for track in frames}
    positions = []
    for epoch in range(20):
        order = data.streams[0].order(epoch)
        for row, crop in zip(order.rows, order.crops[order.draws], strict=True):
            spare = tracks[ids[row]]["n_frames"] - FRAMES
            assert 0 <= crop <= spare
            positions.append((crop + 0.5) / (spare + 1))
    assert kstest(positions, "uniform").pvalue > 0.01
    crops = data.streams[0].order(1).crops
    for batch in data.stream.batches(1):
        for row, window in zip(batch.rows, batch.frames.numpy(), strict=True):
            np.testing.assert_array_equal(window, frames[ids[row]][crops[row] : crops[row] + FRAMES])


def test_windows_depend_on_seed_and_epoch_alone(store: Store) -> None:
    stream, same, other = (open_training(store, crop=True, seed=seed).streams[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(stream.order(4).crops, same.order(4).crops)
    assert (stream.order(4).crops != other.order(4).crops).any()
    assert (stream.order(4).crops != stream.order(5).crops).any()


def test_a_variant_is_cropped_within_itself(tmp_path: Path) -> None:
    store = make_store(tmp_path / "mel", TINY, Slicing(seconds=2.0), variants=parse_variants("noise:20"))
    data = open_training(store, crop=True, variants=True)
    spans: dict[tuple[str, str | None], tuple[int, int]] = {}
    for row in store.tracks.to_pylist():
        for span in (row | {"variant": None}, *row["variants"]):
            spans[row["track_id"], span["variant"]] = span["first_frame"], span["n_frames"]
    rows = data.slices.to_pylist()
    assert len(rows) == 2 * 144
    assert isinstance(data.slices, pa.Table)
    for row in rows:
        assert (row["first_frame"], row["n_frames"]) == spans[row["track_id"], row["variant"]]
