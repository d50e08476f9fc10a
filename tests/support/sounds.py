"""Synthetic signals, their encoding as audio files, and reference features from librosa."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from fractions import Fraction

import librosa
import numpy as np
import soundfile as sf

from mgc.pipeline.features import Chroma, FeatureSpec, Harmonic, Mel, Mfcc, PowerSpectrum, Stft, Waveform
from mgc.pipeline.features.analysis import analyse


def tone(frequency: float, seconds: float, sr: int, amplitude: float = 0.5) -> np.ndarray:
    """Return a sine, float32 `(samples,)`."""
    return (amplitude * np.sin(2 * np.pi * frequency / sr * np.arange(round(seconds * sr)))).astype(np.float32)


def music(seconds: float, sr: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Return a chord, a sweep over the whole band and decaying noise bursts, different per channel: `(samples, ch)`."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * sr)) / sr
    sweep = np.sin(np.pi * (0.9 * sr / 2) * t**2 / max(seconds, 1e-9))
    sound = np.empty((len(t), channels), np.float32)
    for channel in range(channels):
        chord = sum(np.sin(2 * np.pi * pitch * t + rng.uniform(0, 6)) for pitch in rng.uniform(80, 2000, 4))
        bursts = rng.standard_normal(len(t)) * np.exp(-12 * (t % 0.5))
        sound[:, channel] = 0.08 * chord + 0.2 * sweep + 0.1 * bursts
    return sound


def encode(sound: np.ndarray, sr: int, format: str = "MP3", **settings: object) -> bytes:
    """Encode a signal as the bytes of an audio file, by libsndfile (MP3: LAME)."""
    file = io.BytesIO()
    sf.write(file, sound, sr, format=format, **settings)
    return file.getvalue()


def split_blocks(data: np.ndarray | bytes, size: int) -> Iterable:
    """Split samples or bytes into blocks of `size`; the last one may be smaller."""
    return (data[first : first + size] for first in range(0, len(data), size))


def extract_frames(blocks: Iterable[np.ndarray], rate: int, spec: FeatureSpec) -> np.ndarray:
    """Compute all frames of a feature from mono blocks by `analyse`."""
    return np.concatenate([rows for _, rows in analyse(blocks, rate, [spec])])


def librosa_resampled(sound: np.ndarray, rate: int, sr: int) -> np.ndarray:
    """Return what `librosa.load(file, sr=sr)` returns for a file with the samples `sound`, `(samples, channels)`."""
    mono = librosa.to_mono(sound.T)
    return mono if rate == sr else librosa.resample(mono, orig_sr=rate, target_sr=sr, res_type="soxr_hq")


def librosa_power(sound: np.ndarray, rate: int, spec: FeatureSpec) -> np.ndarray:
    """Compute power spectra by librosa, or mel band powers for a mel spec: `(n, bins)` from `(samples, channels)`."""
    mono = librosa_resampled(sound, rate, spec.sr)
    window = {"n_fft": spec.n_fft, "hop_length": spec.hop_length, "center": True, "pad_mode": "constant"}
    if not isinstance(spec, Mel):
        return np.square(np.abs(librosa.stft(mono, **window))).T
    bands = {"n_mels": spec.n_mels, "fmin": spec.fmin, "fmax": spec.fmax}
    return librosa.feature.melspectrogram(y=mono, sr=spec.sr, power=2.0, **window, **bands).T


def librosa_frames(sound: np.ndarray, rate: int, spec: FeatureSpec) -> np.ndarray:
    """Compute the frames of a spec by librosa: float32 `(n, bins)` from `(samples, channels)`."""
    if isinstance(spec, Waveform):
        mono = librosa_resampled(sound, rate, spec.sr)
        padded = np.zeros((1 + len(mono) // spec.hop_length, spec.hop_length), np.float32)
        padded.flat[: len(mono)] = mono
        return padded
    power = librosa_power(sound, rate, spec).T
    if isinstance(spec, PowerSpectrum):
        return power.T
    if isinstance(spec, Chroma):
        settings = {"sr": spec.sr, "n_chroma": spec.n_chroma, "tuning": spec.tuning}
        return librosa.feature.chroma_stft(S=power, **settings).T
    if isinstance(spec, Harmonic):  # and its subclass Percussive
        component = librosa.decompose.hpss(np.sqrt(power))[spec.name == "percussive"]
        return librosa.amplitude_to_db(component, ref=1.0, amin=1e-5, top_db=None).T
    level = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)
    return (librosa.feature.mfcc(S=level, n_mfcc=spec.n_mfcc) if isinstance(spec, Mfcc) else level).T


def assert_levels_agree(levels: np.ndarray, expected: np.ndarray) -> None:
    """Assert agreement to 1e-3 dB in every bin within 60 dB of its frame's maximum: the accuracy of float32."""
    assert levels.shape == expected.shape
    near = expected >= expected.max(axis=1, keepdims=True) - 60
    assert np.abs(levels - expected)[near].max() < 1e-3


def full_scale_tone(spec: Stft | Mel, bin: int) -> np.ndarray:
    """Return one second of a full-scale sine on a bin of the spec's Fourier transform."""
    return tone(bin * spec.sr / spec.n_fft, 1.0, spec.sr, amplitude=1.0)


def resampled_length(samples: int, rate: int, sr: int) -> int:
    """Return the number of samples after resampling by soxr: the exact number rounded, halves up."""
    return math.floor(Fraction(samples * sr, rate) + Fraction(1, 2))
