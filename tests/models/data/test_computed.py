"""Spectrograms computed of a waveform store, against those that `mgc extract` has stored of the same files."""

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
from sounds import analysed
from stores import make_store
from torch import Tensor

from mgc.models.data.computed import FrontEndStream, WaveformView
from mgc.models.data.parts import open_part
from mgc.models.runs.selection import select_tracks
from mgc.pipeline.extraction import planning
from mgc.pipeline.features import FeatureSpec, Mel, Waveform, parse_feature
from mgc.pipeline.features.variants import parse_variants
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

CPU = torch.device("cpu")
MEL = "mel:n_fft=1024,hop_length=300,n_mels=24,dtype=float32"
#: Blocks that no window or hop is a multiple of; the samples as they are, and rounded.
EXACT, ROUNDED = "waveform:dtype=float32,hop_length=700", "waveform:hop_length=512"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> dict[str, Store]:
    """Twelve clips of 1 to 1.25 s, one at another rate, one with samples that are no numbers; by feature."""
    root = tmp_path_factory.mktemp("library")
    songs = write_genres(root / "songs", tracks=6)
    sound, rate = soundfile.read(write_clip(root / "clip.wav", 1.1, seed=99))
    soundfile.write(songs / "blues" / "blues00.wav", sound, 32000)
    sound[9000:9010] = np.nan
    soundfile.write(songs / "disco" / "disco00.wav", sound, rate, subtype="FLOAT")
    features = [word for feature in (MEL, EXACT, ROUNDED) for word in ("--feature", feature)]
    where = ("--dataset", songs, "--data-dir", root, "--scheduler", scheduler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "DEAL_TRACKS", 3)  # several tracks of a shard, several shards
        outcome = mgc("extract", *where, *features, "--slice", 0.31, "--overlap", 0.4)
    assert outcome.code == 0, outcome.err
    stores = [Store.open(path.parent) for path in (root / "features").glob("songs/*/store.json")]
    by_spec = {store.spec: store for store in stores}
    return {text: by_spec[parse_feature(text)] for text in (MEL, EXACT, ROUNDED)}


def computed(library: dict[str, Store], source: str = EXACT) -> WaveformView:
    return WaveformView.of(library[source], library[MEL].spec)


def windows(stores: Sequence[Store], slicing: Slicing, frames: int, *, squeeze: bool = False) -> list[tuple]:
    """The same windows of two epochs of the training split in every store: frames of each."""
    part = open_part(
        select_tracks(stores[0], slicing=slicing), stores, slicing, "training",
        frames=[frames] * len(stores), batch_size=4, device=CPU, seed=3, squeeze=squeeze,
    )  # fmt: skip
    assert [isinstance(stream, FrontEndStream) for stream in part.streams] == [False, True]
    assert part.streams[0].bins == part.streams[1].bins
    return [batch.frames for epoch in (0, 1) for batch in part.stream.batches(epoch)]  # type: ignore[misc]


def errors(pairs: Iterable[tuple[Tensor, Tensor]]) -> np.ndarray:
    """dB by which levels differ from others, in bins within 60 dB of their frame's maximum."""
    found = []
    for other, one in pairs:
        assert one.shape == other.shape
        assert one.dtype == torch.float32
        found.append((one - other).abs()[other >= other.amax(dim=-1, keepdim=True) - 60])
    return torch.cat(found).numpy()


def test_the_manifest_is_told_in_frames_of_the_spectrogram(library: dict[str, Store]) -> None:
    view, stored = computed(library), library[MEL]
    for name in ("track_id", "n_frames", "duration_s", "split"):
        assert view.tracks[name].to_pylist() == stored.tracks[name].to_pylist()
    for name in ("track_id", "start_s", "n_frames", "split"):
        assert view.slices[name].to_pylist() == stored.slices[name].to_pylist()
    some = pa.concat_tables(view.read_slices([0, 1]))
    assert 0 < len(some) == sum(shard < 2 for shard in library[EXACT].slices["shard"].to_pylist()) < len(view.slices)


def test_gaps_take_in_those_of_the_stored_frames(library: dict[str, Store]) -> None:
    view, stored = computed(library), library[MEL]
    ((name, [[first, stop]]),) = [(row["track_id"], row["gaps"]) for row in stored.tracks.to_pylist() if row["gaps"]]
    ((found, [[start, end]]),) = [(row["track_id"], row["gaps"]) for row in view.tracks.to_pylist() if row["gaps"]]
    around = view.block // view.spec.hop_length + 1
    assert found == name
    assert first - around <= start <= first
    assert stop <= end <= stop + around


@pytest.mark.parametrize(
    ("slicing", "frames", "squeeze"),
    [
        (Slicing(seconds=0.31, overlap=0.4), 20, False),  # drawn from slices
        (Slicing(seconds=0.31, overlap=0.4), 30, False),  # slices shorter than windows, repeated
        (Slicing(seconds=None, whole=True), 70, False),  # to both ends of a track
        (Slicing(seconds=None, whole=True), 120, False),  # whole tracks, repeated
        (Slicing(seconds=None, whole=True), 33, True),  # whole tracks, frames left out
    ],
)
def test_slices_show_the_frames_that_are_stored(
    library: dict[str, Store], slicing: Slicing, frames: int, squeeze: bool
) -> None:
    pairs = windows([library[MEL], computed(library)], slicing, frames, squeeze=squeeze)
    assert len(pairs) > 2
    assert errors(pairs).max() < 1e-3


def test_rounded_samples_are_another_matter(library: dict[str, Store]) -> None:
    off = errors(windows([library[MEL], computed(library, ROUNDED)], Slicing(seconds=None, whole=True), 70))
    # Noise of the samples 54 dB above that of rounding: half a step of uint8, 0.25 dB, is the yardstick.
    assert 1e-3 < off.max() < 0.25
    assert np.sqrt(np.mean(off**2)) < 0.02


def test_a_length_in_blocks_becomes_one_of_the_same_seconds(library: dict[str, Store], tmp_path: Path) -> None:
    cut = Slicing(seconds=None, frames=128)
    store = make_store(tmp_path / "blocks", Waveform(), cut, tracks={"training": 1}, seconds=(3.0,))
    assert WaveformView.of(store, Mel()).slicing.frames == 128
    assert WaveformView.of(store, Mel(hop_length=604)).slicing.frames == 108  # 127 * 512 samples, and one more frame
    assert computed(library).slicing == library[EXACT].slicing


def test_variants_are_computed_of_their_own_samples(tmp_path: Path) -> None:
    variants = parse_variants("pitch:+2,noise")
    spec: FeatureSpec = Mel(n_fft=512, hop_length=200, n_mels=16, dtype="float32")
    waveform = Waveform(dtype="float32")
    tracks = {"training": 3, "validation": 3}
    store = make_store(tmp_path / "wave", waveform, Slicing(), tracks=tracks, seconds=(4.3, 4.1), variants=variants)
    view, whole = WaveformView.of(store, spec), Slicing(seconds=None, whole=True)
    slices, labels = select_tracks(store).slices(view, whole, "training", variants=True)
    stream = FrontEndStream(view, slices, labels, frames=440, batch_size=9, device=CPU)
    ((batch,), rows) = stream.batches(), slices.to_pylist()
    assert len(rows) == 9
    for row, shown in zip(rows, batch.frames, strict=True):
        track = next(track for track in store.tracks.to_pylist() if track["track_id"] == row["track_id"])
        where = next((made for made in track["variants"] if made["variant"] == row["variant"]), track)
        samples = store.read(track["shard"])[where["first_frame"] : where["first_frame"] + where["n_frames"]]
        expected = torch.from_numpy(analysed([samples.ravel()], spec.sr, spec))
        crop = (row["n_frames"] - 440) // 2
        assert row["n_frames"] == spec.frames(track["duration_s"])
        assert errors([(expected[crop : crop + 440], shown)]).max() < 1e-3
