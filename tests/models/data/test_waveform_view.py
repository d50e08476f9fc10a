"""Spectrograms computed from a waveform store, against those that `mgc extract` stored for the same files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from commands import mgc
from music import write_clip, write_genres
from sounds import extract_frames
from stores import make_store
from torch import Tensor

from mgc.models.data.split_data import RunInputs
from mgc.models.data.stream import Batching
from mgc.models.data.waveform_view import FrontEndStream, WaveformView
from mgc.models.runs.selection import select_tracks
from mgc.pipeline.extraction import batches
from mgc.pipeline.features import FeatureSpec, Mel, Waveform, parse_feature
from mgc.pipeline.features.variants import parse_variants
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

CPU = torch.device("cpu")
MEL = "mel:n_fft=1024,hop_length=300,n_mels=24,dtype=float32"
#: Block lengths that are no multiple of window or hop; samples as decoded, and quantised.
EXACT, QUANTISED = "waveform:dtype=float32,hop_length=700", "waveform:hop_length=512"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> dict[str, Store]:
    """Stores by feature of twelve clips of 1 to 1.25 s, one at another sample rate, one with NaN samples."""
    root = tmp_path_factory.mktemp("library")
    songs = write_genres(root / "songs", tracks=6)
    sound, rate = soundfile.read(write_clip(root / "clip.wav", 1.1, seed=99))
    soundfile.write(songs / "blues" / "blues00.wav", sound, 32000)
    sound[9000:9010] = np.nan
    soundfile.write(songs / "disco" / "disco00.wav", sound, rate, subtype="FLOAT")
    features = [word for feature in (MEL, EXACT, QUANTISED) for word in ("--feature", feature)]
    options = ("--dataset", songs, "--data-dir", root, "--scheduler", scheduler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BATCH_TRACKS", 3)  # several tracks of a shard, several shards
        outcome = mgc("extract", *options, *features, "--slice", 0.31, "--overlap", 0.4)
    assert outcome.code == 0, outcome.err
    stores = [Store.open(path.parent) for path in (root / "features").glob("songs/*/store.json")]
    by_spec = {store.spec: store for store in stores}
    return {text: by_spec[parse_feature(text)] for text in (MEL, EXACT, QUANTISED)}


def view_of(library: dict[str, Store], source: str = EXACT) -> WaveformView:
    return WaveformView.of(library[source], library[MEL].spec)


def windows(stores: Sequence[Store], slicing: Slicing, frames: int, *, squeeze: bool = False) -> list[tuple]:
    """Frames of the same windows in every store: batches of two epochs of the training split."""
    inputs = RunInputs(select_tracks(stores[0], slicing=slicing), stores, slicing, [frames] * len(stores))
    data = inputs.split("training", Batching(4, CPU, seed=3, squeeze=squeeze))
    assert [isinstance(stream, FrontEndStream) for stream in data.streams] == [False, True]
    assert data.streams[0].bins == data.streams[1].bins
    return [batch.frames for epoch in (0, 1) for batch in data.stream.batches(epoch)]  # type: ignore[misc]


def errors(pairs: Iterable[tuple[Tensor, Tensor]]) -> np.ndarray:
    """Absolute differences in dB of pairs (expected, actual), in bins within 60 dB of their frame's maximum."""
    differences = []
    for expected, actual in pairs:
        assert actual.shape == expected.shape
        assert actual.dtype == torch.float32
        differences.append((actual - expected).abs()[expected >= expected.amax(dim=-1, keepdim=True) - 60])
    return torch.cat(differences).numpy()


def test_the_manifest_counts_frames_of_the_spectrogram(library: dict[str, Store]) -> None:
    view, stored = view_of(library), library[MEL]
    for name in ("track_id", "n_frames", "duration_s", "split"):
        assert view.tracks[name].to_pylist() == stored.tracks[name].to_pylist()
    for name in ("track_id", "start_s", "n_frames", "split"):
        assert view.slices[name].to_pylist() == stored.slices[name].to_pylist()
    read = pa.concat_tables(view.read_slices([0, 1]))
    assert 0 < len(read) == sum(shard < 2 for shard in library[EXACT].slices["shard"].to_pylist()) < len(view.slices)


def test_gaps_contain_those_of_the_stored_frames(library: dict[str, Store]) -> None:
    view, stored = view_of(library), library[MEL]
    ((name, [[first, stop]]),) = [(row["track_id"], row["gaps"]) for row in stored.tracks.to_pylist() if row["gaps"]]
    ((view_name, [[start, end]]),) = [(row["track_id"], row["gaps"]) for row in view.tracks.to_pylist() if row["gaps"]]
    margin = view.block_length // view.spec.hop_length + 1
    assert view_name == name
    assert first - margin <= start <= first
    assert stop <= end <= stop + margin


@pytest.mark.parametrize(
    ("slicing", "frames", "squeeze"),
    [
        (Slicing(seconds=0.31, overlap=0.4), 20, False),  # windows drawn from slices
        (Slicing(seconds=0.31, overlap=0.4), 30, False),  # slices shorter than windows, repeated
        (Slicing(seconds=None, whole=True), 70, False),  # to both ends of a track
        (Slicing(seconds=None, whole=True), 120, False),  # whole tracks, repeated
        (Slicing(seconds=None, whole=True), 33, True),  # whole tracks, frames left out
    ],
)
def test_computed_frames_equal_stored_ones(
    library: dict[str, Store], slicing: Slicing, frames: int, squeeze: bool
) -> None:
    pairs = windows([library[MEL], view_of(library)], slicing, frames, squeeze=squeeze)
    assert len(pairs) > 2
    assert errors(pairs).max() < 1e-3


def test_error_of_frames_from_quantised_samples(library: dict[str, Store]) -> None:
    differences = errors(windows([library[MEL], view_of(library, QUANTISED)], Slicing(seconds=None, whole=True), 70))
    # The clips' noise lies 54 dB above the quantisation noise. The limit, 0.25 dB, is half a step of uint8 levels.
    assert 1e-3 < differences.max() < 0.25
    assert np.sqrt(np.mean(differences**2)) < 0.02


def test_a_slice_length_in_blocks_is_converted_to_frames(library: dict[str, Store], tmp_path: Path) -> None:
    cut = Slicing(seconds=None, frames=128)
    store = make_store(tmp_path / "blocks", Waveform(), cut, tracks={"training": 1}, seconds=(3.0,))
    assert WaveformView.of(store, Mel()).slicing.frames == 128
    assert WaveformView.of(store, Mel(hop_length=604)).slicing.frames == 108  # 127 * 512 samples, and one more frame
    assert view_of(library).slicing == library[EXACT].slicing


def test_variants_are_computed_from_their_own_samples(tmp_path: Path) -> None:
    variants = parse_variants("pitch:+2,noise")
    spec: FeatureSpec = Mel(n_fft=512, hop_length=200, n_mels=16, dtype="float32")
    waveform = Waveform(dtype="float32")
    tracks = {"training": 3, "validation": 3}
    store = make_store(tmp_path / "wave", waveform, Slicing(), tracks=tracks, seconds=(4.3, 4.1), variants=variants)
    view, whole = WaveformView.of(store, spec), Slicing(seconds=None, whole=True)
    slices, labels = select_tracks(store).slices(view, whole, "training", variants=True)
    stream = FrontEndStream(view, slices, labels, 440, Batching(9, CPU))
    ((batch,), rows) = stream.batches(), slices.to_pylist()
    assert len(rows) == 9
    for row, frames in zip(rows, batch.frames, strict=True):
        track = next(track for track in store.tracks.to_pylist() if track["track_id"] == row["track_id"])
        span = next((entry for entry in track["variants"] if entry["variant"] == row["variant"]), track)
        samples = store.read(track["shard"])[span["first_frame"] : span["first_frame"] + span["n_frames"]]
        expected = torch.from_numpy(extract_frames([samples.ravel()], spec.sr, spec))
        crop = (row["n_frames"] - 440) // 2
        assert row["n_frames"] == spec.frames(track["duration_s"])
        assert errors([(expected[crop : crop + 440], frames)]).max() < 1e-3
