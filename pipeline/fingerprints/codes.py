"""Sub-fingerprints of the tracks of a store, computed from its frames.

A sub-fingerprint describes a short moment of a recording by up to 31 bits: signs of the change over time of level
differences between neighbouring frequency bands (Haitsma and Kalker, "A highly robust audio fingerprinting system",
ISMIR 2002). Lossy coding, gain and resampling change few of them. Nothing is decoded: log-mel bands, spectra in dB and
MFCCs hold all that is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from mgc.pipeline.dsp.filterbanks import dct_basis, mel_bank
from mgc.pipeline.features import FeatureSpec, Mel, Mfcc
from mgc.pipeline.features.spectral import LinearFrequency
from mgc.pipeline.fingerprints.levels import LevelMeter

#: Sub-fingerprints per second, at most: the frame rate of the default mel store.
RATE = 22050 / 512
#: Frequency range in Hz. Below it, gain and codecs differ most; above it, low bit rates cut bands off.
LOWEST, HIGHEST = 150.0, 4500.0
#: Bands, at most. Each pair of neighbours gives one bit.
BANDS = 30
#: Least number of bits with which unrelated recordings can be told apart.
LEAST_BITS = 12
#: Seconds over which a change is measured, and of audio that a level stands for. Two copies whose frames start at
#: different samples give similar levels only if these are much longer than a hop.
CHANGE_S, WINDOW_S = 4 * 512 / 22050, 2048 / 22050


@dataclass(frozen=True)
class Codes:
    """Sub-fingerprints of many tracks, one after the other.

    Attributes:
        track_ids: ids of the tracks.
        first: index of the first sub-fingerprint of each track, and the total number, int64 `(tracks + 1,)`.
        values: the sub-fingerprints, uint32; their lowest `bits` bits are used.
        bits: number of bits.
        rate: sub-fingerprints per second.
    """

    track_ids: list[str]
    first: np.ndarray
    values: np.ndarray
    bits: int
    rate: float

    def track(self, index: int) -> np.ndarray:
        """Return the sub-fingerprints of one track."""
        return self.values[self.first[index] : self.first[index + 1]]


@dataclass(frozen=True)
class Extractor:
    """Computes sub-fingerprints from the frames of one feature.

    Attributes:
        meter: converts the frames to power.
        weights: from the values of a frame to mean levels of bands in dB, float32 `(bins, bands)`.
        stride: frames from one sub-fingerprint to the next.
        smoothed: frames that are averaged for a level.
        lag: strides over which the change is measured.
    """

    meter: LevelMeter
    weights: np.ndarray
    stride: int
    smoothed: int
    lag: int

    @classmethod
    def of(cls, spec: FeatureSpec) -> Extractor:
        """Create the extractor of a feature for which `can_fingerprint` is true."""
        weights = _band_weights(spec)
        assert weights is not None
        stride = max(1, round(spec.frame_rate / RATE))
        window = getattr(spec, "n_fft", 0) / spec.sr
        smoothed = max(1, round((WINDOW_S - window) * spec.frame_rate))
        return cls(LevelMeter(spec), weights, stride, smoothed, max(1, round(CHANGE_S * spec.frame_rate / stride)))

    @property
    def bits(self) -> int:
        """Bits of a sub-fingerprint."""
        return self.weights.shape[1] - 1

    @property
    def rate(self) -> float:
        """Sub-fingerprints per second."""
        return self.meter.spec.frame_rate / self.stride

    def count(self, n_frames: int) -> int:
        """Return the number of sub-fingerprints of a track with so many frames."""
        levels = max(0, n_frames - self.smoothed + self.stride) // self.stride
        return max(0, levels - self.lag)

    def compute(self, stored: np.ndarray, power: np.ndarray | None = None) -> np.ndarray:
        """Compute sub-fingerprints, uint32 `(count(n),)`.

        Args:
            stored: stored frames of a track, `(n, bins)`.
            power: their power by `LevelMeter.power`, if it is known.
        """
        if not self.count(len(stored)):
            return np.empty(0, np.uint32)
        if isinstance(self.meter.spec, Mfcc):
            levels = _moving_average(self.meter.spec.decode(stored) @ self.weights, self.smoothed)
        else:
            power = self.meter.power(stored) if power is None else power
            levels = np.log10(_moving_average(power @ self.weights, self.smoothed) + 1e-20)
        levels = levels[:: self.stride]
        slopes = levels[:, :-1] - levels[:, 1:]
        signs = slopes[self.lag :] > slopes[: -self.lag]
        return signs @ (1 << np.arange(self.bits, dtype=np.uint32))


def can_fingerprint(spec: FeatureSpec) -> bool:
    """Tell whether frames of a feature hold the levels of enough frequency bands to tell recordings apart."""
    weights = _band_weights(spec)
    return weights is not None and weights.shape[1] > LEAST_BITS


def _moving_average(values: np.ndarray, length: int) -> np.ndarray:
    """Average `length` successive rows of float32 `(n, bands)`: float `(n - length + 1, bands)`."""
    if length == 1:
        return values
    return np.lib.stride_tricks.sliding_window_view(values, length, axis=0).mean(axis=-1)


@cache
def _band_weights(spec: FeatureSpec) -> np.ndarray | None:
    """Return the weights from a frame to the mean levels of the bands, `(bins, bands)`; None where there are none."""
    if isinstance(spec, Mel):
        bank = mel_bank(spec.sr, spec.n_fft, spec.n_mels, spec.fmin, spec.fmax)
        frequencies = np.fft.rfftfreq(spec.n_fft, 1 / spec.sr)
        centres = frequencies @ bank / np.maximum(bank.sum(axis=0), 1e-12)
        if not isinstance(spec, Mfcc):
            return _average(centres, BANDS)
        # The first coefficients of the DCT are a smooth log-mel spectrum, with no more bands than coefficients.
        return dct_basis(spec.n_mels, spec.n_mfcc).T @ _average(centres, min(BANDS, spec.n_mfcc))
    if isinstance(spec, LinearFrequency):
        return _average(np.fft.rfftfreq(spec.n_fft, 1 / spec.sr), BANDS)
    return None


def _average(centres: np.ndarray, bands: int) -> np.ndarray:
    """Return weights that average neighbouring bins, float32 `(bins, bands)`, bands spaced logarithmically.

    Args:
        centres: frequency of each bin in Hz, float `(bins,)`; 0 for a bin that holds nothing.
        bands: number of bands, at most; there are fewer where bins are far apart, as no bin belongs to two of them.
    """
    bins = np.flatnonzero((centres >= LOWEST) & (centres <= HIGHEST))
    edges = np.geomspace(LOWEST, HIGHEST, bands + 1)
    band = np.unique(np.searchsorted(edges, centres[bins], side="right"), return_inverse=True)[1]
    weights = np.zeros((len(centres), band.max(initial=-1) + 1), np.float32)
    weights[bins, band] = 1
    return weights / np.maximum(weights.sum(axis=0), 1)
