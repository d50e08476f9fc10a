"""What all features have in common: parameters that identify stored frames, where frames lie, how values are stored."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from mgc.pipeline.errors import SpecError


class FeatureSpec:
    """What identifies the stored frames of one feature. Subclasses are frozen dataclasses of their parameters.

    Attributes:
        sr: sample rate in Hz the audio is resampled to.
        hop_length: samples between frames.
        dtype: how frames are stored.
        longest_s: seconds of the longest track the feature can be made of; None where memory does not grow with it.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    name: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]]
    #: Of the values, where they are stored as integers.
    units: ClassVar[str] = "dB"
    max_duration_s: ClassVar[float | None] = None

    sr: int
    hop_length: int
    dtype: str

    def __post_init__(self) -> None:
        self._require(1000 <= self.sr <= 384_000, "sr", "1000 to 384000 Hz")
        self._require(self.dtype in self.dtypes, "dtype", " or ".join(self.dtypes))

    def _require(self, holds: bool, field: str, allowed: str) -> None:
        if not holds:
            raise SpecError(f"{self.name}: {field}={getattr(self, field)}", f"it must be {allowed}")

    # -- frames -----------------------------------------------------------------------------------------------------

    @property
    def bins(self) -> int:
        """Values per frame."""
        raise NotImplementedError

    @property
    def stage(self) -> tuple[Any, ...]:
        """What makes the input of `rows`: a class of `dsp.stages` and its arguments. Equal ones run once."""
        raise NotImplementedError

    def compute_frames(self, made: Any) -> np.ndarray:
        """Frames of this feature, float32 `(n, bins)`, from what its stage has made of the signal."""
        raise NotImplementedError

    def frames(self, seconds: float) -> int:
        """Frames of a signal of this length: `1 + floor(seconds * sr / hop_length)`."""
        return 1 + self.frame_at(seconds)

    def frame_at(self, seconds: float) -> int:
        """The frame at a moment: `floor(seconds * sr / hop_length)`; exact where floating point falls just short."""
        return math.floor(seconds * self.sr / self.hop_length + 1e-9)

    @property
    def frame_rate(self) -> float:
        """Frames per second; 0 where a track is one frame."""
        return self.sr / self.hop_length

    def affected_frames(self, first: float, stop: float) -> tuple[int, int]:
        """The range of frames [first, stop) that depend on a range of samples at the rate of the spec."""
        raise NotImplementedError

    # -- storage ----------------------------------------------------------------------------------------------------

    @property
    def quantised(self) -> bool:
        """Whether frames are stored as integers that `scale` and `offset` turn into values."""
        return np.dtype(self.dtype).kind in "iu"

    @property
    def scale(self) -> float:
        """Units per step of the stored integer; 1 for floating-point frames."""
        return 1.0

    @property
    def offset(self) -> float:
        """Value of the stored integer 0; 0 for floating-point frames. Fixed by the spec, never taken from data."""
        return 0.0

    def encode(self, rows: np.ndarray, out: np.ndarray) -> int:
        """Store float32 `rows` in `out` (same shape, the spec's dtype); how many values were outside its range."""
        out[...] = rows
        return 0

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """float32 values of stored frames."""
        return stored.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)

    # -- identity ---------------------------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """The spec as plain values, with its name: what `store.json` holds and `from_dict` reads."""
        package = type(self).__module__.partition(".")[0]
        origin = {} if package == "mgc" else {"package": package}
        return {"feature": self.name, **origin, **dataclasses.asdict(self)}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """The spec of these parameters; text is converted to each field's type.

        Raises:
            SpecError: an unknown parameter, or a value of the wrong type or out of range.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        values = {}
        for key, value in settings.items():
            if key not in fields:
                raise SpecError(f"{cls.name}: unknown parameter {key!r}", f"choose from {', '.join(fields)}")
            values[key] = _convert(cls.name, key, value, str(fields[key].type))
        return cls(**values)

    @property
    def digest(self) -> str:
        """Six hexadecimal digits that identify the spec: a store's folder is `<name>-<digest>`."""
        # By way of `from_settings`, so that equal specs, say with fmin=0 and fmin=0.0, have one digest.
        canonical = json.dumps(self.from_settings(dataclasses.asdict(self)).as_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:6]

    def __str__(self) -> str:
        values = dataclasses.asdict(self)
        return f"{self.name} " + " ".join(f"{key}={value}" for key, value in values.items() if value is not None)


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
