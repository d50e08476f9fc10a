"""Features of power spectra, each frame by itself: STFT, mel, MFCC, power and chroma.

Levels are absolute dB (`ref=1.0`, no `top_db`): what depends on a slice is applied when the slice is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from mgc.pipeline.dsp.filterbanks import chroma_bank, dct_basis, mel_bank
from mgc.pipeline.dsp.stages import PowerBatch, StftStage, to_db
from mgc.pipeline.features.spec import FeatureSpec

#: Room above a full-scale sine in the uint8 range: clipped MP3s decode to peaks of about twice full scale.
HEADROOM_DB = 7.0
STEP_DB = 0.5


@dataclass(frozen=True)
class Spectral(FeatureSpec):
    """A feature of the short-time Fourier transform.

    Attributes:
        sr: sample rate in Hz the audio is resampled to.
        n_fft: length of the Fourier transform and of its window, in samples (even).
        hop_length: samples between frames.
        dtype: how frames are stored: uint8 in steps of 0.5 dB, float16 or float32.
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
        """Power spectra."""
        return StftStage, self.n_fft, self.hop_length, "float32"

    def full_scale_db(self) -> float:
        """Level of a full-scale sine in the most sensitive bin, in dB."""
        raise NotImplementedError

    def affected_frames(self, first: float, stop: float) -> tuple[int, int]:
        """The frames whose windows hold one of the samples."""
        reach = self.n_fft / 2
        return math.floor((first - reach) / self.hop_length), math.ceil((stop + reach) / self.hop_length) + 1

    @property
    def scale(self) -> float:
        """dB per step of the stored integer; 1 for floating-point frames."""
        return STEP_DB if self.quantised else 1.0

    @cached_property
    def offset(self) -> float:
        """dB of the stored integer 0; 0 for floating-point frames. Fixed by the spec, never taken from data."""
        if not self.quantised:
            return 0.0
        top = math.ceil((self.full_scale_db() + HEADROOM_DB) / STEP_DB) * STEP_DB
        return top - 255 * STEP_DB

    def encode(self, rows: np.ndarray, out: np.ndarray) -> int:
        """Store float32 `rows` in `out` (same shape, the spec's dtype); how many values were outside its range.

        Quantisation rounds to the nearest step, half a step of error at most; what lies farther outside saturates.
        """
        if not self.quantised:
            return super().encode(rows, out)
        from mgc.pipeline.dsp import kernels

        return kernels.quantise(rows, np.float32(1 / STEP_DB), np.float32(0.5 - self.offset / STEP_DB), out)


@dataclass(frozen=True)
class LinearFrequency(Spectral):
    """A feature with one value for each frequency of the transform."""

    @property
    def bins(self) -> int:
        """`1 + n_fft / 2` frequencies, 0 Hz first."""
        return 1 + self.n_fft // 2

    def full_scale_db(self) -> float:
        """A sine on a bin has magnitude `sum(window) / 2`, a quarter of `n_fft`."""
        return 20 * math.log10(self.n_fft / 4)


@dataclass(frozen=True)
class Stft(LinearFrequency):
    """Magnitude of the STFT in dB: `librosa.amplitude_to_db(abs(librosa.stft(y)), ref=1, top_db=None)`."""

    name: ClassVar[str] = "stft"

    sr: int = 44100
    n_fft: int = 1024

    def compute_frames(self, power: PowerBatch) -> np.ndarray:
        """float32 `(n, bins)`, dB."""
        return to_db(power.spectrum)


@dataclass(frozen=True)
class Mel(Spectral):
    """Log-mel spectrogram: `power_to_db(librosa.feature.melspectrogram(y=y), ref=1, top_db=None)`.

    Attributes:
        n_mels: mel bands (Slaney scale and normalisation, librosa's default).
        fmin, fmax: edges in Hz; `fmax=None` is half the sample rate.
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
        """`n_mels` bands, lowest first."""
        return self.n_mels

    def bank(self) -> np.ndarray:
        """librosa's mel filter bank, float32 `(1 + n_fft/2, n_mels)`."""
        return mel_bank(self.sr, self.n_fft, self.n_mels, self.fmin, self.fmax)

    def compute_frames(self, power: PowerBatch) -> np.ndarray:
        """float32 `(n, n_mels)`, dB."""
        return power.log_mel(self.sr, self.n_mels, self.fmin, self.fmax)

    def full_scale_db(self) -> float:
        """The most a band makes of a sine on a bin, which the Hann window spreads over three: 1/4, 1, 1/4 of power."""
        bank = self.bank()
        spread = bank.copy()
        spread[1:] += bank[:-1] / 4
        spread[:-1] += bank[1:] / 4
        return 20 * math.log10(self.n_fft / 4) + 10 * math.log10(float(spread.max()))


@dataclass(frozen=True)
class Mfcc(Mel):
    """Mel-frequency cepstral coefficients: `librosa.feature.mfcc(S=power_to_db(mel, ref=1, amin=1e-10, top_db=None))`.

    They are not levels, so they are stored in floating point.

    Attributes:
        n_mfcc: coefficients kept.
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
        """`n_mfcc` coefficients, the zeroth first."""
        return self.n_mfcc

    def compute_frames(self, power: PowerBatch) -> np.ndarray:
        """float32 `(n, n_mfcc)`: orthonormal DCT-II of the log-mel bands.

        It mixes the bands at the floor, where a float32 transform is decibels off, into every coefficient: up to 0.1
        for a pure tone, 0.04 for music at 44.1 kHz.
        """
        return power.precise_log_mel(self.sr, self.n_mels, self.fmin, self.fmax) @ dct_basis(self.n_mels, self.n_mfcc)


@dataclass(frozen=True)
class PowerSpectrum(LinearFrequency):
    """Power of the STFT, kept linear: `abs(librosa.stft(y)) ** 2`.

    In dB it would be the STFT feature again. As float32 only: full scale is 65536 where n_fft is 1024, the floor of the
    levels 1e-10; float16 ends at 65504 and knows nothing below 6e-8.
    """

    name: ClassVar[str] = "power"
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)

    sr: int = 44100
    n_fft: int = 1024
    dtype: str = "float32"

    def compute_frames(self, power: PowerBatch) -> np.ndarray:
        """float32 `(n, bins)`: the spectra as they are, which nobody may change."""
        return power.spectrum


@dataclass(frozen=True)
class Chroma(Spectral):
    """Energy of each pitch class: `librosa.feature.chroma_stft(S=power, tuning=0.0, norm=inf)`.

    The tuning is a parameter instead of an estimate, which would take the whole track: so frames can be made as the
    signal arrives. Each frame's largest value is 1; a silent frame is all zeros.

    Attributes:
        n_chroma: pitch classes, C first.
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
        """`n_chroma` pitch classes."""
        return self.n_chroma

    def compute_frames(self, power: PowerBatch) -> np.ndarray:
        """float32 `(n, n_chroma)`, in [0, 1]."""
        energy = power.spectrum @ chroma_bank(self.sr, self.n_fft, self.n_chroma, self.tuning)
        largest = energy.max(axis=1, keepdims=True)
        largest[largest < np.finfo(np.float32).tiny] = 1
        energy /= largest
        return energy
