"""Audio features: their parameters, computation and storage, and the parser of feature specs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint
from typing import Any

from mgc.pipeline import plugins, suggestions
from mgc.pipeline.errors import SpecError
from mgc.pipeline.features.embedding import Embedding
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
    "Embedding",
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
    "feature_kind",
    "feature_names",
    "from_dict",
    "parse_feature",
]

#: mgc's own features that are extracted from audio, by name.
FEATURES: dict[str, type[FeatureSpec]] = {
    spec.name: spec for spec in (Stft, Mel, Mfcc, PowerSpectrum, Chroma, Harmonic, Percussive, Waveform, Stats)
}
#: Features that are made from the frames of others.
_DERIVED: dict[str, type[FeatureSpec]] = {Embedding.name: Embedding}


def feature_names() -> list[str]:
    """Names of all features that `mgc extract` makes: mgc's own, then those of plug-ins."""
    return [*FEATURES, *_plugin_features()]


def feature_kind(name: object) -> type[FeatureSpec] | None:
    """The class of a feature that `mgc extract` makes, from mgc or from a plug-in; None if there is none."""
    return FEATURES.get(name) or _plugin_features().get(name) if isinstance(name, str) else None


@cache
def _plugin_features() -> dict[str, type[FeatureSpec]]:
    return {name: plugin.value for name, plugin in plugins.load(plugins.FEATURES, _require_feature).items()}


def _require_feature(point: EntryPoint, value: Any) -> None:
    """Raise `TypeError` if the object of an entry point is no feature, or `ValueError` if its name cannot be used."""
    if not (isinstance(value, type) and issubclass(value, FeatureSpec) and dataclasses.is_dataclass(value)):
        raise TypeError("not a dataclass that is derived from FeatureSpec")
    if value.name != point.name:
        raise ValueError(f"the feature calls itself {value.name}: its entry point must have the same name")
    if point.name in FEATURES or point.name in _DERIVED:
        raise ValueError(f"mgc has a feature {point.name} itself")


def parse_feature(text: str, defaults: Mapping[str, Any] | None = None) -> FeatureSpec:
    """Parse a feature spec such as `mel:n_mels=96,hop_length=256`.

    Args:
        text: feature name, optionally followed by a colon and `key=value` pairs, separated by commas.
        defaults: parameters for all features of a command. Parameters that this feature does not have are ignored, as
            is a dtype that only other features support. Parameters in `text` take precedence and are never ignored.

    Raises:
        SpecError: unknown feature or parameter, or a value out of range.
    """
    name, _, settings = text.partition(":")
    kind = feature_kind(name)
    if name in _DERIVED:
        raise SpecError(f"--feature {name}: it is not made of audio", f"`{_DERIVED[name].command}` makes it of a store")
    if kind is None:
        hint = suggestions.question(suggestions.nearest(name, feature_names()))
        raise SpecError(f"unknown feature {name!r}", f"{hint}choose from {', '.join(feature_names())}")
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
    """Rebuild a spec from the output of `FeatureSpec.as_dict`; strings are converted to each field's type.

    Raises:
        SpecError: unknown feature or parameter, or a value of the wrong type or out of range.
    """
    settings = dict(values)
    name, package = settings.pop("feature", None), settings.pop("package", None)
    kind = _DERIVED.get(name) if isinstance(name, str) else None
    kind = kind or feature_kind(name)
    if kind is None and package is not None:
        raise SpecError(f"the feature {name!r} comes from the package {package}, which does not load", "install it")
    if kind is None:
        raise SpecError(f"unknown feature {name!r}", f"choose from {', '.join(feature_names())}")
    return kind.from_settings(settings)
