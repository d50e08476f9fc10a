"""The store that comes nearest to what an input of a system needs, for messages that none fits."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from mgc.models.data.fit import study_differences
from mgc.models.registry.systems import InputSpec
from mgc.pipeline.errors import StoreError
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.store.store import Store

#: Differences that a message lists of one store.
_MOST = 4


def describe_need(input_spec: InputSpec, study: FeatureSpec, *, study_only: bool) -> str:
    """Describe the feature that an input needs, such as `mel with 96 bands`.

    Args:
        input_spec: the input.
        study: feature that the system's study used for it.
        study_only: whether only this feature will do.
    """
    if study_only:
        return str(study)
    features = " or ".join(input_spec.features)
    if input_spec.stored_bands is None:
        return features
    if input_spec.adapter == "mfcc":
        return f"{features} with {input_spec.bands} values a frame or more"
    units = {"waveform": "samples a frame", "statistics": "values a track"}
    return f"{features} with {input_spec.bands} {units.get(input_spec.adapter, 'bands')}"


def unmet_needs(input_spec: InputSpec, spec: FeatureSpec, study: FeatureSpec, *, study_only: bool) -> list[str]:
    """List what keeps a feature from being what an input needs, such as `bands 128 for 96`.

    Args:
        input_spec: the input.
        spec: feature of a store.
        study: feature that the system's study used for the input.
        study_only: whether only this feature will do.
    """
    if spec.name not in ((study.name,) if study_only else input_spec.features):
        return [f"{spec.name} for {study.name if study_only else ' or '.join(input_spec.features)}"]
    if study_only:
        return study_differences(input_spec, spec, study)
    bands = input_spec.stored_bands
    if bands is None or spec.bins == bands:
        return []
    if input_spec.adapter == "mfcc":
        return [f"{spec.bins} values a frame for {bands}"] if spec.bins < bands else []
    return [f"{'hop' if input_spec.adapter == 'waveform' else 'bands'} {spec.bins} for {bands}"]


def nearest_store(stores: Sequence[Store], name: str, unmet: Callable[[Store], list[str]]) -> str:
    """Describe the store with the fewest differences, such as `nearest is mel-1a2b3c (bands 128 for 96)`.

    Args:
        stores: stores to choose from, at least one.
        name: name of the feature that is needed; stores of it come first.
        unmet: returns the differences of a store from what is needed.
    """
    store = min(stores, key=lambda store: (store.spec.name != name, len(unmet(store))))
    lines = unmet(store) or ["the same feature"]
    rest = [f"and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
    return f"nearest is {store.path.name} ({', '.join(lines[:_MOST] + rest)})"


def feature_differences(spec: FeatureSpec, wanted: FeatureSpec) -> list[str]:
    """List the parameters of a feature that differ from those wanted, such as `hop_length 512 for 604`."""
    if spec.name != wanted.name:
        return [f"{spec.name} for {wanted.name}"]
    values = dataclasses.asdict(spec)
    return [
        f"{key} {values[key]} for {value}" for key, value in dataclasses.asdict(wanted).items() if values[key] != value
    ]


def lost_store(path: Place, spec: FeatureSpec, dataset: dict[str, object], run: Place) -> StoreError:
    """The error that a run's store is gone. It names the nearest store beside it, and the command that makes it again.

    Args:
        path: folder or URL of the store.
        spec: feature of the store.
        dataset: description of the dataset, as the run recorded it.
        run: folder of the run.
    """
    if not isinstance(path, RemotePath):
        path = Path(os.path.normpath(path))  # without `runs/..`
    stores = []
    for head in () if isinstance(path, RemotePath) else sorted(path.parent.glob("*/store.json")):
        try:
            stores.append(Store.open(head.parent))
        except StoreError:
            continue
    settings = dataclasses.asdict(spec)
    nearby = ""
    if stores:
        nearby = f"; {nearest_store(stores, spec.name, lambda store: feature_differences(store.spec, spec))}"
    source = f"--dataset {shlex.quote(str(dataset['source']))} " if dataset.get("source") else ""
    feature = shlex.quote(f"{spec.name}:" + ",".join(f"{k}={v}" for k, v in settings.items() if v is not None))
    return StoreError(
        f"{path}: no feature store, but {run} was trained on it{nearby}",
        f"restore it, or extract it again: `mgc extract {source}--feature {feature}`",
    )
