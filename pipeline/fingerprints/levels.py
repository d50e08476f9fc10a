"""Levels of a track, from its stored frames: how loud it is, where it is silent, and where a low-pass cuts it off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mgc.pipeline.dsp.filterbanks import dct_basis, mel_bank
from mgc.pipeline.features import FeatureSpec, Mel, Mfcc
from mgc.pipeline.features.spectral import LinearFrequency, PowerSpectrum

#: Level below which a frame is silent, in dB of a full-scale sine.
SILENT_DB = -70.0
#: A low-pass: the mean spectrum falls by this many dB within so many Hz, above this frequency, and stays below.
LOW_PASS_DB, LOW_PASS_WIDTH_HZ, LOW_PASS_FROM_HZ = 20.0, 1000.0, 4000.0


@dataclass(frozen=True)
class Levels:
    """Levels of one track.

    Attributes:
        level_db: mean level, in dB of a full-scale sine.
        longest_silence_s: seconds of the longest silence.
        silent_share: share of the frames that are silent.
        low_pass_hz: frequency above which a low-pass cut the track off; None if none is to be seen.
    """

    level_db: float
    longest_silence_s: float
    silent_share: float
    low_pass_hz: float | None


class LevelMeter:
    """Measures the levels of tracks.

    Args:
        spec: feature of the frames: mel, MFCC, STFT or power.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self._table = _power(spec, np.arange(256, dtype=np.uint8)[:, None])[:, 0] if spec.dtype == "uint8" else None
        self.centres, self._widths = _bins(spec)

    def power(self, stored: np.ndarray) -> np.ndarray:
        """Convert stored frames to power, float32 `(n, bands)`; of MFCCs, that of the smoothed mel bands."""
        if self._table is not None:
            return self._table[stored]
        return _power(self.spec, stored)

    def measure(self, power: np.ndarray) -> Levels:
        """Measure a track of at least one frame by the result of `power`."""
        frame_power = power @ self._widths
        silent = frame_power < 10 ** (SILENT_DB / 10)
        edges = np.flatnonzero(np.diff(silent, prepend=False, append=False))
        longest = int(np.diff(edges)[::2].max(initial=0))
        return Levels(
            10 * float(np.log10(frame_power.mean(dtype=np.float64) + 1e-15)),
            longest / self.spec.frame_rate,
            float(silent.mean()),
            None if isinstance(self.spec, Mfcc) else self._low_pass(power.mean(axis=0)),
        )

    def _low_pass(self, spectrum: np.ndarray) -> float | None:
        """Find the frequency of a low-pass in a mean power spectrum, `(bands,)`."""
        levels = 10 * np.log10(spectrum + 1e-20)
        ahead = self.centres + LOW_PASS_WIDTH_HZ
        usable = (self.centres >= LOW_PASS_FROM_HZ) & (ahead <= self.centres[-1])
        if not usable.any():
            return None
        falls = np.where(usable, levels - np.interp(ahead, self.centres, levels), 0)
        steepest = int(falls.argmax())
        beyond = levels[self.centres >= ahead[steepest]]
        if falls[steepest] < LOW_PASS_DB or beyond.max() > levels[steepest] - LOW_PASS_DB:
            return None
        below = np.flatnonzero(levels[steepest:] < levels[steepest] - LOW_PASS_DB / 2)
        return float(self.centres[steepest + below[0]])


def _power(spec: FeatureSpec, stored: np.ndarray) -> np.ndarray:
    frames = spec.decode(stored)
    if isinstance(spec, PowerSpectrum):
        return frames
    if isinstance(spec, Mfcc):
        frames = frames @ dct_basis(spec.n_mels, spec.n_mfcc).T
    return np.float32(10) ** (frames / 10)


def _bins(spec: FeatureSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return the centres of the bands in Hz, and weights that add band powers up to 1 for a full-scale sine."""
    n_fft: int = getattr(spec, "n_fft")  # noqa: B009
    frequencies = np.fft.rfftfreq(n_fft, 1 / spec.sr)
    # The Hann window spreads a sine over three bins, with 1/4, 1 and 1/4 of its power.
    sine = 1.5 * (n_fft / 4) ** 2
    if isinstance(spec, LinearFrequency):
        return frequencies, np.full(len(frequencies), 1 / sine, np.float32)
    assert isinstance(spec, Mel)
    bank = mel_bank(spec.sr, n_fft, spec.n_mels, spec.fmin, spec.fmax).astype(np.float64)
    area = np.maximum(bank.sum(axis=0), 1e-12)
    # Bands overlap: each counts by the inverse of what all bands together make of its frequencies.
    overlap = np.maximum(bank.T @ bank.sum(axis=1), 1e-12)
    return frequencies @ bank / area, (area / overlap / sine).astype(np.float32)
