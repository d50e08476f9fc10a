"""Stores in Python: tables, frames, labelled arrays, batches and map-style datasets."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import librosa
import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from stores import TINY, frames_of, make_store
from torch.utils.data import DataLoader

import mgc
from mgc.pipeline.features import Chroma, Mel, Mfcc, Stats, Stft, Waveform
from mgc.pipeline.store.slicing import Slicing


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> mgc.FeatureStore:
    """Tracks of two lengths, cut into slices of 2 s; the longer ones lie in several chunks of a shard."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("stores") / "mel"
    make_store(path, Mel(n_mels=64), tracks={"training": 8, "validation": 6}, seconds=(9.0, 41.5))
    return mgc.open_store(str(path))


def test_tables_and_frames_are_those_of_the_store(store: mgc.FeatureStore) -> None:
    assert store.tracks.num_rows == 14
    assert set(store.slices.to_pandas()["split"]) == {"training", "validation"}
    assert store.genres == ("Folk", "Rock", "Ambient")
    for id in ("training-000", "training-001", "validation-005"):
        frames = store.read(id)
        assert frames.dtype == np.float32
        np.testing.assert_array_equal(frames, frames_of(store.core, id))
    assert repr(store) == f"mgc.open_store({str(store.path)!r})"


def test_xarray_labels_every_value(store: mgc.FeatureStore) -> None:
    array = store.xarray()
    assert array.chunks is not None  # nothing is read before values are computed
    assert array.sizes == {"track": 14, "time": store.spec.frames(41.5), "frequency": 64}
    assert (array.attrs["units"], array.time.attrs["units"], array.frequency.attrs["units"]) == ("dB", "s", "Hz")
    for id in ("training-000", "validation-005"):
        one, frames = array.sel(track=id), store.read(id)
        assert str(one.genre.values) == store.tracks.filter(pc.equal(store.tracks["track_id"], id))["genre"][0].as_py()
        np.testing.assert_array_equal(one.values[: len(frames)], frames)
        assert int(one.frames) == len(frames)
        assert np.isnan(one.values[len(frames) :]).all()
    bands = array.frequency.sel(frequency=slice(0, 1000))
    assert bands.max() <= 1000 < array.frequency[len(bands)]
    np.testing.assert_allclose(array.frequency, librosa.mel_frequencies(66, fmin=0, fmax=11025)[1:-1])
    second = array.sel(track="training-000", time=slice(1, 2))
    np.testing.assert_allclose(second.time, np.arange(44, 87) * 512 / 22050)
    np.testing.assert_array_equal(second, store.read("training-000")[44:87])
    means = array.groupby("genre").mean(("track", "time")).compute()  # leaves the NaN after a track out
    rock = [store.read(row["track_id"]) for row in store.tracks.to_pylist() if row["genre"] == "Rock"]
    np.testing.assert_allclose(means.sel(genre="Rock"), np.concatenate(rock).mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize(
    ("spec", "dimension", "labels"),
    [
        (Stft(sr=22050, n_fft=512), "frequency", (0.0, 11025.0)),
        (Mfcc(n_mels=40, n_mfcc=13), "coefficient", (0, 12)),
        (Chroma(), "pitch_class", (0, 11)),
        (Waveform(), "sample", (0, 511)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_bins_of_each_feature_have_labels(
    spec: Mel, dimension: str, labels: tuple[float, float], tmp_path: Path
) -> None:
    make_store(tmp_path / "store", spec, tracks={"training": 2}, seconds=(3.0,))
    array = mgc.open_store(tmp_path / "store").xarray()
    assert array.dims == ("track", "time", dimension)
    assert (array[dimension].values[0], array[dimension].values[-1]) == pytest.approx(labels)
    assert ("units" in array.attrs) == (spec.name in ("stft", "waveform"))


def test_statistics_have_names_and_no_time(tmp_path: Path) -> None:
    make_store(tmp_path / "store", Stats(), tracks={"training": 2})
    array = mgc.open_store(tmp_path / "store").xarray()
    assert array.dims == ("track", "statistic")
    assert "mfcc.mean.01" in array.statistic.values
    assert np.isfinite(array.values).all()


def test_batches_are_those_of_training(store: mgc.FeatureStore) -> None:
    batches = store.torch("training", 16, "cpu", seed=3)
    seen = {}
    for batch in batches:
        assert batch.frames.dtype == torch.float32
        assert batch.labels.dtype == torch.int64
        for row, label, frames in zip(batch.rows, batch.labels, batch.frames, strict=True):
            seen[int(row)] = batches.classes[label], frames.numpy()
    assert len(seen) == len(batches.slices) > 16
    for row, slice_ in enumerate(batches.slices.to_pylist()):
        genre, frames = seen[row]
        first = store.spec.frame_at(slice_["start_s"])
        np.testing.assert_array_equal(frames, store.read(slice_["track_id"])[first : first + slice_["n_frames"]])
        assert genre == store.genres[int(slice_["track_id"][-3:]) % 3]
    first_epoch, second_epoch = ([row for batch in batches for row in batch.rows] for _ in range(2))
    assert (batches.epoch, len(batches)) == (3, -(-len(seen) // 16))
    assert first_epoch != second_epoch
    assert sorted(first_epoch) == sorted(second_epoch)


@pytest.mark.parametrize("frames", [None, 30, 200])
def test_datasets_show_what_batches_show(store: mgc.FeatureStore, frames: int | None) -> None:
    data, batches = store.dataset("validation", frames=frames), store.torch("validation", 8, "cpu", frames=frames)
    for batch in batches:
        for row, label, values in zip(batch.rows, batch.labels, batch.frames, strict=True):
            own_values, own_label = data[int(row)]
            assert torch.equal(own_values, values)
            assert (type(own_label), own_label) == (int, label)
    assert torch.equal(data[-1][0], data[len(data) - 1][0])
    with pytest.raises(IndexError):
        data[len(data)]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.skipif(sys.platform != "linux", reason="other systems fork no processes")
def test_loaders_read_in_worker_processes(store: mgc.FeatureStore, method: str) -> None:
    data = store.dataset("training")
    store.core.read(0)  # all chunks of a shard at once: from now on, zarrs has threads that a fork does not copy
    loader = DataLoader(data, batch_size=16, num_workers=1, multiprocessing_context=method, timeout=60)
    frames, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert torch.equal(frames, torch.stack([data[number][0] for number in range(len(data))]))
    assert labels.tolist() == data.labels.tolist()


def test_a_forked_process_reads_several_chunks(store: mgc.FeatureStore) -> None:
    """zarrs waits for ever there."""
    context = torch.multiprocessing.get_context("fork")
    expected, queue = store.read("training-001"), context.Queue()
    child = context.Process(target=lambda: queue.put(store.read("training-001").tobytes()), daemon=True)
    child.start()
    assert queue.get(timeout=60) == expected.tobytes()
    child.join()


def test_datasets_are_pickled_without_tables_of_tracks(store: mgc.FeatureStore) -> None:
    data = store.dataset("validation")
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[3][0], data[3][0])
    assert copy.classes == store.genres
    assert "tracks" not in vars(pickle.loads(pickle.dumps(store.dataset("validation")))._store)


def test_whole_tracks_are_shown_at_their_lower_median_length(tmp_path: Path) -> None:
    make_store(tmp_path / "s", TINY, Slicing(seconds=None, whole=True), tracks={"test": 3}, seconds=(2.0, 3.0, 4.0))
    data = mgc.open_store(tmp_path / "s").dataset("test")
    assert {len(data[number][0]) for number in range(3)} == {TINY.frames(3.0)}


def test_bad_input_is_an_error_of_one_line(
    store: mgc.FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = make_store(tmp_path / "unfinished", TINY, tracks={"training": 2})
    (unfinished.path / "plan.parquet").touch()
    dropped = make_store(
        tmp_path / "dropped",
        TINY,
        tracks={"training": 2},
        relabel=lambda row: {"n_frames": 0, "reason": "silence", "status": "dropped"},
    )
    silent = mgc.open_store(dropped.path)
    no_gpu = not torch.cuda.is_available()
    monkeypatch.setitem(sys.modules, "xarray", None)  # as if it were not installed
    cases = {
        "no feature store": lambda: mgc.open_store(tmp_path / "none"),
        "its extraction is unfinished; run `mgc extract` again": lambda: mgc.open_store(unfinished.path),
        "unknown protocol": lambda: mgc.open_store("gopher://host/store"),
        "no track training-00; did you mean training-00": lambda: store.read("training-00"),
        "no frames of training-000, which was dropped (silence)": lambda: silent.read("training-000"),
        "split 'train': there is no such split; choose from training,": lambda: store.torch("train"),
        "split 'dev': there is no such split": lambda: store.dataset("dev"),
        "no slice of a labelled track in the test split": lambda: store.torch("test"),
        "no slice of a labelled track in the test split; ": lambda: store.dataset("test"),
        "not the name of a device": lambda: store.torch("training", device="gpu"),
        "batch_size=0; it must be": lambda: store.torch("training", 0),
        "seed=-1; it must be": lambda: store.torch("training", seed=-1),
        "frames=0; it must be": lambda: store.dataset("training", frames=0),
        'xarray is not installed; install it: pip install "mgc-music[xarray]"': store.xarray,
        "no run": lambda: mgc.Run(tmp_path / "none"),
        **({"there is no CUDA GPU": lambda: store.torch("training", device="cuda")} if no_gpu else {}),
        "unknown feature 'mell'; did you mean mel?": lambda: mgc.extract(tmp_path, "mell"),
        "overlap 1; it must be": lambda: mgc.extract(tmp_path, overlap=1),
        "nothing": lambda: mgc.extract(tmp_path / "nothing"),
        "kth2020/cnn reads one store (mel), not 2": lambda: mgc.train([store, store], "kth2020/cnn", out=tmp_path),
        "there is no model 'kth2021/cnn'": lambda: mgc.train(store, "kth2021/cnn", out=tmp_path),
    }
    for message, call in cases.items():
        with pytest.raises(mgc.MgcError) as caught:
            call()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
