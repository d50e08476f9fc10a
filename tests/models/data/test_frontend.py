"""The front end against librosa, which transforms in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sounds import assert_levels_agree, librosa_frames, music, tone

from mgc.models.data import frontend
from mgc.models.data.frontend import FrontEnd, supports
from mgc.pipeline.features import Chroma, Harmonic, Mel, Mfcc, PowerSpectrum, Spectral, Stats, Stft, Waveform

SPECS = [
    Stft(),
    Stft(sr=22050, n_fft=2048, hop_length=604),
    Mel(),
    Mel(sr=44100, n_fft=1024, n_mels=96, fmin=30.0, fmax=15000.0),
    Mfcc(hop_length=604),
    Mfcc(sr=44100, n_fft=1024, n_mfcc=13),
    PowerSpectrum(),
]


def sound(sr: int) -> np.ndarray:
    """Music, then a pure tone, whose bands lie deeper below its maximum than float32 reaches, then silence."""
    parts = music(1.5, sr)[:, 0], tone(1000.0, 0.5, sr), np.zeros(sr // 4, np.float32)
    return np.concatenate(parts).astype(np.float32)


def frames(spec: Spectral, samples: np.ndarray) -> np.ndarray:
    """What the front end makes of a whole signal, which is in silence."""
    padded = np.pad(samples, spec.n_fft // 2)
    return FrontEnd(spec)(torch.from_numpy(padded)[None])[0].numpy()


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_frames_are_librosas(spec: Spectral) -> None:
    samples = sound(spec.sr)
    ours, theirs = frames(spec, samples), librosa_frames(samples[:, None], spec.sr, spec)
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape == (spec.frames(len(samples) / spec.sr), spec.bins)
    if isinstance(spec, Mfcc):
        assert np.abs(ours - theirs).max() < 5e-3
        return
    if isinstance(spec, PowerSpectrum):
        magnitudes = [np.sqrt(values.astype(np.float64)) for values in (ours, theirs)]
    else:
        assert_levels_agree(ours, theirs)
        magnitudes = [10 ** (values.astype(np.float64) / 20) for values in (ours, theirs)]
    # In levels themselves, of up to 50 dB, float32 cannot tell more than 4e-7 of a magnitude.
    largest = magnitudes[1].max(axis=1, keepdims=True)
    assert (np.abs(magnitudes[0] - magnitudes[1]) <= 1e-6 * largest).all()


def test_memory_does_not_grow_and_autocast_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Mfcc()
    samples = sound(spec.sr)[-20_000:]  # some of the tone, and silence
    batch = torch.from_numpy(np.stack([samples, samples[::-1]]))
    at_once = FrontEnd(spec)(batch)
    monkeypatch.setattr(frontend, "_BLOCK_VALUES", 1)
    with torch.autocast("cpu", torch.bfloat16):
        one_by_one = FrontEnd(spec)(batch)
    torch.testing.assert_close(one_by_one, at_once, atol=2e-4, rtol=0)


def test_what_it_makes() -> None:
    kinds = (Stft, Mel, Mfcc, PowerSpectrum, Chroma, Harmonic, Stats, Waveform)
    assert [kind for kind in kinds if supports(kind())] == [Stft, Mel, Mfcc, PowerSpectrum]
