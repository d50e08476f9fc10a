"""Sub-fingerprints of stored frames."""

from __future__ import annotations

import numpy as np
import pytest

from mgc.pipeline.features import Chroma, FeatureSpec, Mel, Mfcc, PowerSpectrum, Stats, Stft, Waveform
from mgc.pipeline.fingerprints.codes import Extractor, can_fingerprint

SPECS = [
    Mel(),
    Mel(sr=16000, n_fft=512, hop_length=256, n_mels=96),
    Mel(n_mels=40, hop_length=604),
    Stft(),
    Mfcc(),
    PowerSpectrum(),
]


def some_frames(spec: FeatureSpec, n: int) -> np.ndarray:
    """Values that a store of the feature may hold."""
    rng = np.random.default_rng(0)
    if spec.quantised:
        return rng.integers(40, 200, (n, spec.bins)).astype(spec.dtype)
    return rng.uniform(0.1, 10, (n, spec.bins)).astype(spec.dtype)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_their_number_is_known_beforehand_and_the_rate_is_that_of_mel(spec: FeatureSpec):
    extractor = Extractor.of(spec)
    assert 12 < extractor.bits <= 29
    assert 20 < extractor.rate < 65
    for n in (0, 1, extractor.smoothed, *range(7, 40), 500):
        codes = extractor.compute(some_frames(spec, n))
        assert codes.dtype == np.uint32
        assert len(codes) == extractor.count(n)
        assert codes.max(initial=0) < 2**extractor.bits
    assert extractor.count(500) > 200


@pytest.mark.parametrize("spec", [Mel(), Stft(), Mfcc(dtype="float32"), PowerSpectrum()], ids=str)
def test_gain_changes_none(spec: FeatureSpec):
    """A gain adds a constant to levels in dB, and to the first coefficient of MFCCs."""
    frames = some_frames(spec, 300)
    if isinstance(spec, Mfcc):
        louder = frames + np.eye(1, spec.bins, dtype=np.float32) * np.float32(6 * np.sqrt(spec.n_mels))
    else:
        louder = frames * np.float32(4) if spec.units != "dB" or not spec.quantised else frames + np.uint8(12)
    extractor = Extractor.of(spec)
    ours, theirs = extractor.compute(frames), extractor.compute(louder)
    assert np.bitwise_count(ours ^ theirs).sum() <= 1e-3 * extractor.bits * len(ours)


@pytest.mark.parametrize("spec", [Chroma(), Waveform(), Stats(), Mel(n_mels=8, n_fft=512)], ids=str)
def test_other_features_do_not_tell_recordings_apart(spec: FeatureSpec):
    assert not can_fingerprint(spec)
    assert all(can_fingerprint(other) for other in SPECS)
