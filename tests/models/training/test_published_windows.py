"""Windows of each study's networks, read from stores with another slicing: their number, length and position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from stores import frames_of, make_store
from torch import nn

from mgc.models.data import adapters
from mgc.models.data.split_data import RunInputs, SplitData
from mgc.models.data.stream import Batching
from mgc.models.registry import recipes, systems
from mgc.models.registry.systems import System
from mgc.models.runs.selection import select_tracks
from mgc.models.training.predict import predict
from mgc.models.training.train import Options, train
from mgc.pipeline.errors import ModelError, StoreError
from mgc.pipeline.features import Chroma, FeatureSpec, Harmonic, Mel, Mfcc, PowerSpectrum, Stft
from mgc.pipeline.store.recut import reslice
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

#: Duration of a clip of FMA-small and of GTZAN, in seconds.
FMA, GTZAN = 29.976, 30.0
TRACKS = {"training": 3, "validation": 3}
CPU = torch.device("cpu")

#: By study: duration of a clip and starts of its slices in seconds, frames of a slice, and frames that a network sees.
SLICED = {
    "xu2022": (FMA, range(0, 26, 2), 345, 345),  # 13 slices of 4 s, half overlapping
    "kth2020": (FMA, [15.5], 128, 128),  # 3.5 s from 15.5 s on
    "ubc2020": (FMA, [0], 640, 640),  # the first 640 frames
    "vit2021": (GTZAN, range(0, 30, 3), 130, 130),  # 10 segments of 3 s
    "ref": (FMA, [0], 1440, 1440),  # nearly all of it
}
UNSLICED = ("xu2022/alexnet", "xu2022/googlenet")
CLASSICAL = ("xu2022/knn", "xu2022/logreg", "xu2022/mlp", "xu2022/svm")
CUT = [id for id in recipes.recipe_files() if id.partition("/")[0] in SLICED and id not in (*UNSLICED, *CLASSICAL)]


def stores_of(system: System, root: Path, seconds: float) -> list[Store]:
    """A store for each input, with the features of the recipe and the default slicing."""
    torch.set_num_threads(1)
    specs = [system.recipe.features, *system.recipe.further]
    return [
        make_store(root / spec.name, spec, Slicing(), tracks=TRACKS, seconds=(seconds,), root=root) for spec in specs
    ]


def windows_of(system: System, stores: list[Store], frames: tuple[int, ...], seed: int | None = None) -> SplitData:
    slicing = system.recipe.slicing
    selection = select_tracks(stores[0], stores[1:], slicing=slicing)
    batching = Batching(8, CPU, seed=seed, squeeze=system.squeezes(slicing))
    return RunInputs(selection, stores, slicing, frames).split("training", batching)


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> dict[FeatureSpec, list[Store]]:
    """Stores by feature, so that systems of the same feature share them."""
    return {}


@pytest.mark.parametrize("id", CUT)
def test_slices_are_as_many_as_long_and_where_the_study_has_them(
    id: str, cached: dict, tmp_path_factory: pytest.TempPathFactory
) -> None:
    system = systems.get(id)
    seconds, starts, length, window = SLICED[system.study]
    key = system.recipe.features, seconds
    if key not in cached:
        cached[key] = stores_of(system, tmp_path_factory.mktemp("stores"), seconds)
    (store,) = cached[key]
    part = windows_of(system, [store], (window,))
    rows = part.slices.to_pylist()
    begins = {row["track_id"]: row["first_frame"] for row in store.tracks.to_pylist()}
    rate = system.recipe.features.frame_rate
    for track in ("training-000", "training-002"):
        slices = [row for row in rows if row["track_id"] == track]
        assert [row["start_s"] for row in slices] == pytest.approx(list(starts))
        assert {row["n_frames"] for row in slices} == {length}
        first = [row["first_frame"] - begins[track] for row in slices]
        assert first == [int(start * rate + 1e-9) for start in starts]
    batch = next(iter(part.stream.batches()))
    track, first = rows[0]["track_id"], rows[0]["first_frame"] - begins[rows[0]["track_id"]]
    np.testing.assert_array_equal(batch.frames[0].numpy(), frames_of(store, track)[first : first + window])
    shown = adapters.adapter(system.input, store.spec)(batch.frames)
    assert shown.shape[1:] == system.input.shape


@pytest.mark.parametrize("id", UNSLICED)
def test_a_whole_clip_is_squeezed_into_one_picture(id: str, tmp_path: Path) -> None:
    system = systems.get(id)
    (store,) = stores_of(system, tmp_path, FMA)
    part = windows_of(system, [store], (2582,))
    assert part.slices["n_frames"].to_pylist() == [2582] * 3
    (batch,) = part.stream.batches()
    np.testing.assert_array_equal(batch.frames[0].numpy(), frames_of(store, "training-000"))
    assert adapters.adapter(system.input, store.spec)(batch.frames).shape == (3, 3, 224, 224)


def test_clips_of_other_lengths_are_squeezed_as_well(tmp_path: Path) -> None:
    system = systems.get("xu2022/alexnet")
    spec = Stft(n_fft=512)
    store = make_store(tmp_path / "a", spec, Slicing(), tracks=TRACKS, seconds=(6.0, 9.0, 4.5))
    window = spec.frames(6.0)
    part = windows_of(system, [store], (window,))
    (batch,) = part.stream.batches()
    for row, track in enumerate(("training-000", "training-001", "training-002")):
        whole = frames_of(store, track)
        evenly = np.floor(np.arange(window) * len(whole) / window).astype(int)
        np.testing.assert_array_equal(batch.frames[row].numpy(), whole[evenly])
    assert part.stream.n_repeated == 0


@pytest.mark.parametrize("name", ["cnn1d", "cnn2d-mel", "cnn2d-mfcc", "late-fusion"])
def test_excerpts_of_padova_are_drawn_anew_in_training_and_from_the_centre_otherwise(name: str, tmp_path: Path) -> None:
    system = systems.get(f"padova2023/{name}")
    stores = stores_of(system, tmp_path, FMA)
    frames = tuple(needs.frames or 0 for needs in system.inputs)
    excerpt = 2**18 / 44100  # seconds
    for store, window in zip(stores, frames, strict=True):
        assert window / store.spec.frame_rate == pytest.approx(excerpt)
    training = windows_of(system, stores, frames, seed=0)
    lead, rate = training.streams[0], stores[0].spec.frame_rate
    starts = np.stack([lead.order(epoch).crops for epoch in range(200)]) / rate
    assert starts.min() < 0.5
    assert FMA - excerpt - 0.5 < starts.max() <= FMA - excerpt
    assert len(np.unique(starts)) > 200
    centred = windows_of(system, stores, frames)
    assert centred.streams[0].order(0).crops / rate == pytest.approx((FMA - excerpt) / 2, abs=0.03)
    (batch,) = centred.stream.batches()
    parts = (batch.frames,) if isinstance(batch.frames, torch.Tensor) else batch.frames
    for needs, store, part in zip(system.inputs, stores, parts, strict=True):
        assert adapters.adapter(needs, store.spec)(part).shape == (3, *needs.shape)


# -- whole tracks ------------------------------------------------------------------------------------------------------


def thumbnails(n_classes: int) -> nn.Module:
    """A network for pictures that trains in a second."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 16, stride=16), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, n_classes)
    )


THUMBNAILS = System(
    "test/thumbnails",
    "neural",
    systems.get("xu2022/alexnet").input,
    thumbnails,
    recipes.recipe_files()["xu2022/alexnet"],
)


@pytest.fixture
def uneven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of whole tracks of 6, 9 and 4.5 s."""
    monkeypatch.setitem(systems._systems, THUMBNAILS.id, THUMBNAILS)
    whole = Slicing(seconds=None, whole=True)
    tracks = {"training": 6, "validation": 3, "test": 6}
    spec = Stft(n_fft=256, hop_length=256)
    return make_store(tmp_path / "store", spec, whole, seconds=(6.0, 9.0, 4.5), genres=("Folk", "Rock"), tracks=tracks)


def test_tracks_of_other_lengths_are_trained_and_tested_on_together(uneven: Store, tmp_path: Path) -> None:
    lines: list[str] = []
    options = Options(THUMBNAILS.id, epochs=3, batch_size=4, lr=3e-3)
    run = train([uneven], options, tmp_path / "runs", echo=lines.append)
    assert run.frames == uneven.spec.frames(6.0)
    assert not any("repeated" in line for line in lines)
    assert run.history[-1]["validation_accuracy"] == 1.0
    alone, together = (predict(run, batch_size=size) for size in (1, 6))
    assert alone["track_id"].to_pylist() == [f"test-{i:03d}" for i in range(6)]
    probabilities, expected = (np.stack(table["probabilities"].to_numpy()) for table in (alone, together))
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_a_network_without_pictures_reads_a_part_of_whole_tracks(uneven: Store) -> None:
    assert THUMBNAILS.squeezes(uneven.slicing)
    assert not THUMBNAILS.squeezes(Slicing())
    assert not systems.get("padova2023/cnn2d-mel").squeezes(uneven.slicing)


def test_tracks_too_short_for_any_slice(uneven: Store, tmp_path: Path) -> None:
    reslice(uneven, Slicing(seconds=8.0))
    store = Store.open(uneven.path)  # now every third track
    train([store], Options(THUMBNAILS.id, epochs=1), tmp_path / "runs", echo=lambda text: None)
    sliced = Options("xu2022/mobilenet-v2", as_sliced=True, epochs=1)
    tiny = make_store(tmp_path / "tiny", Stft(n_fft=512), Slicing(seconds=1.0), seconds=(3.0,))
    with pytest.raises(StoreError, match=r"tiny: no track holds slices of 4 s, 50% overlap; cut shorter ones"):
        train([tiny], sliced, tmp_path / "runs")
    short = make_store(tmp_path / "short", Mel(hop_length=604), Slicing(seconds=None, whole=True), seconds=(2.0,))
    with pytest.raises(ModelError, match=r"kth2020/cnn needs slices of at least 128 frames, .* have 74; extract"):
        train([short], Options("kth2020/cnn", epochs=1), tmp_path / "runs")


@pytest.mark.parametrize(
    "spec", [PowerSpectrum(n_fft=512), Chroma(n_fft=512), Mfcc(n_fft=512), Harmonic(n_fft=512)], ids=lambda s: s.name
)
def test_other_features_are_pictures_too(spec: FeatureSpec, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", spec, Slicing(seconds=None, whole=True), tracks=TRACKS, seconds=(2.5, 1.5))
    window = spec.frames(2.5)
    inputs = RunInputs(select_tracks(store), [store], store.slicing, [window])
    part = inputs.split("training", Batching(3, CPU, squeeze=True))
    (batch,) = part.stream.batches()
    pictures = adapters.adapter(THUMBNAILS.input, spec)(batch.frames)
    assert pictures.shape == (3, 3, 224, 224)
    assert (pictures.std(dim=(2, 3)) > 0.1).all()  # not blank
