"""The features: what each one's parameters are, what it makes of power spectra, and how its frames are stored.

Levels are absolute dB (`ref=1.0`, no `top_db`): what depends on a slice is applied when the slice is read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np

from pipeline.analysis import Power, to_db
from pipeline.errors import SpecError

#: Room above a full-scale sine in the uint8 range: clipped MP3s decode to peaks of about twice full scale.
HEADROOM_DB = 7.0
STEP_DB = 0.5
#: What still rounds down to step 255.
_LAST_STEP = np.nextafter(np.float32(256), np.float32(0))


@dataclass(frozen=True)
class FeatureSpec:
    """What identifies the stored frames of one feature. Subclasses add a name and their parameters.

    Attributes:
        sr: sample rate in Hz the audio is resampled to.
        n_fft: length of the Fourier transform and of its window, in samples (even).
        hop_length: samples between frames.
        dtype: how frames are stored: uint8 in steps of 0.5 dB, float16 or float32.
    """

    name: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "float16", "float32")

    sr: int = 22050
    n_fft: int = 2048
    hop_length: int = 512
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        self._require(1000 <= self.sr <= 384_000, "sr", "1000 to 384000 Hz")
        self._require(16 <= self.n_fft <= 65536 and self.n_fft % 2 == 0, "n_fft", "an even number, 16 to 65536 samples")
        self._require(1 <= self.hop_length <= self.n_fft, "hop_length", f"1 to n_fft ({self.n_fft}) samples")
        self._require(self.dtype in self.dtypes, "dtype", " or ".join(self.dtypes))

    def _require(self, holds: bool, field: str, allowed: str) -> None:
        if not holds:
            raise SpecError(f"{self.name}: {field}={getattr(self, field)}", f"it must be {allowed}")

    @property
    def bins(self) -> int:
        """Values per frame."""
        raise NotImplementedError

    def rows(self, power: Power) -> np.ndarray:
        """Frames of this feature, float32 `(n, bins)`, from power spectra."""
        raise NotImplementedError

    def full_scale_db(self) -> float:
        """Level of a full-scale sine in the most sensitive bin, in dB."""
        raise NotImplementedError

    def frames(self, seconds: float) -> int:
        """Frames of a signal of this length: `1 + floor(seconds * sr / hop_length)`."""
        return 1 + self.frame_at(seconds)

    def frame_at(self, seconds: float) -> int:
        """The frame at a moment: `floor(seconds * sr / hop_length)`; exact where floating point falls just short."""
        return math.floor(seconds * self.sr / self.hop_length + 1e-9)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sr / self.hop_length

    @property
    def quantised(self) -> bool:
        """Whether frames are stored as integers that `scale` and `offset` turn into dB."""
        return self.dtype == "uint8"

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
            out[...] = rows
            return 0
        steps = rows * np.float32(1 / STEP_DB)
        steps += np.float32(0.5 - self.offset / STEP_DB)
        # One pass to clip and one to compare: cheaper than counting below and above in turn.
        clipped = np.clip(steps, 0.0, _LAST_STEP)
        out[...] = clipped
        return int(np.count_nonzero(clipped != steps))

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """float32 values of stored frames."""
        return stored.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)

    def as_dict(self) -> dict[str, Any]:
        """The spec as plain values, with its name: what `store.json` holds and `from_dict` reads."""
        return {"feature": self.name, **dataclasses.asdict(self)}

    @property
    def digest(self) -> str:
        """Six hexadecimal digits that identify the spec: a store's folder is `<name>-<digest>`."""
        # By way of `from_dict`, so that equal specs, say with fmin=0 and fmin=0.0, have one digest.
        canonical = json.dumps(from_dict(self.as_dict()).as_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:6]

    def __str__(self) -> str:
        values = dataclasses.asdict(self)
        return f"{self.name} " + " ".join(f"{key}={value}" for key, value in values.items() if value is not None)


@dataclass(frozen=True)
class Stft(FeatureSpec):
    """Magnitude of the STFT in dB: `librosa.amplitude_to_db(abs(librosa.stft(y)), ref=1, top_db=None)`."""

    name: ClassVar[str] = "stft"

    sr: int = 44100
    n_fft: int = 1024

    @property
    def bins(self) -> int:
        """`1 + n_fft / 2` frequencies, 0 Hz first."""
        return 1 + self.n_fft // 2

    def rows(self, power: Power) -> np.ndarray:
        """float32 `(n, bins)`, dB."""
        return to_db(power.spectrum)

    def full_scale_db(self) -> float:
        """A sine on a bin has magnitude `sum(window) / 2`, a quarter of `n_fft`."""
        return 20 * math.log10(self.n_fft / 4)


@dataclass(frozen=True)
class Mel(FeatureSpec):
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
        return _mel_bank(self.sr, self.n_fft, self.n_mels, self.fmin, self.fmax)

    def pool(self, spectrum: np.ndarray) -> np.ndarray:
        """float32 `(n, n_mels)`: power spectra `(n, 1 + n_fft/2)` summed up by the filter bank."""
        pooled = np.empty((len(spectrum), self.n_mels), np.float32)
        for bands, bins, weights in _mel_blocks(self.sr, self.n_fft, self.n_mels, self.fmin, self.fmax):
            np.matmul(spectrum[:, bins], weights, out=pooled[:, bands])
        return pooled

    def rows(self, power: Power) -> np.ndarray:
        """float32 `(n, n_mels)`, dB."""
        return power.log_mel(self)

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

    def rows(self, power: Power) -> np.ndarray:
        """float32 `(n, n_mfcc)`: orthonormal DCT-II of the log-mel bands.

        It mixes the bands at the floor, where a float32 transform is decibels off, into every coefficient: up to 0.1 for
        a pure tone, 0.04 for music at 44.1 kHz.
        """
        return power.precise_log_mel(self) @ _dct_basis(self.n_mels, self.n_mfcc)


FEATURES: dict[str, type[FeatureSpec]] = {spec.name: spec for spec in (Stft, Mel, Mfcc)}


def parse_feature(text: str, defaults: Mapping[str, Any] | None = None) -> FeatureSpec:
    """The spec of `NAME[:key=value,...]`, for instance `mel:n_mels=96,hop_length=256`.

    Args:
        text: the feature as typed.
        defaults: parameters for every feature of a call; those a feature does not have, or a dtype that only another
            feature can be stored in, do not apply to it. What `text` itself sets must apply.

    Raises:
        SpecError: unknown feature or parameter, or a value out of range.
    """
    name, _, settings = text.partition(":")
    if name not in FEATURES:
        raise SpecError(f"unknown feature {name!r}", f"choose from {', '.join(FEATURES)}")
    kind = FEATURES[name]
    fields = {field.name for field in dataclasses.fields(kind)}
    values = {key: value for key, value in (defaults or {}).items() if key in fields and value is not None}
    if values.get("dtype") in {dtype for other in FEATURES.values() for dtype in other.dtypes} - set(kind.dtypes):
        del values["dtype"]
    for setting in filter(None, settings.split(",")):
        key, equals, value = setting.partition("=")
        key = key.strip().replace("-", "_")
        if key not in fields or not equals:
            raise SpecError(
                f"{name}: {setting!r} is not a parameter", f"write key=value with {', '.join(sorted(fields))}"
            )
        values[key] = value.strip()
    return from_dict({"feature": name, **values})


def from_dict(values: Mapping[str, Any]) -> FeatureSpec:
    """The spec that `FeatureSpec.as_dict` made `values` of; text is converted to each field's type.

    Raises:
        SpecError: unknown feature or parameter, or a value of the wrong type or out of range.
    """
    settings = dict(values)
    kind = FEATURES.get(settings.pop("feature", None))
    if kind is None:
        raise SpecError(f"unknown feature {values.get('feature')!r}", f"choose from {', '.join(FEATURES)}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key, value in settings.items():
        if key not in fields:
            raise SpecError(f"{kind.name}: unknown parameter {key!r}", f"choose from {', '.join(fields)}")
        settings[key] = _convert(kind.name, key, value, str(fields[key].type))
    return kind(**settings)


def _convert(feature: str, key: str, value: Any, annotation: str) -> Any:
    """`value` as the field's annotated type, which is `int`, `str`, `float` or `float | None`."""
    if value is None or (isinstance(value, str) and value.lower() in ("", "none")):
        if "None" in annotation:
            return None
        raise SpecError(f"{feature}: {key} has no value", f"give {key} a number")
    kind = {"int": int, "str": str}.get(annotation, float)
    try:
        converted = kind(value)
        if kind is int and not isinstance(value, str) and converted != value:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise SpecError(f"{feature}: {key}={value}", f"it must be of type {kind.__name__}") from None
    if kind is float and not math.isfinite(converted):
        raise SpecError(f"{feature}: {key}={value}", "it must be finite")
    return converted


@cache
def _mel_bank(sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None) -> np.ndarray:
    import warnings

    import librosa.filters  # here because it brings in numba, which takes a second

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters")  # very many bands of a short FFT: librosa's choice
        bank = librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
    return np.ascontiguousarray(bank.T, dtype=np.float32)


#: Bands per product. Nearly all weights of the bank are zero: eight products of the bins that 16 bands reach take
#: 0.5 ms for a 30 s clip, one product with the whole bank 3.5; their levels agree to 3e-6 dB.
_BANDS = 16


@cache
def _mel_blocks(
    sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None
) -> tuple[tuple[slice, slice, np.ndarray], ...]:
    """The filter bank in pieces: (bands, the bins they reach, their weights)."""
    bank = _mel_bank(sr, n_fft, n_mels, fmin, fmax)
    blocks = []
    for first in range(0, n_mels, _BANDS):
        bands = slice(first, min(first + _BANDS, n_mels))
        reached = np.flatnonzero(bank[:, bands].any(axis=1))
        bins = slice(reached[0], reached[-1] + 1) if len(reached) else slice(0, 0)
        blocks.append((bands, bins, np.ascontiguousarray(bank[bins, bands])))
    return tuple(blocks)


@cache
def _dct_basis(n_mels: int, n_mfcc: int) -> np.ndarray:
    import scipy.fft

    return np.ascontiguousarray(scipy.fft.dct(np.eye(n_mels), type=2, norm="ortho")[:, :n_mfcc], dtype=np.float32)
