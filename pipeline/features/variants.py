"""Augmentation: variants of a training track, made of its samples when it is decoded and stored beside its frames.

A variant is made of mono audio at `RATE`, whatever rates the features have: once for all of them, and a pitch shifted
down brings along what was above the band of a feature at a lower rate, where there would be nothing else.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mgc.pipeline.dsp.stages import WholeTrackStage
from mgc.pipeline.errors import SpecError
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.features.analysis import RESAMPLER_REACH

#: Sample rate in Hz at which variants are made: that of most music.
VARIANT_SR = 44100
#: The samples of a track and the spectra of a variant are held in memory: so many MB for each minute, beyond the 400 MB
#: that a worker takes (measured: 204). The longest track takes it to about 1.5 GB.
MB_PER_MINUTE = 210
#: Seconds of the longest track that variants are made of. At half the speed it is still short enough for every feature.
MAX_DURATION_S = 300.0
#: Signal-to-noise ratio in dB where `noise` says nothing else.
DEFAULT_SNR_DB = 20.0

#: Samples that a vocoder's windows (librosa: 2048) reach beyond a sample, twice over: it resamples, too.
_VOCODER_REACH = 4096
#: Samples that are analysed at a time.
_BLOCK = 65536


@dataclass(frozen=True)
class Variant:
    """A transformation of a track's samples. `str` of it is what names it in stores, and what `parse` reads.

    Attributes:
        speed: how much faster the variant is than the track.
        reach: samples beyond a bad one that the variant has bad, too.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    least: ClassVar[float]
    most: ClassVar[float]
    #: The value that would change nothing.
    idle: ClassVar[float | None] = None
    reach: ClassVar[int] = 0

    amount: float

    @property
    def speed(self) -> float:
        """1 where the length does not change."""
        return 1.0

    def apply(self, samples: np.ndarray, key: str) -> np.ndarray:
        """The variant of float32 mono samples `(n,)` at `RATE`, float32 `(n / speed,)`.

        Args:
            samples: of the track; not changed.
            key: what random numbers depend on, beside the variant: the content hash of the file.
        """
        raise NotImplementedError

    def affected_ranges(self, gaps: Sequence[Sequence[float]], rate: int) -> list[list[float]]:
        """[first, stop) sample ranges of the variant that depend on ranges of the file, which is at `rate`."""
        ratio = VARIANT_SR / rate
        reach = self.reach + (RESAMPLER_REACH if rate != VARIANT_SR else 0)
        return [[(start * ratio - reach) / self.speed, (stop * ratio + reach) / self.speed] for start, stop in gaps]

    def __str__(self) -> str:
        return f"{self.name}:{self.amount:g}"


@dataclass(frozen=True)
class Pitch(Variant):
    """Shifted by some semitones, as long as before: `librosa.effects.pitch_shift(..., res_type="soxr_hq")`."""

    name: ClassVar[str] = "pitch"
    unit: ClassVar[str] = "semitones"
    least: ClassVar[float] = -12.0
    most: ClassVar[float] = 12.0
    idle: ClassVar[float | None] = 0.0
    reach: ClassVar[int] = _VOCODER_REACH

    def apply(self, samples: np.ndarray, key: str) -> np.ndarray:
        """Float32, as many samples as before."""
        import librosa

        with _short_signals():
            return librosa.effects.pitch_shift(samples, sr=VARIANT_SR, n_steps=self.amount, res_type="soxr_hq")

    def __str__(self) -> str:
        return f"{self.name}:{self.amount:+g}"


@dataclass(frozen=True)
class Stretch(Variant):
    """Played faster (above 1) or slower by some factor, at the same pitch: `librosa.effects.time_stretch`."""

    name: ClassVar[str] = "stretch"
    unit: ClassVar[str] = "times as fast"
    least: ClassVar[float] = 0.5
    most: ClassVar[float] = 2.0
    idle: ClassVar[float | None] = 1.0
    reach: ClassVar[int] = _VOCODER_REACH

    @property
    def speed(self) -> float:
        """The factor."""
        return self.amount

    def apply(self, samples: np.ndarray, key: str) -> np.ndarray:
        """Float32, `round(n / speed)` samples."""
        import librosa

        with _short_signals():
            return librosa.effects.time_stretch(samples, rate=self.amount)


@dataclass(frozen=True)
class Noise(Variant):
    """With white noise so many dB below the mean power of the track.

    Uniformly distributed: the stream of NumPy's `random` never changes, that of its normal numbers may. A spectrum of
    some hundred samples does not tell them apart.
    """

    name: ClassVar[str] = "noise"
    unit: ClassVar[str] = "dB below the track"
    least: ClassVar[float] = 0.0
    most: ClassVar[float] = 60.0

    def apply(self, samples: np.ndarray, key: str) -> np.ndarray:
        """Float32, as many samples as before."""
        seed = hashlib.sha256(f"{key}/{self}".encode()).digest()[:8]
        noise = np.random.default_rng(int.from_bytes(seed)).random(len(samples), np.float32)
        noise -= np.float32(0.5)
        power = float(np.square(samples, dtype=np.float64).mean()) if len(samples) else 0.0
        # Uniform numbers of width 1 have a variance of 1/12.
        noise *= np.float32(math.sqrt(12 * power * 10 ** (-self.amount / 10)))
        noise += samples
        return noise


_KINDS: dict[str, type[Variant]] = {kind.name: kind for kind in (Pitch, Stretch, Noise)}
_EXAMPLE = "write for instance --augment pitch:+2,stretch:0.9,noise:20"


def parse_variants(text: str) -> tuple[Variant, ...]:
    """The variants of `pitch:SEMITONES`, `stretch:SPEED` and `noise[:SNR_DB]`, separated by commas; none of `none`.

    Returns:
        Each once, in an order of their own: the same for the same variants in whatever order.

    Raises:
        SpecError: one of them is not understood, out of its range, or would change nothing.
    """
    found = {_parse_one(part.strip()) for part in text.split(",")} if text != "none" else set()
    return tuple(sorted(found, key=lambda variant: (variant.name, variant.amount)))


def _parse_one(text: str) -> Variant:
    name, colon, value = text.partition(":")
    kind = _KINDS.get(name)
    if kind is None:
        raise SpecError(f"--augment: unknown variant {text!r}", f"choose from {', '.join(_KINDS)}; {_EXAMPLE}")
    if kind is Noise and not colon:
        return Noise(DEFAULT_SNR_DB)
    try:
        # As it is written again: what six digits do not tell apart is one variant.
        amount = float(f"{float(value):g}")
    except ValueError:
        raise SpecError(f"--augment {text}: {value!r} is not a number", _EXAMPLE) from None
    if not kind.least <= amount <= kind.most:
        raise SpecError(f"--augment {text}", f"it must be {kind.least:g} to {kind.most:g} {kind.unit}")
    if amount == kind.idle:
        raise SpecError(f"--augment {text} changes nothing", f"leave it out, or {_EXAMPLE}")
    return kind(amount)


def variants_digest(variants: Sequence[Variant]) -> str:
    """Six hexadecimal digits that identify a set of variants."""
    return hashlib.sha256(",".join(map(str, variants)).encode()).hexdigest()[:6]


def frame_multiplier(variants: Sequence[Variant]) -> float:
    """How many times as many frames a track has with its variants."""
    return 1 + sum(1 / variant.speed for variant in variants)


# ---------------------------------------------------------------- in a worker


@dataclass(frozen=True)
class Signal(FeatureSpec):
    """The samples of a track at `RATE` in one piece: what variants are made of, never stored."""

    name: ClassVar[str] = "signal"
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    max_duration_s: ClassVar[float | None] = MAX_DURATION_S

    sr: int = VARIANT_SR
    hop_length: int = 1
    dtype: str = "float32"

    @property
    def stage(self) -> tuple[Any, ...]:
        """The whole track, where it can be held."""
        return WholeTrackStage, math.ceil(MAX_DURATION_S * VARIANT_SR) + 1

    def compute_frames(self, samples: np.ndarray) -> np.ndarray:
        """The samples, float32 `(n,)`."""
        return samples


class SampleCollector:
    """Keeps the samples of the track that is being decoded, in the place of an output that writes a shard.

    Attributes:
        samples: float32 `(n,)` at `RATE`; None where there are more than can be held.
    """

    def __init__(self) -> None:
        self.spec = Signal()
        self.samples: np.ndarray | None = None
        self.n_frames = 0

    @property
    def writer(self) -> SampleCollector:
        """Itself."""
        return self

    def append(self, rows: np.ndarray) -> int:
        """Keep the samples, all of which come at once; 0 of them saturate."""
        self.samples = rows
        return 0

    def truncate(self, n_frames: int) -> None:
        """Forget them."""
        self.samples = None


def split_blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Samples in pieces that stay in a processor's cache while they are analysed."""
    return (samples[first : first + _BLOCK] for first in range(0, len(samples), _BLOCK))


def _short_signals() -> warnings.catch_warnings:
    """Quiet about signals shorter than a window: librosa pads them."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)
