"""Augmentation settings for training slices. `mgc.models.data.augment` applies them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Self

from mgc.pipeline.errors import SpecError
from mgc.pipeline.features import FeatureSpec


@dataclass(frozen=True)
class Augmentation:
    """Strength of each augmentation; 0 turns it off.

    Masks apply to spectrograms; noise, stretch, pitch and polarity apply to samples. Every strength is drawn anew for
    each slice and epoch, the share of mixup for each batch.

    Attributes:
        time_masks: number of time masks; the frames of a mask are replaced by the slice's mean (Park et al.,
            "SpecAugment", 2019).
        time_width: maximum width of a time mask in frames; the width is drawn uniformly from 0 to this.
        band_masks: number of frequency masks; the bins of a mask are replaced by the slice's mean.
        band_width: maximum width of a frequency mask in bins; the width is drawn uniformly from 0 to this.
        shift: maximum circular shift in frames, in either direction.
        gain: maximum change of level in dB, up or down.
        noise: maximum standard deviation of Gaussian noise, drawn uniformly from [noise / 15, noise].
        stretch: time-stretch factor, drawn uniformly from [1 / stretch, stretch]. The output keeps the input's length:
            cropped, or padded with zeros.
        pitch: maximum pitch shift in semitones, up or down.
        probability: probability of noise, of stretch and of pitch, drawn independently for each of them.
        polarity: probability of inverting the sign of the samples.
        mixup: parameter alpha of the Beta(alpha, alpha) distribution from which the mixing share of two slices and
            their labels is drawn (Zhang et al., "mixup", 2018).

    Raises:
        SpecError: a value is out of its range, or masks have no width.
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
            upper = limits.get(name, math.inf)
            if not 0 <= value <= upper or (name == "stretch" and 0 < value < 1):
                span = "0 or from 1 to 2" if name == "stretch" else f"from 0 to {upper:g}" if name in limits else ">= 0"
                raise SpecError(f"--augment {name.replace('_', '-')}={value:g}", f"it must be {span}")
        for masks, width in (("time_masks", "time_width"), ("band_masks", "band_width")):
            if bool(getattr(self, masks)) != bool(getattr(self, width)):
                names = " and ".join((masks, width)).replace("_", "-")
                raise SpecError(f"--augment: one of {names} is given without the other", "give both, or neither")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the value of `mgc train --augment`.

        Args:
            text: `none`, or settings as `key=value,...`, such as `time-masks=2,time-width=20,mixup=0.2`.

        Raises:
            SpecError: a key is unknown, or a value is not a number or out of its range.
        """
        types: dict[str, Any] = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for setting in text.split(",") if text != "none" else ():
            key, equals, value = (part.strip() for part in setting.partition("="))
            name = key.replace("-", "_")
            if name not in types or not equals:
                choices = ", ".join(types).replace("_", "-")
                raise SpecError(f"--augment: {setting!r} is not a setting", f"write key=value with {choices}")
            try:
                values[name] = types[name](value)
            except ValueError:
                whole = "a whole number" if types[name] is int else "a number"
                raise SpecError(f"--augment {key}={value}", f"it must be {whole}") from None
        return cls(**values)

    def check(self, spec: FeatureSpec) -> None:
        """Raise `SpecError` if a setting does not apply to a feature."""
        for_samples = ("noise", "stretch", "pitch", "polarity")
        for_spectrograms = ("time_masks", "band_masks")
        inapplicable = for_spectrograms if spec.name == "waveform" else for_samples
        if spec.name not in ("waveform", "stft", "mel", "harmonic", "percussive"):
            # A gain is a constant added to levels in dB; other features do not consist of such levels.
            inapplicable = (*inapplicable, "gain")
        for name in inapplicable:
            if getattr(self, name):
                setting = name.replace("_", "-")
                raise SpecError(f"--augment {setting} does not apply to {spec.name}", f"leave {setting} out")

    def __bool__(self) -> bool:
        """Whether any augmentation is turned on; `probability` alone changes nothing."""
        return any(value for name, value in dataclasses.asdict(self).items() if name != "probability")

    def __str__(self) -> str:
        """The settings in the format that `parse` reads; `none` if every augmentation is off."""
        fields = dataclasses.fields(self)
        values = {
            field.name: getattr(self, field.name) for field in fields if getattr(self, field.name) != field.default
        }
        return ",".join(f"{name.replace('_', '-')}={value:g}" for name, value in values.items()) if self else "none"


#: Training on the slices as they are stored.
NO_AUGMENTATION = Augmentation()
