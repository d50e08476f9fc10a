"""`Transform` against `scipy.fft.rfft` in float64."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft

from mgc.pipeline.dsp.fourier import FFT_SIZES, Transform


def hann(n_fft: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


def transform(signal: np.ndarray, window: np.ndarray, hop: int) -> np.ndarray:
    power = np.empty((1 + (len(signal) - len(window)) // hop, 1 + len(window) // 2), np.float32)
    Transform(window)(signal, hop, power)
    return power


def reference(signal: np.ndarray, window: np.ndarray, hop: int) -> np.ndarray:
    frames = np.lib.stride_tricks.sliding_window_view(signal.astype(np.float64), len(window))[::hop]
    return np.abs(scipy.fft.rfft(frames * window, axis=1)) ** 2


@pytest.mark.parametrize("n_fft", FFT_SIZES)
def test_noise(n_fft):
    signal = np.random.default_rng(n_fft).standard_normal(9 * n_fft).astype(np.float32)
    expected = reference(signal, hann(n_fft), 100)
    assert np.abs(transform(signal, hann(n_fft), 100) - expected).max() < 5e-7 * expected.max()


@pytest.mark.parametrize("n_fft", FFT_SIZES)
def test_a_tone_on_every_bin_is_found_there_and_nowhere_else(n_fft):
    """Without a window, a sine on a bin has power in that bin alone: this checks every twiddle factor."""
    time = np.arange(n_fft)
    for k in range(1 + n_fft // 2):
        tone = np.cos(2 * np.pi * (k * time % n_fft) / n_fft + 0.3).astype(np.float32)
        power = transform(tone, np.ones(n_fft, np.float32), 1)[0]
        expected = (n_fft * np.cos(0.3)) ** 2 if k in (0, n_fft // 2) else n_fft**2 / 4
        assert power[k] == pytest.approx(expected, rel=1e-5)
        power[k] = 0
        assert power.max() < 1e-12 * expected  # -120 dB


@pytest.mark.parametrize("n_fft", FFT_SIZES)
def test_an_impulse_anywhere_has_a_flat_spectrum(n_fft):
    for position in (0, 1, n_fft // 2 + 3, n_fft - 1):
        impulse = np.zeros(n_fft, np.float32)
        impulse[position] = 2
        np.testing.assert_allclose(transform(impulse, np.ones(n_fft, np.float32), 1), 4, rtol=1e-5)


def test_a_frame_has_the_same_bits_alone_and_among_others():
    signal = np.random.default_rng(1).standard_normal(20_000).astype(np.float32)
    together = transform(signal, hann(1024), 512)
    for t in (0, 5, len(together) - 1):
        alone = transform(signal[t * 512 : t * 512 + 1024], hann(1024), 512)
        assert np.array_equal(alone[0], together[t])


def test_silence_has_exactly_zero_power():
    assert not transform(np.zeros(5000, np.float32), hann(2048), 512).any()


def test_a_loud_frame_leaves_nothing_in_the_next_one():
    """Values of one frame in the work arrays must not reach the next frame."""
    signal = np.concatenate([np.full(1024, 1e6), np.zeros(1024)]).astype(np.float32)
    power = transform(signal, hann(1024), 1024)
    assert power[0].any()
    assert not power[1].any()
