"""The catalogue of systems: docs/systems.md, made of the registry, the recipes and the published scores."""

from __future__ import annotations

import dataclasses
import itertools
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from typing import Any

from mgc.models.registry import systems
from mgc.models.registry.overview import shape_text
from mgc.models.registry.recipes import Published, Source
from mgc.models.registry.systems import System

#: What stands behind a value in the tables: where it comes from.
_MARKS: dict[Source, str] = {"printed": "ᵖ", "code": "ᶜ", "derived": "ᵈ", "chosen": "°"}

_HEAD = """\
# The systems

Made by `mgc models --markdown` from the registry, the recipes (`manifests/recipes/`) and the studies' printed results.

Behind each setting stands where it comes from: ᵖ printed in the paper, ᶜ the authors' code or its log, ᵈ derived from
what is printed, ° chosen here, where the study is silent or cannot be followed. Parameters are trainable ones, at the
number of classes of the study. Scores are the studies' own, in per cent, as published: measured on their splits, some
of which have slices of one track on both sides, and not reproduced here.
"""


def markdown() -> str:
    """The catalogue as a Markdown page. Imports PyTorch."""
    return "\n".join(itertools.chain([_HEAD], *(_study(key, list(group)) for key, group in _by_study()), [""]))


def _by_study() -> Iterable[tuple[str, Iterator[System]]]:
    return itertools.groupby(systems.systems(), lambda system: system.study)


def studies() -> Mapping[str, str]:
    """Authors, title and year of each study, by its key."""
    return tomllib.loads((resources.files("mgc.manifests") / "studies.toml").read_text(encoding="utf-8"))


def _study(key: str, systems: list[System]) -> Iterator[str]:
    yield f"## {key}\n\n{studies().get(key, 'Added by an installed package.')}\n"
    yield from _table(("system", "input", "parameters", "MB", "published"), map(_model, systems))
    yield ""
    columns = (
        "system",
        "features",
        "slices",
        "dataset",
        "loss",
        "batch",
        "epochs",
        "stops by",
        "optimiser",
        "augmentation",
    )
    yield from _table(columns, map(_recipe, systems))
    yield ""


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _model(system: System) -> tuple[str, ...]:
    shapes = " + ".join(shape_text(needs.shape) for needs in system.inputs)
    params = system.params(system.recipe.dataset.n_classes)
    size = (f"{params:,}", f"{params * 4 / 1e6:.1f}") if params is not None else ("depends on the data", "")
    scores = "; ".join(_scores(row) for row in system.recipe.published) or "nothing"
    members = f" = mean of {', '.join(member.partition('/')[2] for member in system.members)}" if system.members else ""
    return f"`{system.id}`{members}", shapes, *size, scores


def _scores(row: Published) -> str:
    where = ", ".join(filter(None, (row.split, row.setting)))
    return f"{where}: " + ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in row.scores.items())


def _recipe(system: System) -> tuple[str, ...]:
    recipe = system.recipe
    marks = {key: _MARKS[source] for key, source in recipe.sources.items()}

    def marked(prefix: str, values: Mapping[str, Any], *hidden: str) -> str:
        """`name value` of each setting that the recipe gives."""
        found = ((key, value, marks.get(f"{prefix}.{key}")) for key, value in values.items() if key not in hidden)
        return ", ".join(f"{key} {_value(value)}{mark}" for key, value, mark in found if mark)

    specs = {"features": recipe.features} | {f"further[{i}]": spec for i, spec in enumerate(recipe.further)}
    features = (
        f"{spec.name}{marks[f'{where}.name']} {marked(where, dataclasses.asdict(spec))}".strip()
        for where, spec in specs.items()
    )
    dataset = (
        f"{recipe.dataset.name}{marks['dataset.name']}, {recipe.dataset.n_classes} genres, "
        f"{recipe.dataset.split} split{marks['dataset.split']}"
    )
    row = (
        f"`{system.id}`",
        " + ".join(dict.fromkeys(features)),
        marked("slicing", dataclasses.asdict(recipe.slicing)),
        dataset,
    )
    if recipe.training is None:
        return (*row, *[""] * 6)
    training, optimizer = recipe.training, recipe.training.optimizer
    changes = (
        marked("training", {"variants": training.variants}),
        marked("training.augmentation", dataclasses.asdict(training.augmentation)),
    )
    return (
        *row,
        f"{training.loss}{marks['training.loss']}",
        f"{training.batch_size}{marks['training.batch_size']}",
        f"{training.epochs}{marks['training.epochs']}",
        f"{training.monitor}{marks['training.monitor']}, patience {training.patience}{marks['training.patience']}",
        f"{optimizer.name}{marks['training.optimizer.name']} "
        + marked("training.optimizer", dataclasses.asdict(optimizer), "name")
        + (f"; {loop}" if (loop := marked("training.loop", dataclasses.asdict(training.loop))) else ""),
        ", ".join(filter(None, changes)),
    )


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return " and ".join(map(_value, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
