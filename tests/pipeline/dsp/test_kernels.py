"""The compiled loops against the same computations in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from mgc.pipeline.dsp import kernels


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def test_the_mix_of_two_channels_is_their_mean():
    block = noise(1001, 2)
    mono = np.empty(1001, np.float32)
    kernels.mix_stereo(block.reshape(-1), mono)
    assert np.array_equal(mono, block.mean(axis=1, dtype=np.float64).astype(np.float32))


def test_a_non_finite_sample_in_one_channel_is_non_finite_in_the_mix():
    mono = np.empty(3, np.float32)
    kernels.mix_stereo(np.array([np.nan, 0, np.inf, -np.inf, np.inf, 1], np.float32), mono)
    assert not np.isfinite(mono).any()


def test_the_peak_is_the_largest_magnitude():
    for n in (1, 2, 1001):
        assert kernels.peak(noise(n)) == np.abs(noise(n)).max()
    assert kernels.peak(np.array([1, -3, 2], np.float32)) == 3
    assert kernels.peak(np.zeros(0, np.float32)) == 0


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_the_peak_of_non_finite_samples_is_not_finite(bad):
    block = noise(100)
    block[37] = bad
    assert not np.isfinite(kernels.peak(block))


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("hop", [1, 100, 256])
def test_windows(hop, precision):
    signal, weights = noise(4000), np.hanning(256).astype(precision)
    frames = np.lib.stride_tricks.sliding_window_view(signal, 256)[::hop][:9]
    out = np.empty(frames.shape, precision)
    kernels.window(signal, hop, weights, out)
    assert np.array_equal(out, frames * weights)


@pytest.mark.parametrize("precision", ["complex64", "complex128"])
def test_power(precision):
    spectrum = (noise(5, 33) + 1j * noise(5, 33)).astype(precision)
    power = np.empty(spectrum.shape, np.float32)
    kernels.power(spectrum, power)
    np.testing.assert_allclose(power, np.abs(spectrum.astype(np.complex128)) ** 2, rtol=3e-7)


def test_decibels_of_all_powers_a_spectrum_can_have():
    power = np.geomspace(1e-38, 3e38, 1_000_001).astype(np.float32)
    level = np.empty_like(power)
    kernels.decibels(power, np.float32(1e-30), level)
    expected = 10 * np.log10(np.maximum(power.astype(np.float64), np.float32(1e-30)))
    # Half a step of float32 at 300 dB is 1.5e-5; the rounding of the octaves adds as much.
    assert np.abs(level - expected).max() < 4e-5
    near = np.abs(expected) < 3
    assert np.abs(level - expected)[near].max() < 5e-7


def test_decibels_of_zero_are_the_floor():
    level = np.empty(3, np.float32)
    kernels.decibels(np.array([0, 1e-40, 1], np.float32), np.float32(1e-10), level)
    np.testing.assert_allclose(level, [-100, -100, 0], atol=1e-5)
    assert level[2] == 0


def test_decibels_of_non_finite_power_are_nan():
    power, level = np.ones(40, np.float32), np.empty(40, np.float32)
    power[[3, 21, 38]] = np.nan, np.inf, -np.inf
    kernels.decibels(power, np.float32(1e-10), level)
    assert np.flatnonzero(np.isnan(level)).tolist() == [3, 21, 38]


def test_values_are_rounded_down_and_clipped_to_uint8():
    rows = np.array(
        [[-1.0, -1e-6, 0.0, 0.999, 254.9, 255.0], [255.5, 255.99998, 256.0, 300.0, 1e30, -1e30]], np.float32
    )
    out = np.empty(rows.shape, np.uint8)
    outside = kernels.quantise(rows, np.float32(1), np.float32(0), out)
    assert out.tolist() == [[0, 0, 0, 0, 254, 255], [255, 255, 255, 255, 255, 0]]
    assert outside == (6, 3)


def test_steps_are_those_of_numpy():
    rows = 60 * noise(70, 513)
    out = np.empty(rows.shape, np.uint8)
    steps = rows * np.float32(2) + np.float32(100.5)
    outside = kernels.quantise(rows, np.float32(2), np.float32(100.5), out)
    assert np.array_equal(out, np.clip(np.floor(steps), 0, 255))
    assert outside == (np.count_nonzero((steps < 0) | (steps >= 256)), np.count_nonzero(steps >= 256))
    assert min(outside) > 1000


def test_a_function_without_a_cache_folder_is_compiled():
    namespace: dict = {}
    exec("def double(x):\n    return 2 * x\n", namespace)  # defined in no file, so there is no folder for the cache
    assert kernels.jit(namespace["double"])(21) == 42
