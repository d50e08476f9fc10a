"""Shards: other Zarr readers read them; appending, truncating and damage have the documented effect on the bytes."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import zarr
from commands import mgc_process, tree
from sounds import assert_levels_agree, librosa_frames, music

from mgc.pipeline.features import (
    Chroma,
    FeatureSpec,
    Harmonic,
    Mel,
    Mfcc,
    Percussive,
    PowerSpectrum,
    Stats,
    Stft,
    Waveform,
)
from mgc.pipeline.features.spec import Clipped
from mgc.pipeline.store import shard
from mgc.pipeline.store.shard import DamagedFrames, ShardWriter, chunk_frames, data_file_frames, read_frames
from mgc.pipeline.store.store import Store

TRACKS = {"a": (44100, 2, 6.3), "b": (48000, 1, 9.1), "c": (22050, 2, 5.2)}
FRAMED = [
    Stft(),
    Mel(),
    Mel(dtype="float32"),
    Mfcc(dtype="float16"),
    Mfcc(),
    PowerSpectrum(),
    Chroma(),
    Harmonic(),
    Percussive(dtype="float32"),
    Waveform(),
]
SPECS = [*FRAMED, Stats()]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Three tracks as floating-point WAVs, the last 0.4 s of each silent: its frames lie below the range of uint8."""
    folder = tmp_path_factory.mktemp("dataset")
    for genre, (name, (rate, channels, seconds)) in zip("xyx", TRACKS.items(), strict=True):
        (folder / genre).mkdir(exist_ok=True)
        sound = music(seconds, rate, channels, seed=ord(name))
        sound[-round(0.4 * rate) :] = 0
        sf.write(folder / genre / f"{name}.wav", sound, rate, subtype="FLOAT")
    return folder


@pytest.fixture(scope="module")
def stores(dataset, scheduler, tmp_path_factory) -> dict[FeatureSpec, Store]:
    """The stores that `mgc extract` writes, by spec."""
    out = tmp_path_factory.mktemp("stores")
    features = [f"--feature={spec.name}:dtype={spec.dtype}" for spec in SPECS]
    done = mgc_process("extract", f"--dataset={dataset}", *features, f"--out={out}", f"--scheduler={scheduler}")
    assert done.code == 0, done.err
    return {spec: Store.open(out / f"{spec.name}-{spec.digest}") for spec in SPECS}


# `read(shard, feature)` by one library each. `-I` and the assertion in SCRIPT keep this project's code out.
READERS = {
    "zarr": """
import zarr
assert "zarrs" not in zarr.config.get("codec_pipeline.path")  # Zarr's own codecs, not those that wrote the shard
def read(shard, feature):
    return zarr.open_array(f"{shard}/{feature}", mode="r")[:]
""",
    "xarray": """
import xarray
def read(shard, feature):
    opened = xarray.open_zarr(shard, consolidated=False)
    assert list(opened) == [feature]
    assert opened[feature].dims == ("frame", "bin")
    return opened[feature].values
""",
    "tensorstore": """
import tensorstore
def read(shard, feature):
    store = {"driver": "file", "path": f"{shard}/{feature}"}
    return tensorstore.open({"driver": "zarr3", "kvstore": store}).result().read().result()
""",
}
SCRIPT = """
import sys, numpy
numpy.savez("values.npz", *(read(*argument.rsplit(":", 1)) for argument in sys.argv[1:]))
assert "mgc" not in sys.modules
"""


def read_elsewhere(library: str, arrays: list[tuple[Path, str]], folder: Path) -> list[np.ndarray]:
    """Read arrays, given as (shard, feature), in a process that imports only `library`."""
    arguments = [f"{path}:{feature}" for path, feature in arrays]
    command = [sys.executable, "-I", "-c", READERS[library] + SCRIPT, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "values.npz") as values:
        return list(values.values())


@pytest.fixture(scope="module", params=READERS)
def read(request, stores, tmp_path_factory) -> dict[tuple[FeatureSpec, int], np.ndarray]:
    """All shards of all stores, as one of the libraries reads them, by spec and shard."""
    keys = [(spec, number) for spec, store in stores.items() for number in store.fragments()]
    arrays = [(stores[spec].shard_path(number), spec.name) for spec, number in keys]
    values = read_elsewhere(request.param, arrays, tmp_path_factory.mktemp(request.param))
    for (spec, _), array in zip(keys, values, strict=True):
        # xarray applies the CF attributes of uint8 arrays, so it returns dB.
        in_db = request.param == "xarray" and spec.quantised
        assert array.dtype.kind == "f" if in_db else array.dtype == spec.dtype
    return dict(zip(keys, values, strict=True))


@pytest.mark.slow
class TestOtherReaders:
    @pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.name}-{spec.dtype}")
    def test_they_find_the_stored_frames(self, read, stores, spec):
        numbers = stores[spec].fragments()
        assert numbers
        for number in numbers:
            stored = stores[spec].read(number)
            assert len(stored) > (200 if spec.frame_rate else 0)
            values = read[spec, number]
            np.testing.assert_array_equal(values, stored if values.dtype == stored.dtype else spec.decode(stored))
            assert np.isfinite(values).all()  # a stored 0 is a level, not "missing"

    @pytest.mark.parametrize("spec", [spec for spec in FRAMED if spec.dtype in ("float32", "int16")], ids=str)
    def test_they_find_what_librosa_makes_of_the_files(self, read, stores, dataset, spec):
        """`mgc extract` writes the store, the other library reads it."""
        seen = set()
        for track in stores[spec].tracks.to_pylist():
            window = slice(track["first_frame"], track["first_frame"] + track["n_frames"])
            frames = read[spec, track["shard"]][window]
            sound, rate = sf.read(dataset / track["path"], dtype="float32", always_2d=True)
            reference = librosa_frames(sound, rate, spec)
            if spec.name in ("mel", "percussive"):
                assert_levels_agree(frames, reference)
            elif spec.name == "power":
                assert (np.abs(frames - reference) <= 2e-6 * reference.max(axis=1, keepdims=True)).all()
            elif spec.name == "waveform":
                frames = frames if frames.dtype.kind == "f" else spec.decode(frames)
                np.testing.assert_allclose(frames, reference, rtol=0, atol=0.51 / 32768)
            else:
                np.testing.assert_allclose(frames, reference, rtol=0, atol=5e-3 if spec.name == "mfcc" else 1e-5)
            seen.add((rate, sound.shape[1]))
        assert seen == {(rate, channels) for rate, channels, _ in TRACKS.values()}

    def test_uint8_and_float32_stores_differ_by_half_a_step(self, stores):
        coarse, fine = stores[Mel()], stores[Mel(dtype="float32")]
        assert coarse.fragments() == fine.fragments()
        for number in coarse.fragments():
            exact = fine.read(number)
            floor, top = Mel().decode(np.array([0, 255], np.uint8))
            assert exact.min() < floor
            error = np.abs(Mel().decode(coarse.read(number)) - np.clip(exact, floor, top))
            assert error.max() <= 0.25 + 1e-4
            tracks = [track for track in coarse.tracks.to_pylist() if track["shard"] == number]
            saturated, above = (sum(track[name] for track in tracks) for name in ("saturated", "saturated_above"))
            assert saturated == np.count_nonzero((exact < floor - 0.25) | (exact > top + 0.25))
            assert above == np.count_nonzero(exact > top + 0.25)

    def test_the_array_says_what_it_is(self, stores):
        for spec, store in stores.items():
            array = zarr.open_array(str(store.shard_path(0) / spec.name), mode="r")
            assert array.metadata.dimension_names == ("frame", "bin")
            assert array.attrs["feature"] == spec.as_dict()
            assert array.attrs["frame_rate_hz"] == (spec.sr / spec.hop_length if spec.name != "stats" else 0)
            assert array.attrs.get("units") == {"uint8": "dB", "int16": "1"}.get(spec.dtype)
            if spec.name == "stats":
                assert array.attrs["columns"] == [".".join(column) for column in spec.columns]


class TestLayout:
    @pytest.mark.parametrize(
        "spec", [*FRAMED, Stft(dtype="float32", n_fft=4096), Mel(hop_length=32, n_fft=64, n_mels=8)]
    )
    def test_chunks_hold_about_a_clip_and_data_files_32_megabytes(self, spec):
        chunk, whole = chunk_frames(spec), data_file_frames(spec)
        assert 15 <= chunk / spec.frame_rate <= 30
        assert whole % chunk == 0
        row = spec.bins * np.dtype(spec.dtype).itemsize
        assert whole * row <= 32_000_000 or whole == chunk
        assert (whole + chunk) * row > 32_000_000

    def test_tracks_of_one_frame_share_a_chunk(self):
        assert chunk_frames(Stats()) == 64
        assert data_file_frames(Stats()) * 518 * 4 <= 32_000_000

    def test_a_frame_longer_than_a_clip_is_a_chunk(self):
        assert chunk_frames(Stft(sr=1000, n_fft=65536, hop_length=65536)) == 1


SMALL = Mel(sr=1000, n_fft=512, hop_length=512, n_mels=4)  # chunks of 32 frames, 128 bytes


@pytest.fixture
def small_files(monkeypatch) -> FeatureSpec:
    """Data files of two chunks, so that a few hundred frames fill several."""
    monkeypatch.setattr(shard, "DATA_FILE_BYTES", 256)
    assert (chunk_frames(SMALL), data_file_frames(SMALL)) == (32, 64)
    return SMALL


def levels(n_frames: int, seed: int = 0, spec: FeatureSpec = SMALL) -> np.ndarray:
    """Random frames that fill the range of a uint8 store."""
    floor = Mel().offset if not spec.quantised else spec.offset
    return np.random.default_rng(seed).uniform(floor, floor + 127.5, (n_frames, spec.bins)).astype(np.float32)


def quantised(spec: FeatureSpec, rows: np.ndarray) -> np.ndarray:
    return np.round((rows - spec.offset) / spec.scale).astype(spec.dtype) if spec.quantised else rows.astype(spec.dtype)


def write(folder: Path, *batches: np.ndarray, spec: FeatureSpec = SMALL) -> dict[str, bytes]:
    """Write a shard, batch by batch, and return its files."""
    writer = ShardWriter(folder, spec)
    for rows in batches:
        writer.append(rows)
    writer.close()
    return tree(folder)


class TestWriting:
    @pytest.mark.parametrize("n_frames", [1, 31, 32, 33, 63, 64, 65, 128, 200, 320])
    @pytest.mark.parametrize("batch", [1, 17, 64, 1000])
    def test_frames_come_back_whatever_the_batches(self, small_files, tmp_path, n_frames, batch):
        rows = levels(n_frames)
        files = write(tmp_path / "x.zarr", *(rows[first : first + batch] for first in range(0, n_frames, batch)))
        np.testing.assert_array_equal(read_frames(tmp_path / "x.zarr", SMALL), quantised(SMALL, rows))
        assert len([name for name in files if name.startswith("mel/c/")]) == -(-n_frames // 64)
        for first, stop in ((0, 1), (30, 40), (60, 70), (n_frames - 1, n_frames), (n_frames, n_frames + 9)):
            part = read_frames(tmp_path / "x.zarr", SMALL, first, stop)
            np.testing.assert_array_equal(part, quantised(SMALL, rows)[first:stop])

    def test_the_same_frames_give_the_same_bytes(self, small_files, tmp_path):
        rows = levels(300)
        first = write(tmp_path / "first.zarr", rows)
        for i, edges in enumerate(([10], [64, 128], [1, 2, 299])):
            assert write(tmp_path / f"{i}.zarr", *np.split(rows, edges)) == first

    @pytest.mark.parametrize("spec", [Stft(), Mfcc()], ids=str)
    def test_many_chunks_give_the_same_bytes_every_time(self, tmp_path, spec):
        """zarrs writes inner chunks in the order in which its threads finish, unless it has only one thread."""
        rows = levels(8 * chunk_frames(spec) + 77, spec=spec)
        assert len({tuple(sorted(write(tmp_path / f"{i}.zarr", rows, spec=spec).items())) for i in range(4)}) == 1

    def test_a_shard_without_frames(self, tmp_path):
        write(tmp_path / "x.zarr")
        assert read_frames(tmp_path / "x.zarr", SMALL).shape == (0, 4)

    def test_values_out_of_range_are_counted_over_all_data_files(self, small_files, tmp_path):
        rows = levels(200)
        rows[::50] = 1000
        rows[1::50] = -1000
        writer = ShardWriter(tmp_path / "x.zarr", SMALL)
        assert writer.append(rows) == Clipped(4 * (4 + 4), above=4 * 4)
        writer.close()
        assert (read_frames(tmp_path / "x.zarr", SMALL)[::50] == 255).all()

    def test_memory_is_one_data_file(self, small_files, tmp_path):
        """A data file is on disk as soon as it is full."""
        writer = ShardWriter(tmp_path / "x.zarr", SMALL)
        for done in range(1, 9):
            writer.append(levels(64))
            assert len(list((tmp_path / "x.zarr" / "mel" / "c").iterdir())) == done
        assert writer.n_frames == 512


class TestTruncating:
    @pytest.mark.parametrize("kept", [0, 1, 40, 63, 64, 65, 100, 128, 150, 190, 192, 199, 200])
    @pytest.mark.parametrize("again", [0, 10, 64, 150])
    def test_truncated_frames_leave_no_trace(self, small_files, tmp_path, kept, again):
        rows, other = levels(200), levels(again, seed=1)
        writer = ShardWriter(tmp_path / "x.zarr", SMALL)
        writer.append(rows)
        writer.truncate(kept)
        assert writer.n_frames == kept
        writer.append(other)
        assert writer.n_frames == kept + again
        writer.close()
        assert tree(tmp_path / "x.zarr") == write(tmp_path / "straight.zarr", rows[:kept], other)

    def test_truncating_again_and_again(self, small_files, tmp_path):
        rng = np.random.default_rng(3)
        writer, frames = ShardWriter(tmp_path / "x.zarr", SMALL), np.empty((0, 4), np.float32)
        for turn in range(60):
            if turn % 2:
                kept = int(rng.integers(0, len(frames) + 1))
                writer.truncate(kept)
                frames = frames[:kept]
            else:
                rows = levels(int(rng.integers(0, 150)), seed=turn)
                writer.append(rows)
                frames = np.concatenate([frames, rows])
            assert writer.n_frames == len(frames)
        writer.close()
        assert len(frames) > 0
        assert tree(tmp_path / "x.zarr") == write(tmp_path / "straight.zarr", frames)


class TestDamage:
    def test_any_changed_byte_of_a_data_file_is_noticed(self, small_files, tmp_path):
        """Each inner chunk and the index of a data file carry a CRC32C."""
        rows = levels(64)
        write(tmp_path / "x.zarr", rows)
        (path,) = (tmp_path / "x.zarr" / "mel" / "c").rglob("0/0")
        healthy = path.read_bytes()
        assert len(healthy) > 250
        unnoticed = []
        for position in range(len(healthy)):
            for flip in (0x01, 0x80, 0xFF):
                damaged = bytearray(healthy)
                damaged[position] ^= flip
                path.write_bytes(damaged)
                try:
                    read_frames(tmp_path / "x.zarr", SMALL)
                except Exception:
                    continue
                unnoticed.append((position, flip))
        assert unnoticed == []
        path.write_bytes(healthy)
        np.testing.assert_array_equal(read_frames(tmp_path / "x.zarr", SMALL), quantised(SMALL, rows))

    @pytest.mark.parametrize("length", [0, 1, 4, 100, -1])
    def test_a_data_file_cut_short_is_noticed(self, small_files, tmp_path, length):
        write(tmp_path / "x.zarr", levels(64))
        path = tmp_path / "x.zarr" / "mel" / "c" / "0" / "0"
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(Exception):  # noqa: B017, PT011  zarr raises errors of any type, which `Store.read` converts
            read_frames(tmp_path / "x.zarr", SMALL)

    @pytest.mark.parametrize("chunk", [0, 1])
    def test_the_frames_of_the_damaged_chunk_are_named(self, small_files, tmp_path, chunk):
        write(tmp_path / "x.zarr", levels(64))
        path = tmp_path / "x.zarr" / "mel" / "c" / "0" / "0"
        damaged = bytearray(path.read_bytes())
        (offset, _) = np.frombuffer(damaged[-36:-4], "<u8").reshape(2, 2)[chunk]
        damaged[offset] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DamagedFrames, match="a checksum does not match") as caught:
            read_frames(tmp_path / "x.zarr", SMALL)
        assert (caught.value.first, caught.value.stop) == (32 * chunk, 32 * chunk + 32)

    def test_damage_is_noticed_by_plain_zarr_too(self, small_files, tmp_path):
        write(tmp_path / "x.zarr", levels(64))
        path = tmp_path / "x.zarr" / "mel" / "c" / "0" / "0"
        damaged = bytearray(path.read_bytes())
        damaged[60] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(AssertionError, match=r"(?i)crc|checksum"):
            read_elsewhere("zarr", [(tmp_path / "x.zarr", "mel")], tmp_path)


def test_a_refused_write_is_an_error_of_the_operating_system(tmp_path):
    """zarrs raises a RuntimeError, which would be reported as a fault of this program."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    writer = ShardWriter(tmp_path / "x.zarr", Stft(dtype="float32"))
    writer.append(levels(5000, spec=Stft()))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[0][1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])
