"""Offline augmentation: pitch-shifted, time-stretched and noisy variants of training tracks, stored beside the tracks.

A variant is computed once for all features, from mono audio at `VARIANT_SR` whatever the features' sample rates. A
downward pitch shift at a lower sample rate would leave the top of the band empty; at `VARIANT_SR` it is filled by
frequencies from above the band.
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
from mgc.pipeline.features.spec import Clipped

#: Sample rate in Hz at which variants are computed: that of most music.
VARIANT_SR = 44100
#: Memory in MB per minute of audio, beyond the 400 MB of a worker (measured: 204): the samples of a track and the
#: spectra of a variant are held in memory. With the longest track, a worker takes about 1.5 GB.
MB_PER_MINUTE = 210
#: Maximum duration in seconds of a track with variants. At half the speed it is still short enough for every feature.
MAX_DURATION_S = 300.0
#: Signal-to-noise ratio in dB of `noise` without a value.
DEFAULT_SNR_DB = 20.0

#: Samples to which the phase vocoder can spread a bad sample: twice librosa's window of 2048, since it also resamples.
_VOCODER_REACH = 4096
#: Samples per block of the analysis.
_BLOCK_SAMPLES = 65536


@dataclass(frozen=True)
class Variant:
    """A transformation of a track's samples. `str(variant)` is its name in stores, such as `pitch:+2`.

    Attributes:
        unit: unit of `amount`, for messages.
        minimum: smallest `amount`.
        maximum: largest `amount`.
        identity: the `amount` that changes nothing; None if there is none.
        reach: samples on each side of a bad sample that become bad in the variant.
        amount: strength of the transformation.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    minimum: ClassVar[float]
    maximum: ClassVar[float]
    identity: ClassVar[float | None] = None
    reach: ClassVar[int] = 0

    amount: float

    @property
    def speed(self) -> float:
        """Speed of the variant relative to the track; 1 if the length does not change."""
        return 1.0

    def apply(self, samples: np.ndarray, key: str) -> np.ndarray:
        """Compute the variant.

        Args:
            samples: the track at `VARIANT_SR`, mono, float32 `(n,)`; not modified.
            key: content hash of the file, which seeds random numbers together with the variant's name.

        Returns:
            float32 `(round(n / speed),)`.
        """
        raise NotImplementedError

    def affected_ranges(self, gaps: Sequence[Sequence[float]], rate: int) -> list[list[float]]:
        """Convert sample ranges of the file to the ranges of the variant that depend on them.

        Args:
            gaps: [first, stop) sample ranges of the file.
            rate: sample rate of the file in Hz.

        Returns:
            [first, stop) sample ranges of the variant, at `VARIANT_SR`.
        """
        ratio = VARIANT_SR / rate
        reach = self.reach + (RESAMPLER_REACH if rate != VARIANT_SR else 0)
        return [[(start * ratio - reach) / self.speed, (stop * ratio + reach) / self.speed] for start, stop in gaps]

    def __str__(self) -> str:
        return f"{self.name}:{self.amount:g}"


@dataclass(frozen=True)
class Pitch(Variant):
    """Pitch shift by `amount` semitones at the same length: `librosa.effects.pitch_shift(..., res_type="soxr_hq")`."""

    name: ClassVar[str] = "pitch"
    unit: ClassVar[str] = "semitones"
    minimum: ClassVar[float] = -12.0
    maximum: ClassVar[float] = 12.0
    identity: ClassVar[float | None] = 0.0
    reach: ClassVar[int] = _VOCODER_REACH

    def apply(self, samples: np.ndarray, key: str) -> np.ndarray:
        """Return the shifted samples, float32 `(n,)`."""
        import librosa

        with _ignore_short_signals():
            return librosa.effects.pitch_shift(samples, sr=VARIANT_SR, n_steps=self.amount, res_type="soxr_hq")

    def __str__(self) -> str:
        return f"{self.name}:{self.amount:+g}"


@dataclass(frozen=True)
class Stretch(Variant):
    """Time stretch by a speed factor (above 1: faster) at the same pitch: `librosa.effects.time_stretch`."""

    name: ClassVar[str] = "stretch"
    unit: ClassVar[str] = "times as fast"
    minimum: ClassVar[float] = 0.5
    maximum: ClassVar[float] = 2.0
    identity: ClassVar[float | None] = 1.0
    reach: ClassVar[int] = _VOCODER_REACH

    @property
    def speed(self) -> float:
        """The speed factor, `amount`."""
        return self.amount

    def apply(self, samples: np.ndarray, key: str) -> np.ndarray:
        """Return the stretched samples, float32 `(round(n / speed),)`."""
        import librosa

        with _ignore_short_signals():
            return librosa.effects.time_stretch(samples, rate=self.amount)


@dataclass(frozen=True)
class Noise(Variant):
    """Additive white noise, `amount` dB below the mean power of the track.

    The noise is uniformly distributed: NumPy guarantees the stream of `Generator.random`, but not that of its normal
    numbers. The spectrum of a window of some hundred samples is practically the same.
    """

    name: ClassVar[str] = "noise"
    unit: ClassVar[str] = "dB below the track"
    minimum: ClassVar[float] = 0.0
    maximum: ClassVar[float] = 60.0

    def apply(self, samples: np.ndarray, key: str) -> np.ndarray:
        """Return the noisy samples, float32 `(n,)`."""
        seed = hashlib.sha256(f"{key}/{self}".encode()).digest()[:8]
        noise = np.random.default_rng(int.from_bytes(seed)).random(len(samples), np.float32)
        noise -= np.float32(0.5)
        power = float(np.square(samples, dtype=np.float64).mean()) if len(samples) else 0.0
        # The uniform distribution on an interval of width 1 has variance 1/12.
        noise *= np.float32(math.sqrt(12 * power * 10 ** (-self.amount / 10)))
        noise += samples
        return noise


_KINDS: dict[str, type[Variant]] = {kind.name: kind for kind in (Pitch, Stretch, Noise)}
_EXAMPLE = "write for instance --augment pitch:+2,stretch:0.9,noise:20"


def parse_variants(text: str) -> tuple[Variant, ...]:
    """Parse a comma-separated list of `pitch:SEMITONES`, `stretch:SPEED` and `noise[:SNR_DB]`, or `none`.

    Returns:
        The variants without duplicates, sorted by name and amount.

    Raises:
        SpecError: a variant is unknown, out of range or changes nothing.
    """
    variants = {_parse_one(part.strip()) for part in text.split(",")} if text != "none" else set()
    return tuple(sorted(variants, key=lambda variant: (variant.name, variant.amount)))


def _parse_one(text: str) -> Variant:
    name, colon, value = text.partition(":")
    kind = _KINDS.get(name)
    if kind is None:
        raise SpecError(f"--augment: unknown variant {text!r}", f"choose from {', '.join(_KINDS)}; {_EXAMPLE}")
    if kind is Noise and not colon:
        return Noise(DEFAULT_SNR_DB)
    try:
        # Rounded to the six digits of the variant's name, so that equal names are equal variants.
        amount = float(f"{float(value):g}")
    except ValueError:
        raise SpecError(f"--augment {text}: {value!r} is not a number", _EXAMPLE) from None
    if not kind.minimum <= amount <= kind.maximum:
        raise SpecError(f"--augment {text}", f"it must be {kind.minimum:g} to {kind.maximum:g} {kind.unit}")
    if amount == kind.identity:
        raise SpecError(f"--augment {text} changes nothing", f"leave it out, or {_EXAMPLE}")
    return kind(amount)


def variants_digest(variants: Sequence[Variant]) -> str:
    """Return six hexadecimal digits that identify a set of variants, for the name of a store's folder."""
    return hashlib.sha256(",".join(map(str, variants)).encode()).hexdigest()[:6]


def frame_multiplier(variants: Sequence[Variant]) -> float:
    """Return the number of frames of a track with its variants, relative to those of the track alone."""
    return 1 + sum(1 / variant.speed for variant in variants)


# ---------------------------------------------------------------- within a worker


@dataclass(frozen=True)
class Signal(FeatureSpec):
    """The samples of a track at `VARIANT_SR` in one piece: the input of variants, never stored."""

    name: ClassVar[str] = "signal"
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    max_duration_s: ClassVar[float | None] = MAX_DURATION_S

    sr: int = VARIANT_SR
    hop_length: int = 1
    dtype: str = "float32"

    @property
    def stage(self) -> tuple[Any, ...]:
        """`WholeTrackStage`, which yields nothing if the track is too long."""
        return WholeTrackStage, math.ceil(MAX_DURATION_S * VARIANT_SR) + 1

    def compute_frames(self, samples: np.ndarray) -> np.ndarray:
        """Return the samples unchanged, float32 `(n,)`."""
        return samples


class SampleCollector:
    """Collects the samples of the current track, with the interface of an output that writes a shard.

    Attributes:
        spec: `Signal()`.
        samples: the track at `VARIANT_SR`, float32 `(n,)`; None if it is longer than `MAX_DURATION_S`.
        n_frames: always 0; a writer's number of frames.
    """

    def __init__(self) -> None:
        self.spec = Signal()
        self.samples: np.ndarray | None = None
        self.n_frames = 0

    @property
    def writer(self) -> SampleCollector:
        """This object: it is its own writer."""
        return self

    def append(self, rows: np.ndarray) -> Clipped:
        """Store the samples of the whole track, which arrive at once; no value is clipped."""
        self.samples = rows
        return Clipped()

    def truncate(self, n_frames: int) -> None:
        """Discard the samples."""
        self.samples = None


def split_blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Split samples into blocks that stay in the processor's cache while they are analysed."""
    return (samples[first : first + _BLOCK_SAMPLES] for first in range(0, len(samples), _BLOCK_SAMPLES))


def _ignore_short_signals() -> warnings.catch_warnings:
    """Suppress librosa's warning about signals shorter than a window, which it pads."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)
