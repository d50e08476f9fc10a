"""Input adapters against NumPy, librosa and Pillow."""

import librosa
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from mgc.models.data.adapters import (
    Cepstrum,
    FirstCoefficients,
    JoinBlocks,
    MelBands,
    Moments,
    Picture,
    RelativeDecibels,
    adapter,
)
from mgc.models.registry import systems
from mgc.pipeline.features import FEATURES, Embedding, FeatureSpec

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def slices() -> np.ndarray:
    """Three 3 s slices at 22,050 Hz: noise; a chord that decays below the floor; noise, then digital silence."""
    rng = np.random.default_rng(0)
    t = np.arange(66150) / 22050
    noise = 0.1 * rng.standard_normal(66150)
    chord = sum(np.sin(2 * np.pi * f * t) for f in (220, 277, 330)) / 3 * np.exp(-6 * t)
    return np.stack([noise, chord, np.where(t < 1.5, noise, 0)]).astype(np.float32)


def log_mel(slices: np.ndarray) -> torch.Tensor:
    power = librosa.feature.melspectrogram(y=slices, sr=22050, n_fft=2048, hop_length=512)
    return torch.from_numpy(librosa.power_to_db(power, ref=1.0, top_db=None)).transpose(1, 2)


INPUTS = list(dict.fromkeys(input_spec for system in systems.systems() for input_spec in system.inputs))
PAIRS = [(input_spec, feature) for input_spec in INPUTS for feature in input_spec.features]


def spec_for(input_spec: systems.InputSpec, feature: str) -> FeatureSpec:
    """The feature with its defaults, and the number of bands that the input requires."""
    if feature == Embedding.name:
        return Embedding(width=5, window=16_000, hop_length=16_000, of="mel", pool="track")
    is_exact = input_spec.bands is not None and input_spec.adapter in ("relative", "absolute", "log-power")
    return FEATURES[feature](n_mels=input_spec.bands) if is_exact else FEATURES[feature]()


@pytest.mark.parametrize(("input_spec", "feature"), PAIRS)
def test_every_system_gets_the_shape_it_declares(input_spec: systems.InputSpec, feature: str) -> None:
    spec = spec_for(input_spec, feature)
    db = torch.randn(2, input_spec.frames or 345, spec.bins)
    _, *sizes = adapter(input_spec, spec)(db).shape
    assert len(sizes) == len(input_spec.shape)
    assert all(declared in (None, size) for declared, size in zip(input_spec.shape, sizes, strict=True))


@pytest.mark.parametrize(("input_spec", "feature"), PAIRS)
@pytest.mark.parametrize("level", [-100.0, 0.0, 20.0])
def test_slices_of_one_level_are_finite(input_spec: systems.InputSpec, feature: str, level: float) -> None:
    spec = spec_for(input_spec, feature)
    db = torch.full((2, input_spec.frames or 345, spec.bins), level)
    assert adapter(input_spec, spec)(db).isfinite().all()


def test_relative_decibels_equal_librosas_ref_max(slices: np.ndarray) -> None:
    power = librosa.feature.melspectrogram(y=slices, sr=22050)
    expected = [librosa.power_to_db(each, ref=np.max, top_db=80) for each in power]
    db = RelativeDecibels()(log_mel(slices)).transpose(1, 2)
    np.testing.assert_allclose(db.numpy(), np.stack(expected), atol=1e-4)


@pytest.mark.parametrize(("sr", "n_fft"), [(44100, 1024), (22050, 2048)])
def test_mel_bands_of_an_stft_are_librosas_up_to_a_constant_a_band(slices: np.ndarray, sr: int, n_fft: int) -> None:
    magnitude = np.abs(librosa.stft(slices, n_fft=n_fft, hop_length=512))
    db = torch.from_numpy(librosa.amplitude_to_db(magnitude, ref=1.0, top_db=None)).transpose(1, 2)
    module = MelBands(sr, n_fft, 128)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bands = module(db).numpy()
    bank = librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=128)
    expected = librosa.power_to_db(bank @ magnitude**2, top_db=None).swapaxes(1, 2) - 10 * np.log10(bank.sum(axis=1))
    np.testing.assert_allclose(bands[:1], expected[:1], atol=0.01)  # noise, far above the floor
    flat = module(torch.full((1, 3, 1 + n_fft // 2), -20.0))
    torch.testing.assert_close(flat, torch.full((1, 3, 128), -20.0), atol=1e-3, rtol=0)


def test_mel_bands_without_a_frequency_repeat_the_nearest() -> None:
    bank = librosa.filters.mel(sr=44100, n_fft=256, n_mels=128)
    empty = np.flatnonzero(~bank.any(axis=1))
    assert len(empty) > 10
    levels = MelBands(44100, 256, 128)(torch.randn(1, 4, 129) * 10)[0].numpy().T
    filled = np.flatnonzero(bank.any(axis=1))
    for band in empty:
        distances = np.abs(filled - band)
        assert any(np.array_equal(levels[band], levels[k]) for k in filled[distances == distances.min()])


@pytest.mark.parametrize(("n_mels", "n_mfcc"), [(128, 13), (128, 20), (40, 40)])
def test_cepstrum_equals_librosas_mfcc_of_the_slice(slices: np.ndarray, n_mels: int, n_mfcc: int) -> None:
    settings = {"sr": 22050, "n_fft": 2048, "hop_length": 512, "n_mels": n_mels}
    expected = [librosa.feature.mfcc(y=each, n_mfcc=n_mfcc, **settings) for each in slices]
    power = librosa.feature.melspectrogram(y=slices, **settings)
    db = torch.from_numpy(librosa.power_to_db(power, ref=1.0, top_db=None)).transpose(1, 2)
    mfcc = Cepstrum(n_mels, n_mfcc)(db).transpose(1, 2)
    np.testing.assert_allclose(mfcc.numpy(), np.stack(expected), atol=1e-3)


def test_cepstrum_keeps_its_precision_under_autocast(slices: np.ndarray) -> None:
    cepstrum, db = Cepstrum(128, 13), log_mel(slices)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mfcc = cepstrum(db)
    assert torch.equal(mfcc, cepstrum(db))


def test_stored_mfccs_lack_only_the_floor(slices: np.ndarray) -> None:
    noise = log_mel(slices[:1])  # no level in it is 80 dB below its maximum
    stored = torch.from_numpy(librosa.feature.mfcc(S=noise[0].T.numpy(), n_mfcc=20)).T[None]
    torch.testing.assert_close(FirstCoefficients(13)(stored), Cepstrum(128, 13)(noise), atol=1e-3, rtol=0)


def moments_by_scipy(x: np.ndarray) -> np.ndarray:
    """Moments of `(frames, bins)`, in the order of FMA's features.csv."""
    x = x.astype(np.float64)
    functions = (stats.kurtosis, np.max, np.mean, np.median, np.min, stats.skew, np.std)
    return np.concatenate([function(x, axis=0) for function in functions])


@pytest.mark.parametrize("n", [1, 3, 172, 173])
def test_moments_equal_scipys(n: int) -> None:
    rng = np.random.default_rng(n)
    x = (rng.gamma(2.0, 9.0, (2, n, 5)) - [0, 80, 300, 0, 0]).astype(np.float32)
    x[:, :, 4] = -412.7  # constant
    moments = Moments()(torch.from_numpy(x)).numpy().reshape(2, 7, 5)
    expected = np.nan_to_num([moments_by_scipy(each) for each in x[:, :, :4]])  # SciPy gives NaN for a single frame
    np.testing.assert_allclose(moments[:, :, :4], expected.reshape(2, 7, 4), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(moments[:, :, 4], [[0, -412.7, -412.7, -412.7, -412.7, 0, 0]] * 2, atol=1e-4)


@pytest.mark.parametrize(("feature", "width"), [("mel", 20), ("mfcc", 20), ("chroma", 12)])
def test_moments_of_20_mfccs_or_of_the_pitch_classes(feature: str, width: int, slices: np.ndarray) -> None:
    spec = FEATURES[feature]()
    if feature == "mel":
        frames = log_mel(slices)
        series = librosa.feature.mfcc(y=slices[0], sr=22050, n_fft=2048, hop_length=512, n_mfcc=20).T
    else:
        frames = torch.from_numpy(np.random.default_rng(0).random((3, 50, spec.bins), np.float32))
        series = frames[0, :, :width].numpy()
    moments = adapter(systems.get("moments/knn").input, spec)(frames)
    assert moments.shape == (3, 7 * width)
    np.testing.assert_allclose(moments[0].numpy(), moments_by_scipy(series), rtol=1e-3, atol=1e-3)


def test_blocks_are_joined_in_the_order_of_time() -> None:
    signal = torch.linspace(-1, 1, 3 * 512)
    assert torch.equal(JoinBlocks()(signal.view(1, 3, 512)), signal[None, None])


def picture_by_pillow(db: np.ndarray, size: int) -> np.ndarray:
    db = np.maximum(db - db.max(), -80)
    grey = (db - db.min()) / (db.max() - db.min())
    resized = np.asarray(
        Image.fromarray(grey.T[::-1].astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
    )
    return (resized[None] - MEAN[:, None, None]) / STD[:, None, None]


@pytest.mark.parametrize("shape", [(345, 513), (2582, 513), (60, 100)])
def test_picture_equals_pillows_antialiased_resize(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    db = rng.uniform(-100, 20, (2, *shape)).astype(np.float32)
    picture = Picture(224)(torch.from_numpy(db)).numpy()
    np.testing.assert_allclose(picture, np.stack([picture_by_pillow(each, 224) for each in db]), atol=1e-4)


def grey(picture: torch.Tensor) -> torch.Tensor:
    """Grey values in [0, 1] of pictures `(batch, 3, height, width)`, whose three channels must be equal."""
    values = picture * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    torch.testing.assert_close(values[:, :1].expand_as(values), values)
    return values[:, 0].float()


def test_picture_has_low_frequencies_at_the_bottom_and_time_to_the_right() -> None:
    db = torch.full((1, 345, 513), -100.0)
    db[0, 300:, :20] = 0.0
    picture = grey(Picture(64)(db))[0]
    rows, columns = torch.nonzero(picture > 0.5, as_tuple=True)
    assert rows.min() >= 61
    assert columns.min() >= 55


def test_picture_does_not_depend_on_the_level_and_spans_the_range() -> None:
    db = torch.rand(2, 64, 64) * 100 - 90
    picture = grey(Picture(64)(db))
    torch.testing.assert_close(grey(Picture(64)(db - 30)), picture, atol=1e-5, rtol=0)
    assert picture.amin(dim=(1, 2)).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert picture.amax(dim=(1, 2)).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_picture_of_silence_is_black() -> None:
    assert grey(Picture(64)(torch.full((1, 345, 513), -72.0))).abs().max() < 1e-6


def test_slices_of_a_batch_do_not_affect_each_other(slices: np.ndarray) -> None:
    db = log_mel(slices)
    for module in (RelativeDecibels(), Cepstrum(128, 13), Moments(), Picture(64)):
        torch.testing.assert_close(module(db)[1:2], module(db[1:2]))
