"""Features in an exported file equal those of extraction and its stores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sounds import extract_frames, music

from mgc.models.export.spectrogram import Features, Transform, length, reach
from mgc.pipeline.features import parse_feature

SECONDS = 1.5


@pytest.mark.parametrize(
    ("name", "tolerance", "share"),
    [
        ("stft", 0.5, 1e-3),  # a level on the border of two steps may be rounded to the other one
        ("mel", 0.5, 1e-3),
        ("mel:dtype=float16", 0.04, 2e-3),
        ("mel:n_fft=600,hop_length=250,dtype=float32", 5e-3, 1),
        ("mfcc", 5e-3, 1),
        ("power", 2e-3, 1),
        ("chroma", 1e-5, 1),
        ("waveform", 0, 0),
    ],
)
def test_frames_are_those_of_a_store(name: str, tolerance: float, share: float) -> None:
    """At the start of a track, in its middle, and at its end."""
    spec = parse_feature(name)
    sound = music(SECONDS, spec.sr)[:, 0]
    computed = extract_frames([sound], spec.sr, spec)
    stored = np.empty(computed.shape, spec.dtype)
    spec.encode(computed, stored)
    n_frames, margin = 20, reach(spec) + 30
    module = Features(spec, margin, n_frames)
    padded = np.pad(sound, (margin, length(spec, n_frames)))
    for first in (0, 17, len(stored) - n_frames):
        window = padded[first * spec.hop_length :][: margin + length(spec, n_frames)]
        frames = module(torch.from_numpy(window)[None])[0].numpy()
        difference = np.abs(frames - spec.decode(stored[first : first + n_frames]))
        assert difference.max() <= tolerance
        assert (difference > 0).mean() <= share


@pytest.mark.parametrize("n_fft", [16, 26, 600, 1024, 2048])
def test_power_spectra_are_numpys(n_fft: int) -> None:
    frames = np.random.default_rng(0).standard_normal((2, 3, n_fft))
    power = Transform(n_fft, torch.float64)(torch.from_numpy(frames)).numpy()
    assert np.allclose(power, np.abs(np.fft.rfft(frames)) ** 2, rtol=1e-9, atol=1e-9)
