"""Base class of all features: parameters and identity, framing, and the storage of values."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from mgc.pipeline.errors import SpecError


@dataclass(frozen=True)
class Clipped:
    """Numbers of values that were clipped to the range of a stored dtype.

    Attributes:
        total: number of values outside the range.
        above: how many of them lay above it, which is distortion, while what lies below the range of levels is silence;
            None if that was not counted.
    """

    total: int = 0
    above: int | None = 0

    def __add__(self, other: Clipped) -> Clipped:
        above = self.above + other.above if self.above is not None and other.above is not None else None
        return Clipped(self.total + other.total, above)

    @classmethod
    def of(cls, result: int | Clipped) -> Clipped:
        """Return the result of `FeatureSpec.encode`, which may be the total alone."""
        return result if isinstance(result, Clipped) else cls(int(result), 0 if not result else None)


class FeatureSpec:
    """Parameters of one feature; they identify the store of its frames.

    Subclasses are frozen dataclasses whose fields are the parameters. They define `name`, `dtypes`, `bins`, `stage`,
    `compute_frames` and `affected_frames`; for dtypes of integers also `scale`, `offset` and `encode`.

    Attributes:
        name: name of the feature on the command line and in store names.
        dtypes: supported storage dtypes.
        units: unit of the values that stored integers represent.
        max_duration_s: duration of the longest supported track in seconds; None if memory does not grow with duration.
        command: the command that makes stores of the feature.
        sr: sample rate in Hz to which the audio is resampled.
        hop_length: samples between frames.
        dtype: storage dtype.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    name: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]]
    units: ClassVar[str] = "dB"
    max_duration_s: ClassVar[float | None] = None
    command: ClassVar[str] = "mgc extract"

    sr: int
    hop_length: int
    dtype: str

    def __post_init__(self) -> None:
        self._require(1000 <= self.sr <= 384_000, "sr", "1000 to 384000 Hz")
        self._require(self.dtype in self.dtypes, "dtype", " or ".join(self.dtypes))

    def _require(self, valid: bool, field: str, allowed: str) -> None:
        if not valid:
            raise SpecError(f"{self.name}: {field}={getattr(self, field)}", f"it must be {allowed}")

    # -- frames -----------------------------------------------------------------------------------------------------

    @property
    def bins(self) -> int:
        """Values per frame."""
        raise NotImplementedError

    @property
    def stage(self) -> tuple[Any, ...]:
        """The stage that makes the input of `compute_frames`: its class (see `mgc.pipeline.dsp.stages`) and arguments.

        Features with equal stages share one.
        """
        raise NotImplementedError

    def compute_frames(self, stage_output: Any) -> np.ndarray:
        """Compute frames of this feature, float32 `(n, bins)`, from one output of its stage."""
        raise NotImplementedError

    def frames(self, seconds: float) -> int:
        """Return the number of frames of a signal of this duration: `1 + floor(seconds * sr / hop_length)`."""
        return 1 + self.frame_at(seconds)

    def frame_at(self, seconds: float) -> int:
        """Return the index of the frame at a time: `floor(seconds * sr / hop_length)`."""
        # 1e-9 corrects products that rounding puts just below an integer.
        return math.floor(seconds * self.sr / self.hop_length + 1e-9)

    @property
    def frame_rate(self) -> float:
        """Frames per second; 0 if every track has one frame."""
        return self.sr / self.hop_length

    def affected_frames(self, first: float, stop: float) -> tuple[int, int]:
        """Return the range of frames that depend on a range of samples.

        Args:
            first: first sample, at the sample rate `sr`.
            stop: sample after the last.

        Returns:
            First frame and frame after the last; they may lie outside the track.
        """
        raise NotImplementedError

    # -- storage ----------------------------------------------------------------------------------------------------

    @property
    def quantised(self) -> bool:
        """True if frames are stored as integers, which represent `stored * scale + offset`."""
        return np.dtype(self.dtype).kind in "iu"

    @property
    def scale(self) -> float:
        """Step of the stored integers in `units`; 1 for floating-point frames."""
        return 1.0

    @property
    def offset(self) -> float:
        """Value of the stored integer 0; 0 for floating-point frames. It depends on the spec, not on the audio."""
        return 0.0

    def encode(self, rows: np.ndarray, out: np.ndarray) -> int | Clipped:
        """Write float32 `rows` to `out` (same shape, the spec's dtype) and count the values outside its range.

        Returns:
            The number of these values; as `Clipped` it also tells how many lay above the range.
        """
        out[...] = rows
        return 0

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """Convert stored frames to float32 values of the same shape."""
        return stored.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)

    # -- identity ---------------------------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """Return the feature's name and parameters as plain values, for `store.json`; `from_dict` is the inverse."""
        package = type(self).__module__.partition(".")[0]
        origin = {} if package == "mgc" else {"package": package}
        return {"feature": self.name, **origin, **dataclasses.asdict(self)}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Build a spec from parameters; strings are converted to each field's type.

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
        """Six hexadecimal digits that identify the spec; a store's folder is named `<name>-<digest>`."""
        # `from_settings` converts types, so that equal specs (fmin=0 and fmin=0.0) have one digest.
        canonical = json.dumps(self.from_settings(dataclasses.asdict(self)).as_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:6]

    def as_option(self) -> str:
        """Return the feature as `--feature` takes it: its name, and the parameters that differ from their defaults."""
        settings = [
            f"{field.name}={value}"
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        ]
        return ":".join([self.name, *([",".join(settings)] if settings else [])])

    def __str__(self) -> str:
        values = dataclasses.asdict(self)
        return f"{self.name} " + " ".join(f"{key}={value}" for key, value in values.items() if value is not None)


def _convert(feature: str, key: str, value: Any, annotation: str) -> Any:
    """Convert a value to the field's annotated type: `int`, `str`, `float` or `float | None`."""
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
