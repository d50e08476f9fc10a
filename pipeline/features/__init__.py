"""The features: what each one's parameters are, what it makes of a signal, and how its frames are stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mgc.pipeline.errors import SpecError
from mgc.pipeline.features.separation import Harmonic, Percussive
from mgc.pipeline.features.spec import FeatureSpec
from mgc.pipeline.features.spectral import HEADROOM_DB, STEP_DB, Chroma, Mel, Mfcc, PowerSpectrum, Spectral, Stft
from mgc.pipeline.features.stats import Stats
from mgc.pipeline.features.waveform import Waveform

__all__ = [
    "FEATURES",
    "HEADROOM_DB",
    "STEP_DB",
    "Chroma",
    "FeatureSpec",
    "Harmonic",
    "Mel",
    "Mfcc",
    "Percussive",
    "PowerSpectrum",
    "Spectral",
    "Stats",
    "Stft",
    "Waveform",
    "from_dict",
    "parse_feature",
]

FEATURES: dict[str, type[FeatureSpec]] = {
    spec.name: spec for spec in (Stft, Mel, Mfcc, PowerSpectrum, Chroma, Harmonic, Percussive, Waveform, Stats)
}


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
    return kind.from_settings(values)


def from_dict(values: Mapping[str, Any]) -> FeatureSpec:
    """The spec that `FeatureSpec.as_dict` made `values` of; text is converted to each field's type.

    Raises:
        SpecError: unknown feature or parameter, or a value of the wrong type or out of range.
    """
    settings = dict(values)
    kind = FEATURES.get(settings.pop("feature", None))
    if kind is None:
        raise SpecError(f"unknown feature {values.get('feature')!r}", f"choose from {', '.join(FEATURES)}")
    return kind.from_settings(settings)
