"""The published results of the systems of a comparison, and how the runs differ from what they were measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mgc.models.compare.groups import RunGroup
from mgc.models.registry import systems
from mgc.models.registry.recipes import Dataset, PublishedResult
from mgc.pipeline.errors import ModelError


@dataclass(frozen=True)
class Published:
    """A published result beside the row that measures the same system.

    Attributes:
        row: number of the row, from 0.
        model: id of the system.
        split: split that the study measured on.
        setting: setting of the study, if it reports several; else empty.
        accuracy: published accuracy by slice; None if the study does not print it.
        macro_f1: published macro F1 by slice; None if the study does not print it.
        measured: accuracy by slice of the row, the mean of its runs; None if unknown.
        differs: what differs between the study and the runs.
    """

    row: int
    model: str
    split: str
    setting: str
    accuracy: float | None
    macro_f1: float | None
    measured: float | None
    differs: tuple[str, ...]


def results(row: int, group: RunGroup, split: str) -> list[Published]:
    """List the published results of a row's system that have an accuracy or a macro F1; empty if there are none.

    Args:
        row: number of the row.
        group: runs of the row.
        split: split that the runs were evaluated on.
    """
    try:
        recipe = systems.of_run(group.runs[0].run.config).recipe
    except ModelError:  # a system of a package that is no longer installed
        return []
    slices = [run.accuracy_by_slice for run in group.runs]
    measured = None if None in slices else sum(value for value in slices if value is not None) / len(slices)
    common = (*_data(group, recipe.dataset), *_settings(group))
    return [
        Published(
            row=row,
            model=group.model,
            split=result.split,
            setting=result.setting,
            accuracy=_share(result.accuracy),
            macro_f1=_share(result.macro_f1),
            measured=measured,
            differs=(*_measured_on(result, split), *common),
        )
        for result in recipe.published
        if result.accuracy is not None or result.macro_f1 is not None
    ]


def _share(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 6)


def _measured_on(result: PublishedResult, split: str) -> list[str]:
    return [] if result.split == split else [f"{split} split for {result.split}"]


def _data(group: RunGroup, study: Dataset) -> list[str]:
    """Differences in data: this run's, then the study's."""
    run = group.runs[0]
    lines = []
    if run.dataset != study.name:
        lines.append(f"dataset {run.dataset} for {study.name}")
    if (n := len(run.run.classes)) != study.n_classes:
        lines.append(f"{n} genres for {study.n_classes}")
    by_slice = run.run.config.get("split_unit") == "slice"
    if study.published_unit == "slice" and not by_slice:
        lines.append("a split over tracks for the study's over slices, which lets a track be in both")
    elif study.published_split and not by_slice:
        lines.append(f"another split than the study's ({study.published_split})")
    return lines


def _settings(group: RunGroup) -> Sequence[str]:
    """Differences in settings, that any of the runs recorded."""
    return list(dict.fromkeys(line for run in group.runs for line in run.run.config.get("differences", ())))
