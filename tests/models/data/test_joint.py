"""Several stores as one stream: the same moments of the same tracks in one order, though their shards differ."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from stores import frames_of, make_store

from mgc.models.data import sampling
from mgc.models.data.sampling import Sampling
from mgc.models.data.split_data import RunInputs, SplitData, set_residency
from mgc.models.data.stream import Batch, Batching, Residency
from mgc.models.runs.selection import select_tracks
from mgc.pipeline.errors import StoreError
from mgc.pipeline.features import Mel, Waveform
from mgc.pipeline.storage import parquet
from mgc.pipeline.store.manifest import publish
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

CPU = torch.device("cpu")
#: 43.07 and 172.27 frames per second: four frames of FAST last as long as one of SLOW.
SLOW, FAST = Waveform(hop_length=512), Mel(n_mels=8, n_fft=512, hop_length=128)
WINDOWS = (40, 160)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    """Two features of the same tracks, in shards of three and of five tracks."""
    return make_pair(tmp_path_factory.mktemp("stores"))


def make_pair(root: Path, slicing: Slicing | None = None, seconds: tuple[float, ...] = (9.0, 7.3)) -> list[Store]:
    return [
        make_store(root / spec.name, spec, slicing, tracks_per_shard=n, seconds=seconds, root=root)
        for spec, n in ((SLOW, 3), (FAST, 5))
    ]


def open_joint(
    stores: list[Store],
    slicing: Slicing | None = None,
    *,
    seed: int | None = 5,
    residency: Residency = "device",
    crop: bool = False,
) -> SplitData:
    slicing = slicing or stores[0].slicing
    selection = select_tracks(stores[0], stores[1:], slicing=slicing)
    inputs = RunInputs(selection, stores, slicing, WINDOWS[: len(stores)])
    data = inputs.split("training", Batching(7, CPU, seed=seed), Sampling(crop=crop))
    for stream in data.streams:
        stream.residency = residency
    return data


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of one or a few shards, so that an epoch has several groups."""
    monkeypatch.setattr(sampling, "GROUP_BYTES", 2_500_000)


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.rows.tolist() == other.rows.tolist()
        for frames, other_frames in zip(one.frames, other.frames, strict=True):
            assert torch.equal(frames, other_frames)


@pytest.mark.parametrize("slicing", [Slicing(seconds=2.0), Slicing(seconds=None, whole=True)], ids=str)
@pytest.mark.parametrize(("seed", "crop"), [(None, False), (5, False), (5, True)])
def test_inputs_show_the_same_moment(
    stores: list[Store], slicing: Slicing, seed: int | None, crop: bool, small_groups: None
) -> None:
    data = open_joint(stores, slicing, seed=seed, crop=crop)
    slices = data.slices.to_pylist()
    begins = {row["track_id"]: row["first_frame"] for row in stores[0].tracks.to_pylist()}
    seen = []
    for batch in data.stream.batches(1):
        crops = data.streams[0].order(1).crops
        for row, slow, fast in zip(batch.rows, *(frames.numpy() for frames in batch.frames), strict=True):
            track = slices[row]["track_id"]
            first = slices[row]["first_frame"] - begins[track] + crops[row]
            np.testing.assert_array_equal(slow, frames_of(stores[0], track)[first : first + 40])
            # The same moment in the other store: the slice begins within a frame of it, the crop is exact.
            start = int(slices[row]["start_s"] * FAST.frame_rate + 1e-9) + 4 * crops[row]
            assert 4 * first <= start < 4 * first + 4
            np.testing.assert_array_equal(fast, frames_of(stores[1], track)[start : start + 160])
            seen.append(row)
    assert sorted(seen) == list(range(len(slices)))


def test_windows_lie_inside_the_slices_of_all_stores(stores: list[Store]) -> None:
    data = open_joint(stores, Slicing(seconds=None, whole=True))
    slow, fast = data.streams
    crops = np.stack([slow.order(epoch).crops for epoch in range(60)])
    assert (crops * 4 <= fast.spare).all()
    assert (crops.max(axis=0) >= fast.spare // 4 - 20).all()
    assert crops.min() == 0


def test_residency_changes_no_batch(stores: list[Store], small_groups: None) -> None:
    resident, streamed, mixed = (
        open_joint(stores, residency=residency) for residency in ("device", "stream", "device")
    )
    mixed.streams[0].residency = "host"
    assert len(resident.streams[0].order(0).groups) > 2
    for epoch in range(2):
        whole = list(resident.stream.batches(epoch))
        assert_same(whole, list(streamed.stream.batches(epoch)))
        assert_same(whole, list(mixed.stream.batches(epoch)))
        for start in (1, len(whole) - 1, len(whole)):
            assert_same(whole[start:], list(streamed.stream.batches(epoch, start)))


def test_residency_is_chosen_for_each_store(stores: list[Store], monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_joint(stores)
    audio, mel = (stream.nbytes for stream in data.streams)
    assert mel < audio
    monkeypatch.setattr("mgc.models.data.split_data.fits_in_memory", lambda nbytes, device: nbytes < audio)
    assert set_residency([data], CPU) == [(audio, "stream"), (mel, "host")]
    assert [stream.residency for stream in data.streams] == ["stream", "device"]
    monkeypatch.setattr("mgc.models.data.split_data.fits_in_memory", lambda nbytes, device: nbytes < audio + mel)
    assert set_residency([data], CPU) == [(audio, "stream"), (mel, "host")]


def test_slices_in_frames_of_the_first_store(stores: list[Store]) -> None:
    slicing = Slicing(seconds=None, frames=44, overlap=0.0)
    tables, labels = select_tracks(*stores[:1], stores[1:], slicing=slicing).join_slices(stores, slicing, "training")
    assert set(tables[0]["n_frames"].to_pylist()) == {44}
    assert set(tables[1]["n_frames"].to_pylist()) == {1 + 43 * 4}
    assert tables[0].select(["track_id", "start_s"]).equals(tables[1].select(["track_id", "start_s"]))
    assert len(labels) == len(tables[0]) > 100


# -- stores that cannot be joined -------------------------------------------------------------------------------------


def edit(store: Store, track_id: str, **values: object) -> Store:
    """Change values in the manifest row of a track; return the store opened again."""
    for shard in store.fragments():
        path = store.fragment_path(shard)
        fragment = parquet.read_table(path)
        rows = [row | (values if row["track_id"] == track_id else {}) for row in fragment.to_pylist()]
        parquet.write_table(path, pa.Table.from_pylist(rows, fragment.schema))
    publish(store, store.slicing)
    return Store.open(store.path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"content_hash": "other"},
            r"training-003 was extracted from different files; run `mgc extract` for both again",
        ),
        ({"split": "validation"}, r"has another split: training and validation; .*`mgc split .*--splits .*parquet`"),
        ({"genre": "Rock"}, r"has another genre: Folk and Rock; run `mgc extract`"),
    ],
)
def test_stores_with_different_labels_of_a_track_are_refused(
    tmp_path: Path, values: dict[str, str], message: str
) -> None:
    first, second = make_pair(tmp_path)
    with pytest.raises(StoreError, match=message):
        select_tracks(first, [edit(second, "training-003", **values)])


def test_stores_of_two_datasets_are_refused(tmp_path: Path) -> None:
    first = make_store(tmp_path / "a", SLOW)
    with pytest.raises(StoreError, match=r"hold different datasets.*name stores of one dataset"):
        select_tracks(first, [make_store(tmp_path / "b", FAST)])


def test_a_track_that_is_dropped_in_one_store_is_left_out(tmp_path: Path) -> None:
    first, second = make_pair(tmp_path)
    second = edit(second, "training-003", status="dropped", reason="too-long", n_frames=0)
    selection = select_tracks(first, [second])
    assert len(selection.tracks) == len(select_tracks(first).tracks) - 1
    assert "training-003" not in selection.tracks["track_id"].to_pylist()


def test_slices_that_touch_a_gap_in_one_store_are_left_out(tmp_path: Path) -> None:
    stores = make_pair(tmp_path)
    before = open_joint(stores, seed=None)
    gap = FAST.frame_at(3.1), FAST.frame_at(3.2)
    stores[1] = edit(stores[1], "training-003", gaps=[list(gap)])
    after = open_joint(stores, seed=None)
    starts, starts_before = (
        [row["start_s"] for row in data.slices.to_pylist() if row["track_id"] == "training-003"]
        for data in (after, before)
    )
    assert starts == [start for start in starts_before if not start - 3.2 < 0 < start + 2.0 - 3.1]
    assert len(after.slices) == len(before.slices) - (len(starts_before) - len(starts))


def test_one_store_is_one_stream(stores: list[Store]) -> None:
    data = open_joint(stores[:1])
    assert data.stream is data.streams[0]
    assert dataclasses.is_dataclass(data)
