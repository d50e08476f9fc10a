"""Embeddings read as mean and deviation of each track."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stores import make_store

from mgc.models.data.pooled_view import PooledView, as_read
from mgc.pipeline.features import Embedding
from mgc.pipeline.features.variants import parse_variants
from mgc.pipeline.store.slicing import Slicing

SPEC = Embedding(model="m", layer="l", width=6, weights="0" * 16, of="mel", window=16_000, sr=16_000, hop_length=8_000)
WHOLE = Slicing(seconds=None, whole=True)


@pytest.fixture
def view(tmp_path: Path) -> PooledView:
    gap = {"gaps": [[2, 4]], "status": "dropped", "reason": "non-finite"}
    return PooledView.of(
        make_store(
            tmp_path / "embedding",
            SPEC,
            WHOLE,
            seconds=(9.0, 4.0, 1.2),
            variants=parse_variants("noise"),
            relabel=lambda row: gap if row["track_id"] == "training-001" else {},
        )
    )


def test_frames_are_mean_and_deviation(view: PooledView) -> None:
    """In whatever part a shard is read."""
    assert (view.spec.bins, view.spec.frame_rate, view.variants) == (12, 0, ())
    source = {row["track_id"]: row for row in view.source.tracks.to_pylist()}
    for row in view.tracks.to_pylist():
        old = source[row["track_id"]]
        windows = view.source.read(old["shard"], old["first_frame"], old["first_frame"] + old["n_frames"])
        wanted = np.concatenate([windows.mean(axis=0), windows.std(axis=0)])
        [got] = view.read(row["shard"], row["first_frame"], row["first_frame"] + row["n_frames"])
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(view.read(row["shard"])[row["first_frame"]], got)
        assert row["n_frames"] == 1
        assert row["variants"] is None


def test_each_track_is_one_slice(view: PooledView) -> None:
    """Except one with a gap, whose windows are not all known."""
    slices = view.slices.to_pylist()
    used = [row["track_id"] for row in view.tracks.to_pylist() if row["track_id"] != "training-001"]
    assert sorted(row["track_id"] for row in slices) == sorted(used)
    assert {row["n_frames"] for row in slices} == {1}
    of_shards = [row for table in view.read_slices([0, 2]) for row in table.to_pylist()]
    assert of_shards == [row for row in slices if row["shard"] in (0, 2)]


def test_only_embeddings_are_pooled(view: PooledView, tmp_path: Path) -> None:
    mel = make_store(tmp_path / "mel")
    assert as_read(mel) is mel
    assert as_read(view) is view
    assert as_read(view.source) == view
