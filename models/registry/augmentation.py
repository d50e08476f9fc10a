"""What may be asked for to happen to the slices that a network is trained on; `mgc.models.data.augment` does it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Self

from mgc.pipeline.errors import SpecError
from mgc.pipeline.features import FeatureSpec


@dataclass(frozen=True)
class Augmentation:
    """Which changes, and how strong; what is 0 does not happen.

    Attributes:
        time_masks: blocks of frames that are replaced by the slice's mean (Park et al., "SpecAugment", 2019).
        time_width: frames of such a block at most; its width is drawn evenly from 0 on.
        band_masks: the same for blocks of neighbouring bins.
        band_width: bins of such a block at most.
        shift: frames by which a slice is turned round at most, either way.
        gain: dB by which it is louder or softer at most.
        noise: largest standard deviation of Gaussian noise; drawn evenly from a fifteenth of it on. Samples only, as
            are the following.
        stretch: tempo, drawn evenly from its inverse to itself; the length stays, zeros fill what is missing.
        pitch: semitones at most, up or down.
        probability: that noise, stretch and pitch, each for itself, happen to a slice.
        polarity: probability that the sign of the samples changes.
        mixup: parameter of the beta distribution that shares are drawn from when two slices and their labels are
            added (Zhang et al., "mixup", 2018).
    """

    time_masks: int = 0
    time_width: int = 0
    band_masks: int = 0
    band_width: int = 0
    shift: int = 0
    gain: float = 0.0
    noise: float = 0.0
    stretch: float = 0.0
    pitch: float = 0.0
    probability: float = 0.5
    polarity: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        limits = {"stretch": 2.0, "pitch": 12.0, "probability": 1.0, "polarity": 1.0}
        for name, value in dataclasses.asdict(self).items():
            most = limits.get(name, math.inf)
            if not 0 <= value <= most or (name == "stretch" and 0 < value < 1):
                span = "0 or from 1 to 2" if name == "stretch" else f"from 0 to {most:g}" if name in limits else ">= 0"
                raise SpecError(f"--augment {name.replace('_', '-')}={value:g}", f"it must be {span}")
        for masks, width in (("time_masks", "time_width"), ("band_masks", "band_width")):
            if bool(getattr(self, masks)) != bool(getattr(self, width)):
                names = " and ".join((masks, width)).replace("_", "-")
                raise SpecError(f"--augment: one of {names} is given without the other", "give both, or neither")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The augmentation of `key=value,...`, such as `time-masks=2,time-width=20,mixup=0.2`, or of `none`.

        Raises:
            SpecError: an unknown key, or a value that is no number or out of its range.
        """
        kinds: dict[str, Any] = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for setting in text.split(",") if text != "none" else ():
            key, equals, value = (part.strip() for part in setting.partition("="))
            name = key.replace("-", "_")
            if name not in kinds or not equals:
                choices = ", ".join(kinds).replace("_", "-")
                raise SpecError(f"--augment: {setting!r} is not a setting", f"write key=value with {choices}")
            try:
                values[name] = kinds[name](value)
            except ValueError:
                whole = "a whole number" if kinds[name] is int else "a number"
                raise SpecError(f"--augment {key}={value}", f"it must be {whole}") from None
        return cls(**values)

    def check(self, spec: FeatureSpec) -> None:
        """Raise `SpecError` where something does not apply to a feature."""
        of_samples = ("noise", "stretch", "pitch", "polarity")
        of_levels = ("time_masks", "band_masks")
        foreign = of_levels if spec.name == "waveform" else of_samples
        if spec.name not in ("waveform", "stft", "mel", "harmonic", "percussive"):
            foreign = (*foreign, "gain")  # which adds the same to all levels, and to nothing else
        for name in foreign:
            if getattr(self, name):
                setting = name.replace("_", "-")
                raise SpecError(f"--augment {setting} does not apply to {spec.name}", f"leave {setting} out")

    def __bool__(self) -> bool:
        return any(value for name, value in dataclasses.asdict(self).items() if name != "probability")

    def __str__(self) -> str:
        """As `parse` reads it; `none` where nothing happens."""
        fields = dataclasses.fields(self)
        values = {
            field.name: getattr(self, field.name) for field in fields if getattr(self, field.name) != field.default
        }
        return ",".join(f"{name.replace('_', '-')}={value:g}" for name, value in values.items()) if self else "none"


#: Slices are learnt from as they are.
UNCHANGED = Augmentation()
