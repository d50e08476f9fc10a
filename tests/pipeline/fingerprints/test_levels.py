"""Levels of tracks, from their stored frames."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from sounds import extract_frames, tone

from mgc.pipeline.features import FeatureSpec, Mel, Mfcc, PowerSpectrum, Stft
from mgc.pipeline.fingerprints.levels import LevelMeter, Levels

SPECS = [Mel(), Mel(sr=16000, n_fft=512, hop_length=256, n_mels=64, dtype="float16"), Stft(), PowerSpectrum()]


def levels_of(sound: np.ndarray, spec: FeatureSpec, sr: int = 44100) -> Levels:
    frames = extract_frames([sound.astype(np.float32)], sr, spec)
    stored = np.empty(frames.shape, spec.dtype)
    spec.encode(frames, stored)
    meter = LevelMeter(spec)
    return meter.measure(meter.power(stored))


def noise(seconds: float, sr: int = 44100) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(int(seconds * sr))


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("frequency", [440, 1000, 5000])
def test_the_level_is_that_of_a_sine(spec: FeatureSpec, frequency: int):
    for amplitude, level in ((1.0, 0), (0.1, -20), (0.01, -40)):
        assert levels_of(tone(frequency, 3, 44100, amplitude), spec).level_db == pytest.approx(level, abs=1)


def test_levels_of_mfccs_differ_as_those_of_mel():
    loud, soft = (levels_of(gain * noise(3), Mfcc()) for gain in (1, 0.1))
    assert loud.level_db - soft.level_db == pytest.approx(20, abs=0.1)
    assert loud.level_db == pytest.approx(levels_of(noise(3), Mel()).level_db, abs=3)
    assert loud.low_pass_hz is None


@pytest.mark.parametrize("spec", [*SPECS, Mfcc()], ids=str)
def test_silence(spec: FeatureSpec):
    sound = noise(10)
    sound[2 * 44100 : 5 * 44100] = 0
    sound[9 * 44100 :] = 0
    levels = levels_of(sound, spec)
    assert levels.longest_silence_s == pytest.approx(3, abs=0.15)
    assert levels.silent_share == pytest.approx(0.4, abs=0.02)
    assert levels_of(np.zeros(44100), spec).silent_share == 1
    assert levels_of(noise(1), spec).longest_silence_s == 0


@pytest.mark.parametrize("cutoff", [5500, 11_000, 16_000, 19_000])
def test_a_low_pass_is_seen_where_the_store_reaches_beyond_it(cutoff: int):
    filters = scipy.signal.butter(30, cutoff, fs=44100, output="sos")
    sound = scipy.signal.sosfilt(filters, noise(3))
    assert levels_of(sound, Stft()).low_pass_hz == pytest.approx(cutoff, abs=600)
    seen = levels_of(sound, Mel()).low_pass_hz
    assert seen == (pytest.approx(cutoff, abs=700) if cutoff < 10_000 else None)


def test_music_without_a_low_pass_has_none():
    """A spectrum that falls by 6 dB per octave, or that is cut off within octaves, as instruments are."""
    brown = np.cumsum(noise(3))
    brown -= scipy.signal.sosfilt(scipy.signal.butter(2, 20, fs=44100, output="sos"), brown)
    for sound in (
        noise(3),
        brown / 10,
        scipy.signal.sosfilt(scipy.signal.butter(4, 5000, fs=44100, output="sos"), noise(3)),
    ):
        assert levels_of(sound, Stft()).low_pass_hz is None


def test_a_file_of_a_lower_rate_ends_at_half_its_rate():
    assert levels_of(noise(3, 22050), Stft(), 22050).low_pass_hz == pytest.approx(11_025, abs=500)
