"""How well a store fits a model: the frames it will be trained on, and what differs from its study."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from mgc.models.registry.systems import InputSpec, System
from mgc.pipeline.errors import ModelError
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.store.slicing import Slicing

#: What the settings of a feature are called in tables.
_LABELS = {"sr": "rate", "hop_length": "hop", "n_mels": "bands"}

#: Settings that leave what a model sees as it was, up to half a quantisation step: coefficients beyond those it uses,
#: and how the frames are stored.
_IMMATERIAL = ("n_mfcc", "dtype")


@dataclass(frozen=True)
class Fit:
    """What a model makes of the slices of its stores.

    Attributes:
        frames: of each store, the frames of each slice that it sees, cut at random in training and from the centre
            otherwise; None where it sees all of them.
        differences: settings other than the study's, such as `hop 512 for 604` (ours, then the study's); empty where
            everything is as published.
    """

    frames: tuple[int | None, ...]
    differences: tuple[str, ...]


def check(
    system: System,
    specs: Sequence[FeatureSpec],
    slicing: Slicing,
    typical: Sequence[int],
    stores: Sequence[str],
    *,
    computed: bool = False,
) -> Fit:
    """What `system` makes of its stores, one for each of its inputs.

    Args:
        system: the model.
        specs: what each store holds.
        slicing: how they are sliced.
        typical: frames of the slices of each, or of a typical one where they are whole tracks.
        stores: their paths, for the commands in remedies.
        computed: whether the device computes the features: a store counts other frames then.

    Raises:
        ModelError: the model cannot be trained on them at all; the remedy is a command.
    """
    for needs, spec, store in zip(system.inputs, specs, stores, strict=True):
        require_feature(system, needs, spec, store)
    frames = _windows(system.inputs, specs, typical)
    for needs, window, seen, store in zip(system.inputs, frames, typical, stores, strict=True):
        least = needs.min_frames or needs.frames or 1
        if (seen if window is None else window) < least:
            length = f"--frames {system.input.frames}"
            if computed:
                seconds = ((system.input.frames or least) - 1) / specs[0].frame_rate
                length = f"--slice {math.ceil(seconds * 100) / 100:g}"
            longer = f"cut longer ones: `mgc slice {shlex.quote(stores[0])} {length}`"
            raise ModelError(
                f"{system.id} needs slices of at least {least} frames, those of {store} have {seen}",
                "extract longer tracks: these are whole" if slicing.whole else longer,
            )
    differences = [
        f"{spec.name}: {line}" if len(specs) > 1 else line
        for needs, spec, published, window in zip(system.inputs, specs, _published(system), frames, strict=True)
        for line in _differences(needs, spec, published, window)
    ]
    if str(slicing) != str(system.recipe.slicing):
        differences.append(f"{slicing} for {system.recipe.slicing}")
    return Fit(frames, tuple(differences))


def _windows(
    needs: Sequence[InputSpec], specs: Sequence[FeatureSpec], typical: Sequence[int]
) -> tuple[int | None, ...]:
    """Frames that the model sees of a slice of each store: of several, the same seconds."""
    frames = tuple(min(one.frames, seen) if one.frames else None for one, seen in zip(needs, typical, strict=True))
    if len(frames) == 1:
        return frames
    counts = [seen if window is None else window for window, seen in zip(frames, typical, strict=True)]
    seconds = min(count / spec.frame_rate for count, spec in zip(counts, specs, strict=True))
    return tuple(math.floor(seconds * spec.frame_rate + 1e-9) for spec in specs)


def _published(system: System) -> tuple[FeatureSpec, ...]:
    """What the study used for each input."""
    return system.recipe.features, *system.recipe.further


def require_feature(system: System, needs: InputSpec, spec: FeatureSpec, store: str) -> None:
    """Raise `ModelError` where a store holds no feature that an input of `system` can be made from."""
    if spec.name not in needs.features:
        extract = f"extract them: `mgc extract --feature {needs.features[0]}`"
        if spec.name == "waveform" and needs.adapter != "statistics":
            extract += ", or compute them: --frontend device"
        raise ModelError(
            f"{system.id} needs {' or '.join(needs.features)} features, {store} holds {spec.name}", extract
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


def matches_study(needs: InputSpec, spec: FeatureSpec, study: FeatureSpec) -> bool:
    """Whether a feature is the one that a study used, however its frames are stored."""
    return not _differences(needs, spec, study, needs.frames)


def _differences(needs: InputSpec, spec: FeatureSpec, study: FeatureSpec, frames: int | None) -> list[str]:
    published, ours = dataclasses.asdict(study), dataclasses.asdict(spec)
    if "fmax" in published and "fmax" in ours:  # an absent limit is half the sample rate
        for values in (published, ours):
            values["fmax"] = values["fmax"] or values["sr"] / 2
    found = []
    if spec.name == "mfcc" and needs.adapter in ("mfcc", "moments"):
        # A floor cannot be applied to the bands once they have been through a truncated DCT.
        found.append("MFCCs without a floor 80 dB below each slice's maximum")
    elif spec.name != study.name:
        found.append(f"{spec.name} for {study.name}")
    found += [
        f"{_LABELS.get(key, key)} {_short(ours[key])} for {_short(value)}"
        for key, value in published.items()
        if key in ours and key not in _IMMATERIAL and ours[key] != value
    ]
    if frames != needs.frames:
        found.append(f"frames {frames} for {needs.frames}")
    return found


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
