"""Fit of stores to systems: windows, differences from the study, and errors with their remedies."""

import dataclasses

import pytest
import torch

from mgc.models.data.fit import Fit, check_fit
from mgc.models.registry import systems
from mgc.pipeline.errors import ModelError
from mgc.pipeline.features import Chroma, Embedding, FeatureSpec, Mel, Mfcc, Stft, Waveform
from mgc.pipeline.store.slicing import Slicing

DEFAULT = Slicing()  # 4 s, half overlapping


def fit(id: str, spec: FeatureSpec, slicing: Slicing = DEFAULT, slice_frames: int | None = None) -> Fit:
    system = systems.get(id)
    length = slice_frames or slicing.n_frames(spec) or 2582
    return check_fit(system, [spec], slicing, [length], ["features/a/b"])


@pytest.mark.parametrize("id", [system.id for system in systems.systems() if system.kind != "ensemble"])
def test_a_study_does_not_differ_from_itself(id: str) -> None:
    system = systems.get(id)
    specs = [_embedded(system.recipe.features, system.recipe.embedding), *system.recipe.further]
    lengths = [system.recipe.slicing.n_frames(spec) or (spec.frames(31) if spec.frame_rate else 1) for spec in specs]
    assert check_fit(system, specs, system.recipe.slicing, lengths, ["a"] * len(specs)).differences == ()


def _embedded(spec: FeatureSpec, network: str) -> FeatureSpec:
    """What a probe reads of the feature of its recipe."""
    if not network:
        return spec
    return Embedding(network, "penultimate", 400, of=spec.as_option(), window=47_872, hop_length=47_872, pool="track")


@pytest.mark.parametrize(
    ("spec", "frames"), [(Stft(), 345), (Mel(), 172), (Mfcc(), 172)], ids=lambda value: getattr(value, "name", value)
)
def test_default_models_fit_default_stores(spec: FeatureSpec, frames: int | None) -> None:
    assert fit(systems.default_model(spec.name, spec.bins), spec).frames == (frames,)


def test_differences_name_the_setting_used_and_the_studys() -> None:
    assert fit("kth2020/cnn", Mel()).differences == (
        "hop 512 for 604",
        "slices of 4 s, 50% overlap for slices of 3.5 s, 0% overlap, from 15.5 s on, at most 1 a track (all)",
    )
    differences = fit("xu2022/mobilenet", Stft(sr=22050, n_fft=2048, hop_length=256)).differences
    assert differences == ("rate 22050 for 44100", "n_fft 2048 for 1024", "hop 256 for 512")


def test_the_dtype_is_no_difference() -> None:
    assert fit("xu2022/mobilenet", Stft(dtype="float32")).differences == ()


def test_an_explicit_limit_at_half_the_rate_is_no_difference() -> None:
    study = systems.get("vit2021/cnn").recipe
    explicit = dataclasses.replace(study.features, fmax=11025.0)
    assert fit("vit2021/cnn", explicit, study.slicing).differences == ()
    lower = dataclasses.replace(study.features, fmax=8000.0)
    assert fit("vit2021/cnn", lower, study.slicing).differences == ("fmax 8000 for 11025",)


def test_another_feature_is_a_difference() -> None:
    study = systems.get("xu2022/resnext101-32x8d").recipe
    assert fit("xu2022/resnext101-32x8d", Chroma(sr=44100, n_fft=1024), study.slicing).differences == (
        "chroma for stft",
    )


AUDIO, MEL = Waveform(), Mel(sr=44100, n_fft=1024)


@pytest.mark.parametrize(
    ("seconds", "specs", "frames"),
    [
        (6.0, [AUDIO, MEL], (256, 512)),  # as in the study: 5.944 s of both
        (4.0, [AUDIO, MEL], (172, 345)),  # 4.005 s: the last of 173 blocks would extend beyond the 345 frames
        (6.0, [AUDIO, Mel()], (256, 256)),
        (6.0, [Waveform(sr=16000), MEL], (185, 512)),
    ],
)
def test_windows_of_several_inputs_have_one_duration(
    seconds: float, specs: list[FeatureSpec], frames: tuple[int, ...]
) -> None:
    slicing = Slicing(seconds=seconds)
    fusion = systems.get("padova2023/late-fusion")
    lengths = [slicing.n_frames(spec) or 0 for spec in specs]
    assert check_fit(fusion, specs, slicing, lengths, ["a", "b"]).frames == frames
    module = fusion.build(3).eval()
    assert module(torch.zeros(1, 1, frames[0] * 512), torch.zeros(1, 1, 20, frames[1])).shape == (1, 3)


def test_differences_of_several_inputs_name_the_input() -> None:
    slicing = Slicing(seconds=6.0)
    fusion = systems.get("padova2023/late-fusion")
    assert check_fit(fusion, [AUDIO, Mel()], slicing, [259, 259], ["a", "b"]).differences == (
        "mel: rate 22050 for 44100",
        "mel: n_fft 2048 for 1024",
        "mel: fmax 11025 for 22050",
        "mel: frames 256 for 512",
        "slices of 6 s, 50% overlap for whole tracks",
    )


def test_stored_mfccs_lack_the_floor() -> None:
    study = systems.get("vit2021/cnn").recipe
    assert fit("vit2021/cnn", Mfcc(), study.slicing).differences == (
        "MFCCs without a floor 80 dB below each slice's maximum",
    )


def test_fewer_frames_than_the_studys_where_the_pools_allow() -> None:
    spec = Mel(sr=44100, n_fft=1024)
    short = fit("padova2023/cnn2d-mel", spec)
    assert short.frames == (345,)
    assert "frames 345 for 512" in short.differences
    assert fit("padova2023/cnn2d-mel", spec, slice_frames=600).frames == (512,)


def test_pictures_take_any_number_of_frames() -> None:
    assert fit("xu2022/mobilenet", Stft(), slice_frames=1).frames == (None,)


@pytest.mark.parametrize(
    ("id", "spec", "slice_frames", "message"),
    [
        ("kth2020/cnn", Stft(), 345, "kth2020/cnn needs mel features.*holds stft.*`mgc extract --feature mel`"),
        ("vit2021/cnn", Stft(), 345, "needs mel or mfcc features.*`mgc extract --feature mel`"),
        ("xu2022/mobilenet", Waveform(), 173, "needs stft or power or chroma.*`mgc extract --feature stft`"),
        ("kth2020/cnn", Mel(n_mels=64), 173, "needs 128 bands.*has 64.*`mgc extract --feature mel:n_mels=128`"),
        ("vit2021/cnn", Mfcc(n_mfcc=12), 173, "needs 13 MFCCs.*has 12.*`mgc extract --feature mfcc:n_mfcc=13`"),
        ("vit2021/cnn", Mel(n_mels=12), 173, "needs 13 MFCCs.*has 12.*`mgc extract --feature mel:n_mels=128`"),
        ("padova2023/cnn1d", Waveform(hop_length=64), 300, "512 samples a frame.*has 64.*waveform:hop_length=512`"),
        ("padova2023/cnn1d", Waveform(), 3, "at least 4 frames.*`mgc slice features/a/b --frames 256`"),
        ("kth2020/cnn", Mel(), 127, "at least 128 frames.*have 127.*`mgc slice features/a/b --frames 128`"),
        ("padova2023/cnn2d-mel", Mel(), 255, "at least 256 frames.*`mgc slice features/a/b --frames 512`"),
    ],
)
def test_an_error_names_the_command_that_solves_it(id: str, spec: FeatureSpec, slice_frames: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        fit(id, spec, slice_frames=slice_frames)
