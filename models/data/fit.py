"""Fit of stores to a system: the frames that it reads of each slice, and the settings that differ from its study."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mgc.models.registry.systems import InputSpec, System
from mgc.pipeline.errors import ModelError
from mgc.pipeline.features import Embedding, FeatureSpec, parse_feature
from mgc.pipeline.store.slicing import Slicing

#: Short names of feature settings in lists of differences.
_LABELS = {"sr": "rate", "hop_length": "hop", "n_mels": "bands"}

#: Settings that change nothing that the model sees, up to half a quantisation step: the number of stored coefficients,
#: of which it uses the first ones, and the dtype.
_IMMATERIAL = ("n_mfcc", "dtype")


@dataclass(frozen=True)
class Fit:
    """Frames that a system reads of each slice, and differences from its study.

    Attributes:
        frames: for each store, the frames of the window that the system sees of a slice, cut at random in training and
            from the centre otherwise; None if it sees the whole slice.
        differences: settings that differ from the study's, such as `hop 512 for 604` (used, then the study's); empty if
            everything is as published.
    """

    frames: tuple[int | None, ...]
    differences: tuple[str, ...]


def check_fit(
    system: System,
    specs: Sequence[FeatureSpec],
    slicing: Slicing,
    lengths: Sequence[int],
    stores: Sequence[str],
    *,
    frontend: bool = False,
) -> Fit:
    """Check that a system can be trained on its stores, one for each of its inputs.

    Args:
        system: system to train.
        specs: feature of each store.
        slicing: slicing of the stores.
        lengths: frames per slice in each store; if slices are whole tracks, those of a typical one.
        stores: path of each store, for error messages.
        frontend: whether the device computes the features, whose frames differ from the stores'; error messages then
            give lengths in seconds.

    Raises:
        ModelError: the system cannot be trained on these stores; the remedy is a command.
    """
    for input_spec, spec, store in zip(system.inputs, specs, stores, strict=True):
        require_feature(system, input_spec, spec, store)
    frames = _windows(system.inputs, specs, lengths)
    for input_spec, window, length, store in zip(system.inputs, frames, lengths, stores, strict=True):
        min_frames = input_spec.min_frames or input_spec.frames or 1
        if (length if window is None else window) < min_frames:
            option = f"--frames {system.input.frames}"
            if frontend:
                seconds = ((system.input.frames or min_frames) - 1) / specs[0].frame_rate
                option = f"--slice {math.ceil(seconds * 100) / 100:g}"
            cut_longer = f"cut longer ones: `mgc slice {shlex.quote(stores[0])} {option}`"
            raise ModelError(
                f"{system.id} needs slices of at least {min_frames} frames, those of {store} have {length}",
                "extract longer tracks: its slices are whole tracks" if slicing.whole else cut_longer,
            )
    differences = [
        f"{spec.name}: {line}" if len(specs) > 1 else line
        for input_spec, spec, study, window in zip(system.inputs, specs, _study_features(system), frames, strict=True)
        for line in _differences(input_spec, spec, study, window)
    ]
    if str(slicing) != str(system.recipe.slicing):
        differences.append(f"{slicing} for {system.recipe.slicing}")
    return Fit(frames, tuple(differences))


def typical_length(lengths: np.ndarray) -> int:
    """Return the lower median of slice lengths in frames: the window, to which shorter slices are repeated.

    Slices differ in length with `mgc slice --whole` only.

    Raises:
        ModelError: there are no slices.
    """
    if not len(lengths):
        raise ModelError("no slice of a training track lies in all of the stores", "cut shorter ones: `mgc slice`")
    return int(np.sort(lengths)[(len(lengths) - 1) // 2])


def _windows(
    inputs: Sequence[InputSpec], specs: Sequence[FeatureSpec], lengths: Sequence[int]
) -> tuple[int | None, ...]:
    """Frames of the window in each store; the windows of several stores have the same duration."""
    frames = tuple(
        min(input_spec.frames, length) if input_spec.frames else None
        for input_spec, length in zip(inputs, lengths, strict=True)
    )
    if len(frames) == 1 or not all(spec.frame_rate for spec in specs):  # one frame per track has no duration
        return frames
    counts = [length if window is None else window for window, length in zip(frames, lengths, strict=True)]
    seconds = min(count / spec.frame_rate for count, spec in zip(counts, specs, strict=True))
    return tuple(math.floor(seconds * spec.frame_rate + 1e-9) for spec in specs)


def _study_features(system: System) -> tuple[FeatureSpec, ...]:
    """The feature that the study used for each input."""
    features = system.recipe.features, *system.recipe.further
    return features[:1] * len(system.inputs) if system.several else features


def require_feature(system: System, input_spec: InputSpec, spec: FeatureSpec, store: str) -> None:
    """Check that an input can be made from the feature of a store.

    Args:
        system: system with the input.
        input_spec: the input.
        spec: feature of the store.
        store: path of the store, for error messages.

    Raises:
        ModelError: the feature is another one, or has another number of bands.
    """
    if spec.name not in input_spec.features:
        remedy = f"extract them: `mgc extract --feature {input_spec.features[0]}`"
        if input_spec.features[0] == Embedding.name:
            remedy = f"`mgc extract --for {system.id}` makes them"
        if spec.name == "waveform" and input_spec.adapter != "statistics":
            remedy += ", or compute them: --frontend device"
        raise ModelError(
            f"{system.id} needs {' or '.join(input_spec.features)} features, {store} holds {spec.name}", remedy
        )
    if input_spec.stored_bands is None:
        return
    if input_spec.adapter == "mfcc":
        if spec.bins < input_spec.stored_bands:
            setting = "n_mels=128" if spec.name == "mel" else f"n_mfcc={input_spec.bands}"
            raise ModelError(
                f"{system.id} needs {input_spec.bands} MFCCs, {store} has {spec.bins} {spec.name} values a frame",
                f"extract more: `mgc extract --feature {spec.name}:{setting}`",
            )
    elif spec.bins != input_spec.stored_bands:
        is_waveform = input_spec.adapter == "waveform"
        unit, setting = ("samples a frame", "hop_length") if is_waveform else ("bands", "n_mels")
        raise ModelError(
            f"{system.id} needs {input_spec.bands} {unit}, {store} has {spec.bins}",
            f"extract them: `mgc extract --feature {spec.name}:{setting}={input_spec.bands}`",
        )


def study_differences(input_spec: InputSpec, spec: FeatureSpec, study: FeatureSpec) -> list[str]:
    """Settings of a feature that differ from those that a study used for an input, in whatever dtype it is stored."""
    return _differences(input_spec, spec, study, input_spec.frames)


def _differences(input_spec: InputSpec, spec: FeatureSpec, study: FeatureSpec, frames: int | None) -> list[str]:
    """Settings of a feature, and of its window, that differ from the study's."""
    if isinstance(spec, Embedding):
        spec = parse_feature(spec.of)
    study_settings, settings = dataclasses.asdict(study), dataclasses.asdict(spec)
    if "fmax" in study_settings and "fmax" in settings:  # None means half the sample rate
        for values in (study_settings, settings):
            values["fmax"] = values["fmax"] or values["sr"] / 2
    differences = []
    if spec.name == "mfcc" != study.name and input_spec.adapter in ("mfcc", "moments"):
        # A floor cannot be applied to the bands once they have been through a truncated DCT.
        differences.append("MFCCs without a floor 80 dB below each slice's maximum")
    elif spec.name != study.name:
        differences.append(f"{spec.name} for {study.name}")
    differences += [
        f"{_LABELS.get(key, key)} {_format(settings[key])} for {_format(value)}"
        for key, value in study_settings.items()
        if key in settings and key not in _IMMATERIAL and settings[key] != value
    ]
    if frames != input_spec.frames:
        differences.append(f"frames {frames} for {input_spec.frames}")
    return differences


def _format(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
