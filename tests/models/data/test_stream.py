"""The stream: the order of its batches, the frames in them, and the shards that it reads."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from stores import TINY, frames_of, make_store

from mgc.models.data import sampling
from mgc.models.data.stream import Batch, Batching, Residency, Stream
from mgc.models.runs.selection import select_tracks
from mgc.pipeline.errors import StoreError
from mgc.pipeline.features import FeatureSpec, Mel, Waveform
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

CPU = torch.device("cpu")
RESIDENCIES: tuple[Residency, ...] = ("device", "host", "stream")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("stores") / "mel")


def open_stream(
    store: Store,
    split: str = "training",
    *,
    frames: int = 60,
    batch_size: int = 10,
    seed: int | None = 5,
    residency: Residency = "device",
    device: torch.device = CPU,
    share: tuple[int, int] = (0, 1),
) -> Stream:
    slices, labels = select_tracks(store).slices(store, store.slicing, split)
    stream = Stream(store, slices, labels, frames, Batching(batch_size, device, seed=seed, share=share))
    stream.residency = residency
    return stream


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of one or two shards of the store, so that an epoch has several."""
    monkeypatch.setattr(sampling, "GROUP_BYTES", 25_000)


def rows_of(batches: list[Batch]) -> list[int]:
    return np.concatenate([batch.rows for batch in batches]).tolist()


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.rows.tolist() == other.rows.tolist()
        assert torch.equal(one.frames, other.frames)
        assert torch.equal(one.labels, other.labels)


# -- order ----------------------------------------------------------------------------------------------------------


def test_order_is_a_function_of_seed_and_epoch(store: Store, small_groups: None) -> None:
    stream, same, other = open_stream(store), open_stream(store), open_stream(store, seed=6)
    assert_same(list(stream.batches(3)), list(same.batches(3)))
    assert rows_of(list(stream.batches(3))) != rows_of(list(stream.batches(4)))
    assert rows_of(list(stream.batches(3))) != rows_of(list(other.batches(3)))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", [5, None])
def test_processes_share_an_epoch(store: Store, small_groups: None, size: int, seed: int | None) -> None:
    n = 144
    shares = [open_stream(store, seed=seed, batch_size=28, share=(rank, size)) for rank in range(size)]
    for epoch in range(4):
        batches = [list(share.batches(epoch)) for share in shares]
        rows = [rows_of(share_batches) for share_batches in batches]
        assert sorted(itertools.chain(*rows)) == list(range(n))
        assert {len(share_rows) for share_rows in rows} <= {n // size, -(-n // size)}
        assert {len(share_batches) for share_batches in batches} == {6} == {len(share) for share in shares}
        sizes = [[len(batch.rows) for batch in share_batches] for share_batches in batches]
        assert min(map(min, sizes)) >= 28 * 5 // 6 // size - 1
        assert max(map(sum, zip(*sizes, strict=True))) <= 28
        read = Counter(shard for share_rows in rows for shard in np.unique(shares[0].shard_of[share_rows]).tolist())
        assert sum(count - 1 for count in read.values()) <= size - 1  # shards that a boundary goes through


def test_a_process_reads_only_the_shards_of_its_share(
    store: Store, small_groups: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    whole = Store.read
    monkeypatch.setattr(
        Store, "read", lambda self, shard, *within: (read.append(shard), whole(self, shard, *within))[1]
    )
    share = open_stream(store, residency="stream", share=(1, 3))
    rows = rows_of(list(share.batches(2)))
    assert sorted(read) == share.shards[np.unique(share.shard_of[rows])].tolist()
    assert len(read) < len(share.shards)


def test_balanced_draws_are_shared_too(store: Store) -> None:
    slices, labels = select_tracks(store).slices(store, store.slicing, "training")
    strata = (np.arange(len(labels)) > 100).astype(np.int64)
    drawn = []
    for share in ((0, 1), (0, 2), (1, 2)):
        stream = Stream(store, slices, labels, 60, Batching(10, CPU, seed=5, share=share), strata)
        drawn.append(np.concatenate([batch.draws for batch in stream.batches(1)]).tolist())
    assert sorted(drawn[1] + drawn[2]) == sorted(drawn[0]) == list(range(144))


def test_order_does_not_depend_on_residency(store: Store, small_groups: None) -> None:
    resident, *others = (open_stream(store, residency=residency) for residency in RESIDENCIES)
    for epoch in range(3):
        for other in others:
            assert_same(list(resident.batches(epoch)), list(other.batches(epoch)))


def test_an_epoch_has_each_slice_once(store: Store, small_groups: None) -> None:
    for seed in (None, 5):
        stream = open_stream(store, seed=seed, batch_size=7)
        batches = list(stream.batches(1))
        assert len(batches) == len(stream)
        assert Counter(rows_of(batches)) == Counter(range(len(stream.labels)))


def test_slices_of_the_shards_of_a_group_are_mixed(store: Store, small_groups: None) -> None:
    stream = open_stream(store)
    order = stream.order(0)
    assert len(order.groups) > 2
    assert sorted(np.concatenate(order.groups)) == list(range(len(stream.shards)))
    shard = stream.shard_of[order.rows]
    for group in range(len(order.groups)):
        shards_in_order = shard[order.group_of(order.rows) == group]
        switches = np.count_nonzero(np.diff(shards_in_order))
        assert switches >= len(order.groups[group]) - 1
    # The groups follow each other, and the first one changes with the epoch.
    assert {tuple(stream.order(epoch).groups[0]) for epoch in range(8)} != {tuple(order.groups[0])}


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_an_epoch_continues_from_any_batch(store: Store, small_groups: None, residency: Residency) -> None:
    stream = open_stream(store, residency=residency)
    whole = list(stream.batches(2))
    for start in range(len(stream) + 1):
        assert_same(whole[start:], list(stream.batches(2, start)))


def test_without_a_seed_slices_come_in_the_order_of_the_table(store: Store, small_groups: None) -> None:
    assert rows_of(list(open_stream(store, seed=None).batches())) == list(range(len(open_stream(store).labels)))


def test_no_batch_has_a_lone_slice(store: Store) -> None:
    n = len(open_stream(store).labels)
    for batch_size in range(2, n + 2):
        stream = open_stream(store, batch_size=batch_size)
        sizes = np.diff(stream._bounds)
        assert len(sizes) == len(stream)
        assert sizes.sum() == n
        assert sizes.max() <= batch_size
        assert sizes.max() - sizes.min() <= 1


# -- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [*(Mel(n_mels=8, n_fft=512, dtype=dtype) for dtype in ("uint8", "float16", "float32")), Waveform(hop_length=8)],
    ids=str,
)
def test_windows_are_frames_of_the_store(tmp_path: Path, spec: FeatureSpec, small_groups: None) -> None:
    store = make_store(tmp_path / "store", spec)
    stream = open_stream(store, frames=60)
    slices = select_tracks(store).slices(store, store.slicing, "training")[0].to_pylist()
    tracks = {row["track_id"]: row for row in store.tracks.to_pylist()}
    crops = stream.order(1).crops
    for batch in stream.batches(1):
        assert batch.frames.dtype == torch.float32
        for row, frames in zip(batch.rows, batch.frames.numpy(), strict=True):
            track = slices[row]["track_id"]
            first = slices[row]["first_frame"] - tracks[track]["first_frame"] + crops[row]
            np.testing.assert_array_equal(frames, frames_of(store, track)[first : first + 60])


def test_random_windows_lie_inside_their_slice_and_move(store: Store) -> None:
    stream = open_stream(store, frames=60)
    spare = stream._length - 60
    crops = np.stack([stream.order(epoch).crops for epoch in range(50)])
    assert crops.min() == 0
    assert (crops <= spare).all()
    assert (crops.max(axis=0) > spare * 0.8).all()
    assert not (crops[0] == crops[1]).all()


def test_without_a_seed_windows_come_from_the_centre(store: Store) -> None:
    stream = open_stream(store, frames=60, seed=None)
    np.testing.assert_array_equal(stream.order(0).crops, (stream._length - 60) // 2)


def test_labels_are_those_of_the_tracks(store: Store) -> None:
    selection = select_tracks(store)
    slices, _ = selection.slices(store, store.slicing, "training")
    genre = {row["track_id"]: row["genre"] for row in store.tracks.to_pylist()}
    for batch in open_stream(store).batches():
        for row, label in zip(batch.rows, batch.labels.tolist(), strict=True):
            assert selection.classes[label] == genre[slices["track_id"][int(row)].as_py()]


def test_a_short_track_is_repeated_to_fill_the_window(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", slicing=Slicing(seconds=None, whole=True), seconds=(6.0, 6.0, 6.0, 6.0, 1.0))
    frames = TINY.frames(6.0)
    stream = open_stream(store, frames=frames)
    slices = select_tracks(store).slices(store, store.slicing, "training")[0]["track_id"].to_pylist()
    short = [row for row, track in enumerate(slices) if len(frames_of(store, track)) < frames]
    assert stream.n_repeated == len(short) == 3
    for batch in stream.batches():
        for row, values in zip(batch.rows, batch.frames.numpy(), strict=True):
            track = frames_of(store, slices[row])
            np.testing.assert_array_equal(values, np.resize(track, values.shape))


# -- shards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_shards_of_other_splits_are_never_read(
    store: Store, small_groups: None, residency: Residency, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    monkeypatch.setattr(Store, "read", lambda *args, read=read, whole=Store.read: read.append(args[1]) or whole(*args))
    for split in ("training", "validation"):
        list(open_stream(store, split, residency=residency).batches())
    rows = store.tracks.to_pylist()
    assert set(read) == {row["shard"] for row in rows if row["split"] != "test"}
    assert not set(read) & {row["shard"] for row in rows if row["split"] == "test"}


def test_resident_shards_are_read_once_and_streamed_ones_each_epoch(
    store: Store, small_groups: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    monkeypatch.setattr(Store, "read", lambda *args, read=read, whole=Store.read: read.append(args[1]) or whole(*args))
    for residency, times in zip(RESIDENCIES, (1, 1, 3), strict=True):
        read.clear()
        stream = open_stream(store, residency=residency)
        for epoch in range(3):
            list(stream.batches(epoch))
        assert set(Counter(read).values()) == {times}


def test_the_next_group_is_read_while_this_one_is_used(
    store: Store, small_groups: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    changed = threading.Condition()

    def note(self: Store, shard: int, *args: int, whole=Store.read) -> np.ndarray:
        frames = whole(self, shard, *args)
        with changed:
            read.append(shard)
            changed.notify()
        return frames

    monkeypatch.setattr(Store, "read", note)
    stream = open_stream(store, residency="stream")
    groups = stream.order(0).groups
    batches = stream.batches(0)
    next(batches)  # from the first group; while the consumer is busy here, the reader goes on:
    with changed:
        assert changed.wait_for(lambda: len(read) >= len(groups[0]) + len(groups[1]), timeout=30)
        assert len(read) == len(groups[0]) + len(groups[1])  # and then stops: memory holds two groups
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("shards")]


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_a_damaged_shard_is_named(tmp_path: Path, residency: Residency, small_groups: None) -> None:
    store = make_store(tmp_path / "store")
    file = max((store.shard_path(2)).rglob("c/*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(StoreError, match=r"00002.zarr.*damaged"):
        list(open_stream(store, residency=residency).batches())
    file.unlink()
    with pytest.raises(StoreError, match=r"00002.zarr.*No such file"):
        list(open_stream(store, residency=residency).batches())


# -- devices ----------------------------------------------------------------------------------------------------------


def test_resident_frames_take_nbytes_of_memory(store: Store) -> None:
    stream = open_stream(store, residency="device")
    list(stream.batches())
    assert stream._resident_pool.frames.nbytes == stream.nbytes


@pytest.mark.cuda
def test_resident_frames_take_nbytes_of_gpu_memory(store: Store) -> None:
    stream = open_stream(store, residency="device", device=torch.device("cuda"))
    before = torch.cuda.memory_allocated()
    for _ in stream.batches():
        pass
    assert torch.cuda.memory_allocated() - before == pytest.approx(stream.nbytes, rel=0.1)


@pytest.mark.cuda
@pytest.mark.parametrize("residency", RESIDENCIES)
def test_a_gpu_gets_the_same_batches(store: Store, small_groups: None, residency: Residency) -> None:
    on_gpu = open_stream(store, residency=residency, device=torch.device("cuda"))
    for epoch in range(3):
        for batch, expected in zip(on_gpu.batches(epoch), open_stream(store).batches(epoch), strict=True):
            assert batch.frames.is_cuda
            assert torch.equal(batch.frames.cpu(), expected.frames)
            assert torch.equal(batch.labels.cpu(), expected.labels)
