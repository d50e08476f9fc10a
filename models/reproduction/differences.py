"""What differs between a reproduction and its study: what was asked for, and what the study left unsaid.

A difference that nobody asked for is an error: a number that stands beside a published one is of the same thing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from mgc.models.registry import catalogue
from mgc.models.registry.augmentation import NO_AUGMENTATION
from mgc.models.registry.recipes import Recipe
from mgc.models.reproduction.jobs import Job
from mgc.models.runs.selection import Selection
from mgc.models.training import origin, preparation
from mgc.models.training.options import Options
from mgc.pipeline.datasets import Dataset
from mgc.pipeline.errors import ModelError
from mgc.pipeline.store.store import Store

#: How the `leak-free` protocol deals the data of a study, by the unit that the study dealt.
_TRACKS = {"slice": "a split of whole tracks", "track": "the dataset's own split"}
#: How the `published` protocol deals slices.
_SLICES = "80/10/10 at random over slices"


def require_dataset(jobs: Sequence[Job], dataset: Dataset, *, is_named: bool) -> None:
    """Raise `ModelError` if the dataset is not that of the studies, and the user has not named it."""
    for job in jobs:
        study = job.system.recipe.dataset
        if not is_named and dataset.published != study.name:
            remedy = f"name it if you mean it: --dataset {dataset.source}"
            raise ModelError(f"{job.system.id} was published on {study.name}, and {dataset.source} is not that", remedy)


def compare(job: Job, stores: Sequence[Store], options: Options) -> tuple[Selection, list[str]]:
    """Return the tracks of a job and its differences from the study: those asked for, and one that stores impose.

    Stored frames allow no augmentation of samples: systems of padova2023 that read them are trained without.

    Args:
        job: the job; an ensemble has no differences beside those of its members.
        stores: store of each input of the system.
        options: training options of the job.

    Raises:
        ModelError: something differs that nobody asked for.
        MgcError: the system cannot be trained on the stores.
    """
    study, store = job.system.recipe.dataset, stores[0]
    selection, asked = preparation.preview(stores, options)
    _, unasked = preparation.preview(stores, dataclasses.replace(options, epochs=None, limit_tracks=None))
    is_limited = options.limit_tracks is not None
    tracks = origin.differences(study, store, selection, limited=is_limited)
    other = origin.other_dataset(study, store.dataset["name"])
    imposed = _without_augmentation(job)
    unasked = [line for line in (*unasked, *tracks) if line not in (other, imposed)]
    if unasked:
        remedy = f"`mgc train --recipe {job.system.id}` trains it all the same, and lists what differs"
        raise ModelError(f"{job.system.id} would not be as published: {'; '.join(unasked)}", remedy)
    return selection, [*(line for line in tracks if line == other), *_split(job), *asked]


def _without_augmentation(job: Job) -> str:
    """The difference of a training without the study's augmentation, as `training.options.resolve` words it."""
    training = job.system.recipe.training
    return f"augmentation {NO_AUGMENTATION} for {training.augmentation}" if training else ""


def _split(job: Job) -> list[str]:
    """The difference between the split of a job and that of its study."""
    study = job.system.recipe.dataset
    ours = _SLICES if job.protocol == "published" else _TRACKS[study.published_unit]
    return [f"{ours} instead of {study.published_split}"] if study.published_split not in ("", ours) else []


def chosen_settings(recipe: Recipe) -> dict[str, str]:
    """Settings that a study does not give and that were chosen here: values as text, by dotted key."""
    keys = [key for key, source in recipe.sources.items() if source == "chosen" and key != "training.seed"]
    if recipe.dataset.published_split:
        keys.remove("dataset.split")  # a difference: `_split`
    return {key: catalogue.value_text(_value(recipe, key)) for key in keys}


def _value(recipe: Recipe, key: str) -> Any:
    """The setting of a dotted key such as `training.optimizer.lr` or `further[0].n_mels`."""
    value: Any = recipe
    for name, index in re.findall(r"(\w+)(?:\[(\d+)\])?", key):
        value = getattr(value, name)
        value = value[int(index)] if index else value
    return value
