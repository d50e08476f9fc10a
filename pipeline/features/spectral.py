"""Features computed frame by frame from power spectra: STFT, mel, MFCC, power and chroma.

Levels are absolute dB (`ref=1.0`, no `top_db`). Normalisation that depends on a slice is applied when it is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from mgc.pipeline.dsp.filterbanks import chroma_bank, dct_basis, mel_bank
from mgc.pipeline.dsp.stages import PowerBatch, StftStage, to_db
from mgc.pipeline.features.spec import Clipped, FeatureSpec

#: Headroom above a full-scale sine in the uint8 range: clipped MP3s decode to peaks of about twice full scale.
HEADROOM_DB = 7.0
#: Step of the uint8 range in dB.
STEP_DB = 0.5


@dataclass(frozen=True)
class Spectral(FeatureSpec):
    """Base class of features of the short-time Fourier transform.

    Attributes:
        sr: sample rate in Hz to which the audio is resampled.
        n_fft: length of the Fourier transform and of its window, in samples (even).
        hop_length: samples between frames.
        dtype: storage dtype: uint8 (steps of 0.5 dB), float16 or float32.
    """

    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "float16", "float32")

    sr: int = 22050
    n_fft: int = 2048
    hop_length: int = 512
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(16 <= self.n_fft <= 65536 and self.n_fft % 2 == 0, "n_fft", "an even number, 16 to 65536 samples")
        self._require(1 <= self.hop_length <= self.n_fft, "hop_length", f"1 to n_fft ({self.n_fft}) samples")

    @property
    def stage(self) -> tuple[Any, ...]:
        """`StftStage`."""
        return StftStage, self.n_fft, self.hop_length, "float32"

    def full_scale_db(self) -> float:
        """Return the level in dB of a full-scale sine in the bin where it is loudest."""
        raise NotImplementedError

    def affected_frames(self, first: float, stop: float) -> tuple[int, int]:
        """Return the range of frames whose windows overlap a sample range."""
        reach = self.n_fft / 2
        return math.floor((first - reach) / self.hop_length), math.ceil((stop + reach) / self.hop_length) + 1

    @property
    def scale(self) -> float:
        """dB per step of the stored integers; 1 for floating-point frames."""
        return STEP_DB if self.quantised else 1.0

    @cached_property
    def offset(self) -> float:
        """dB of the stored integer 0; 0 for floating-point frames. It depends on the spec alone, not on the audio."""
        if not self.quantised:
            return 0.0
        top = math.ceil((self.full_scale_db() + HEADROOM_DB) / STEP_DB) * STEP_DB
        return top - 255 * STEP_DB

    def encode(self, rows: np.ndarray, out: np.ndarray) -> int | Clipped:
        """Write float32 `rows` to `out` (same shape, the spec's dtype) and count the values outside its range.

        Quantisation rounds to the nearest step. Values more than half a step outside the range saturate.
        """
        if not self.quantised:
            return super().encode(rows, out)
        from mgc.pipeline.dsp import kernels

        return Clipped(*kernels.quantise(rows, np.float32(1 / STEP_DB), np.float32(0.5 - self.offset / STEP_DB), out))


@dataclass(frozen=True)
class LinearFrequency(Spectral):
    """Base class of features with one value per frequency of the Fourier transform."""

    @property
    def bins(self) -> int:
        """`1 + n_fft / 2`, from 0 Hz up."""
        return 1 + self.n_fft // 2

    def full_scale_db(self) -> float:
        """Return the level of a full-scale sine on a bin, whose magnitude is `sum(window) / 2 = n_fft / 4`."""
        return 20 * math.log10(self.n_fft / 4)


@dataclass(frozen=True)
class Stft(LinearFrequency):
    """STFT magnitude in dB: `librosa.amplitude_to_db(abs(librosa.stft(y)), ref=1, top_db=None)`."""

    name: ClassVar[str] = "stft"

    sr: int = 44100
    n_fft: int = 1024

    def compute_frames(self, power: PowerBatch) -> np.ndarray:
        """Return float32 `(n, bins)` in dB."""
        return to_db(power.spectrum)


@dataclass(frozen=True)
class Mel(Spectral):
    """Log-mel spectrogram: `power_to_db(librosa.feature.melspectrogram(y=y), ref=1, top_db=None)`.

    Attributes:
        n_mels: number of mel bands (Slaney scale and normalisation, librosa's default).
        fmin: lower edge in Hz.
        fmax: upper edge in Hz; None for half the sample rate.
    """

    name: ClassVar[str] = "mel"

    n_mels: int = 128
    fmin: float = 0.0
    fmax: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(1 <= self.n_mels <= self.n_fft // 2, "n_mels", f"1 to n_fft/2 ({self.n_fft // 2}) bands")
        self._require(0 <= self.fmin < self.sr / 2, "fmin", f"0 to {self.sr / 2:g} Hz")
        top = self.sr / 2 if self.fmax is None else self.fmax
        self._require(self.fmin < top <= self.sr / 2, "fmax", f"above fmin ({self.fmin:g}), at most {self.sr / 2:g} Hz")

    @property
    def bins(self) -> int:
        """`n_mels`, from the lowest band up."""
        return self.n_mels

    def bank(self) -> np.ndarray:
        """Return librosa's mel filter bank, float32 `(1 + n_fft/2, n_mels)`."""
        return mel_bank(self.sr, self.n_fft, self.n_mels, self.fmin, self.fmax)

    def compute_frames(self, power: PowerBatch) -> np.ndarray:
        """Return float32 `(n, n_mels)` in dB."""
        return power.log_mel(self.sr, self.n_mels, self.fmin, self.fmax)

    def full_scale_db(self) -> float:
        """Return the highest level of any band for a full-scale sine on a bin.

        The Hann window spreads such a sine over three bins, with 1/4, 1 and 1/4 of its power.
        """
        bank = self.bank()
        spread = bank.copy()
        spread[1:] += bank[:-1] / 4
        spread[:-1] += bank[1:] / 4
        return 20 * math.log10(self.n_fft / 4) + 10 * math.log10(float(spread.max()))


@dataclass(frozen=True)
class Mfcc(Mel):
    """Mel-frequency cepstral coefficients: `librosa.feature.mfcc(S=power_to_db(mel, ref=1, amin=1e-10, top_db=None))`.

    Coefficients are not levels in dB, so they are stored in floating point.

    Attributes:
        n_mfcc: number of coefficients.
    """

    name: ClassVar[str] = "mfcc"
    dtypes: ClassVar[tuple[str, ...]] = ("float16", "float32")

    dtype: str = "float32"
    n_mfcc: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(1 <= self.n_mfcc <= self.n_mels, "n_mfcc", f"1 to n_mels ({self.n_mels}) coefficients")

    @property
    def bins(self) -> int:
        """`n_mfcc`, from the zeroth coefficient up."""
        return self.n_mfcc

    def compute_frames(self, power: PowerBatch) -> np.ndarray:
        """Return the orthonormal DCT-II of the log-mel bands, float32 `(n, n_mfcc)`.

        The bands are computed precisely: near the floor a float32 transform is off by decibels, which the DCT would
        spread over all coefficients (errors of up to 0.1 for a pure tone, 0.04 for music at 44.1 kHz).
        """
        return power.precise_log_mel(self.sr, self.n_mels, self.fmin, self.fmax) @ dct_basis(self.n_mels, self.n_mfcc)


@dataclass(frozen=True)
class PowerSpectrum(LinearFrequency):
    """Power spectrum on a linear scale: `abs(librosa.stft(y)) ** 2`. In dB it equals the STFT feature.

    Stored as float32 only: with n_fft=1024, full scale is 65536 and the floor of levels in dB is 1e-10, while the range
    of float16 is 6e-8 to 65504.
    """

    name: ClassVar[str] = "power"
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)

    sr: int = 44100
    n_fft: int = 1024
    dtype: str = "float32"

    def compute_frames(self, power: PowerBatch) -> np.ndarray:
        """Return the power spectra themselves, float32 `(n, bins)`; they are shared, so do not modify them."""
        return power.spectrum


@dataclass(frozen=True)
class Chroma(Spectral):
    """Energy per pitch class: `librosa.feature.chroma_stft(S=power, tuning=0.0, norm=inf)`.

    The tuning is a parameter, since estimating it would take the whole track and rule out streaming. Each frame's
    largest value is 1; a silent frame is all zeros.

    Attributes:
        n_chroma: number of pitch classes, from C up.
        tuning: deviation from A = 440 Hz, in fractions of a pitch class.
    """

    name: ClassVar[str] = "chroma"
    dtypes: ClassVar[tuple[str, ...]] = ("float16", "float32")

    dtype: str = "float32"
    n_chroma: int = 12
    tuning: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(1 <= self.n_chroma <= 120, "n_chroma", "1 to 120 pitch classes")
        self._require(-0.5 <= self.tuning <= 0.5, "tuning", "-0.5 to 0.5 pitch classes")

    @property
    def bins(self) -> int:
        """`n_chroma`."""
        return self.n_chroma

    def compute_frames(self, power: PowerBatch) -> np.ndarray:
        """Return float32 `(n, n_chroma)` in [0, 1]."""
        energy = power.spectrum @ chroma_bank(self.sr, self.n_fft, self.n_chroma, self.tuning)
        largest = energy.max(axis=1, keepdims=True)
        largest[largest < np.finfo(np.float32).tiny] = 1
        energy /= largest
        return energy
