"""How well a store fits a model: the frames it will be trained on, and what differs from its study."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass

from models.registry import System
from pipeline.errors import ModelError
from pipeline.features import FeatureSpec
from pipeline.slicing import Slicing

#: What the settings of a feature are called in tables.
_LABELS = {"sr": "rate", "hop_length": "hop", "n_mels": "bands"}

#: Settings that leave what a model sees as it was, up to half a quantisation step: coefficients beyond those it uses,
#: and how the frames are stored.
_IMMATERIAL = ("n_mfcc", "dtype")


@dataclass(frozen=True)
class Fit:
    """What a model makes of the slices of a store.

    Attributes:
        frames: frames of each slice it sees, cut at random in training and from the centre otherwise; None where it
            sees all of them.
        differences: settings other than the study's, such as `hop 512 for 604` (ours, then the study's); empty where
            everything is as published.
    """

    frames: int | None
    differences: tuple[str, ...]


def check(system: System, spec: FeatureSpec, slicing: Slicing, slice_frames: int, store: str) -> Fit:
    """What `system` makes of a store.

    Args:
        system: the model.
        spec: what the store holds.
        slicing: how it is sliced.
        slice_frames: frames of its slices, or of a typical one where they are whole tracks.
        store: its path, for the commands in remedies.

    Raises:
        ModelError: the model cannot be trained on it at all; the remedy is a command.
    """
    _require_bands(system, spec, store)
    needs = system.input
    least = needs.least_frames or needs.frames or 1
    if slice_frames < least:
        raise ModelError(
            f"{system.id} needs slices of at least {least} frames, those of {store} have {slice_frames}",
            f"cut longer ones: `mgc slice {shlex.quote(store)} --frames {needs.frames}`",
        )
    frames = min(needs.frames, slice_frames) if needs.frames else None
    return Fit(frames, tuple(_differences(system, spec, slicing, frames)))


def _require_bands(system: System, spec: FeatureSpec, store: str) -> None:
    needs = system.input
    if spec.name not in needs.features:
        raise ModelError(
            f"{system.id} needs {' or '.join(needs.features)} features, {store} holds {spec.name}",
            f"extract them: `mgc extract --feature {needs.features[0]}`",
        )
    if needs.bands is None:
        return
    if needs.adapter == "mfcc":
        if spec.bins < needs.bands:
            setting = "n_mels=128" if spec.name == "mel" else f"n_mfcc={needs.bands}"
            raise ModelError(
                f"{system.id} needs {needs.bands} MFCCs, {store} has {spec.bins} {spec.name} values a frame",
                f"extract more: `mgc extract --feature {spec.name}:{setting}`",
            )
    elif spec.bins != needs.bands:
        what, setting = ("samples a frame", "hop_length") if needs.adapter == "waveform" else ("bands", "n_mels")
        raise ModelError(
            f"{system.id} needs {needs.bands} {what}, {store} has {spec.bins}",
            f"extract them: `mgc extract --feature {spec.name}:{setting}={needs.bands}`",
        )


def _differences(system: System, spec: FeatureSpec, slicing: Slicing, frames: int | None) -> list[str]:
    study = system.recipe
    published, ours = dataclasses.asdict(study.features), dataclasses.asdict(spec)
    if "fmax" in published and "fmax" in ours:  # an absent limit is half the sample rate
        for values in (published, ours):
            values["fmax"] = values["fmax"] or values["sr"] / 2
    found = [
        f"{_LABELS.get(key, key)} {_short(ours[key])} for {_short(value)}"
        for key, value in published.items()
        if key in ours and key not in _IMMATERIAL and ours[key] != value
    ]
    if spec.name == "mfcc":
        # A floor cannot be applied to the bands once they have been through a truncated DCT.
        found.append("MFCCs without a floor 80 dB below each slice's maximum")
    if frames != system.input.frames:
        found.append(f"frames {frames} for {system.input.frames}")
    if str(slicing) != str(study.slicing):
        found.append(f"{slicing} for {study.slicing}")
    return found


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
