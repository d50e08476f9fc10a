"""The statistics of a track against librosa and scipy, called as in FMA's script."""

from __future__ import annotations

import subprocess
import sys
import warnings

import librosa
import numpy as np
import pytest
import scipy.stats
from sounds import extract_frames, music, tone

from mgc.pipeline.features import Stats
from mgc.pipeline.features.stats import MOMENTS, SIZES, _moments

SPEC = Stats()


def whole_track_series(y: np.ndarray, sr: int) -> dict[str, np.ndarray]:
    """Compute each feature over time with the spectra of the whole track in memory."""
    cqt = np.abs(librosa.cqt(y, sr=sr, hop_length=512, bins_per_octave=12, n_bins=84, tuning=None))
    cens = librosa.feature.chroma_cens(C=cqt, n_chroma=12, n_octaves=7)
    stft = np.abs(librosa.stft(y, n_fft=2048, hop_length=512))
    mel = librosa.feature.melspectrogram(sr=sr, S=stft**2)
    return {
        "chroma_cens": cens,
        "chroma_cqt": librosa.feature.chroma_cqt(C=cqt, n_chroma=12, n_octaves=7),
        "chroma_stft": librosa.feature.chroma_stft(S=stft**2, n_chroma=12),
        "mfcc": librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=20),
        "rmse": librosa.feature.rms(S=stft),
        "spectral_bandwidth": librosa.feature.spectral_bandwidth(S=stft),
        "spectral_centroid": librosa.feature.spectral_centroid(S=stft),
        "spectral_contrast": librosa.feature.spectral_contrast(S=stft, n_bands=6),
        "spectral_rolloff": librosa.feature.spectral_rolloff(S=stft),
        "tonnetz": librosa.feature.tonnetz(chroma=cens),
        "zcr": librosa.feature.zero_crossing_rate(y, frame_length=2048, hop_length=512),
    }


REFERENCE_MOMENTS = {
    "kurtosis": scipy.stats.kurtosis,
    "max": np.max,
    "mean": np.mean,
    "median": np.median,
    "min": np.min,
    "skew": scipy.stats.skew,
    "std": np.std,
}


@pytest.mark.parametrize(
    ("sound", "sr"),
    [
        (music(8, 44100)[:, 0], 44100),  # more than one block of spectra
        (music(4, 22050, seed=3)[:, 0], 22050),
        (music(0.3, 11025, seed=4)[:, 0], 11025),  # seven frames
        (np.append(tone(450, 2, 44100), np.zeros(44100, np.float32)), 44100),  # out of tune, then silence
    ],
    ids=["music-44100", "music-22050", "music-11025", "tone"],
)
def test_each_statistic_agrees(sound, sr):
    values = extract_frames([sound], sr, Stats(sr=sr))[0]
    series = whole_track_series(sound, sr)
    for value, (name, moment, number) in zip(values, SPEC.columns, strict=True):
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            expected = REFERENCE_MOMENTS[moment](series[name][int(number) - 1].astype(np.float64))
        if moment in ("skew", "kurtosis"):  # NaN for constant rows, such as the chroma of a few frames
            expected = np.nan_to_num(expected)
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-4), (name, moment, number)


def test_columns_are_those_of_features_csv():
    assert len(SPEC.columns) == SPEC.bins == 518
    assert SPEC.columns == tuple(sorted(SPEC.columns))
    assert SPEC.columns[0] == ("chroma_cens", "kurtosis", "01")
    assert SPEC.columns[-1] == ("zcr", "std", "01")
    assert ("mfcc", "median", "20") in SPEC.columns
    assert len(set(SPEC.columns)) == 518


@pytest.mark.parametrize("samples", [0, 1, 100, 2047, 5000])
@pytest.mark.parametrize("level", [0.0, 0.5])
def test_the_shortest_and_the_quietest_tracks_have_finite_statistics(samples, level):
    frames = extract_frames([np.full(samples, level, np.float32)], 44100, SPEC)
    assert frames.shape == (1, 518)
    assert np.isfinite(frames).all()


def test_a_constant_row_has_zero_skew_and_kurtosis():
    constant = _moments(np.full((1, 100), 0.1))
    assert dict(zip(MOMENTS, constant, strict=True)) == pytest.approx(
        {"kurtosis": 0, "max": 0.1, "mean": 0.1, "median": 0.1, "min": 0.1, "skew": 0, "std": 0}
    )


def test_a_track_beyond_the_limit_has_no_frame(monkeypatch):
    monkeypatch.setattr(Stats, "max_duration_s", 2.0)
    blocks = [np.full(11025, 0.5, np.float32)] * 8
    assert extract_frames(blocks, 44100, SPEC).shape == (1, 518)
    with pytest.raises(ValueError, match="at least one array"):  # nothing to concatenate
        extract_frames([*blocks, np.zeros(2, np.float32)], 44100, SPEC)


@pytest.mark.slow
def test_memory_is_what_the_spec_says():
    script = """
import resource, sys
import numpy as np
from mgc.pipeline.features.analysis import analyse
from mgc.pipeline.features import Stats
rng = np.random.default_rng(0)
blocks = ((0.1 * rng.standard_normal(44100)).astype(np.float32) for _ in range(int(sys.argv[1])))
for _ in analyse(blocks, 44100, [Stats()]):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
    short, long = (
        int(subprocess.run([sys.executable, "-c", script, seconds], capture_output=True, check=True).stdout)
        for seconds in ("20", "80")
    )
    assert long - short <= SPEC.mb_per_minute * 1e6


def test_sizes_are_those_of_the_baseline():
    assert list(SIZES) == sorted(SIZES)
    assert sum(SIZES.values()) == 74
    assert len(MOMENTS) == 7
