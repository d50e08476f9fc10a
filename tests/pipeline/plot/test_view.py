"""How features are shown: ticks stand at the frequencies that they name, values are in the unit that they claim."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest

from mgc.pipeline import pictures
from mgc.pipeline.errors import StoreError
from mgc.pipeline.features import Chroma, FeatureSpec, Mel, Mfcc, PowerSpectrum, Stats, Stft
from mgc.pipeline.plot.view import BinAxis, view_of


def hertz(axis: BinAxis) -> np.ndarray:
    return np.array([float(label.replace(",", "")) for label in axis.tick_labels])


@pytest.mark.parametrize("spec", [Mel(), Mel(n_mels=8), Mel(sr=16000, n_mels=96, fmin=300, fmax=7600)])
def test_ticks_of_mel_bands(spec: Mel) -> None:
    axis = view_of(spec, Path()).axis
    centres = librosa.mel_frequencies(n_mels=spec.n_mels + 2, fmin=spec.fmin, fmax=spec.fmax or spec.sr / 2)
    positions = np.array(axis.ticks)
    # Between two centres the mel scale is nearly linear in Hz.
    assert np.interp(positions + 1, np.arange(len(centres)), centres) == pytest.approx(hertz(axis), rel=0.02)
    assert len(positions) >= 3
    assert np.diff(positions).min() >= 0.045 * spec.n_mels


@pytest.mark.parametrize("spec", [Stft(), PowerSpectrum(sr=8000, n_fft=512), Stft(sr=1000, n_fft=64, hop_length=32)])
def test_ticks_of_the_fourier_transform(spec: Stft) -> None:
    view, frequencies = view_of(spec, Path()), np.fft.rfftfreq(spec.n_fft, 1 / spec.sr)
    for axis in (view.axis, view.curve_axis):
        shown = np.interp(axis.bins, np.arange(spec.bins), frequencies)
        assert np.interp(axis.ticks, np.arange(len(shown)), shown) == pytest.approx(hertz(axis), rel=0.02)
        assert 3 <= len(axis.ticks) <= 14


def test_the_curve_of_a_linear_scale_is_interpolated() -> None:
    axis = view_of(Stft(), Path()).curve_axis
    ramp = np.arange(513.0)[None] * [[1], [-2]]
    assert axis.sample(ramp) == pytest.approx(axis.bins * [[1], [-2]])


def test_power_is_shown_in_db() -> None:
    view = view_of(PowerSpectrum(n_fft=512), Path())
    assert view.values(np.array([[1, 100, 0]], np.float32)) == pytest.approx(np.array([[0, 20, -100]]))
    assert view.limits(np.array([-200.0, 5.0, np.nan])) == (-75, 5)


def test_other_features() -> None:
    mfcc = view_of(Mfcc(), Path())
    assert mfcc.axis.bins.tolist() == list(range(1, 20))
    low, high = mfcc.limits(np.array([-3.0, 2.0]))
    assert (low, mfcc.colours) == (-high, pictures.DIVERGING)
    chroma = view_of(Chroma(), Path())
    assert chroma.axis.tick_labels[:2] == ("C", "C♯")
    assert chroma.limits(np.zeros(3)) == (0, 1)
    assert len(view_of(Chroma(n_chroma=120), Path()).axis.ticks) == 12
    assert chroma.axis.thinned(5).tick_labels == ("C", "D♯", "F♯", "A")


@pytest.mark.parametrize("spec", [Mel(), Mfcc()])
def test_limits_of_what_has_no_range(spec: FeatureSpec) -> None:
    for values in (np.zeros(3), np.array([np.nan])):
        low, high = view_of(spec, Path()).limits(values)
        assert low < high


def test_one_frame_per_track_is_no_spectrogram() -> None:
    with pytest.raises(StoreError, match="one frame per track"):
        view_of(Stats(), Path("store"))
