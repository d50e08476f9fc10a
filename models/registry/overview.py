"""The systems as plain values for `--json` and as text for people, and the extraction that their recipes ask for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mgc.models.registry import systems
from mgc.models.registry.systems import System
from mgc.pipeline.errors import ModelError
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.features.variants import Variant
from mgc.pipeline.store.slicing import Slicing


def describe_systems() -> list[dict[str, Any]]:
    """One entry per system: names, study, kind, input, parameters at its study's number of classes, published score."""
    return [
        {
            "id": system.id,
            "aliases": system.aliases,
            "study": system.study,
            "kind": system.kind,
            "features": list(system.input.features),
            "input": list(system.input.shape),
            "further": [{"features": list(needs.features), "input": list(needs.shape)} for needs in system.further],
            "members": list(system.members),
            "classes": system.recipe.dataset.n_classes,
            "params": (params := system.params(system.recipe.dataset.n_classes)),
            "megabytes": params * 4 / 1e6 if params is not None else None,
            "published": system.recipe.headline,
        }
        for system in systems.systems()
    ]


def render_systems(systems: list[dict[str, Any]]) -> str:
    """The systems as a table."""
    rows = [("system", "reads", "input", "parameters", "published")]
    for system in systems:
        inputs = (system, *system["further"])
        reads = " + ".join("/".join(needs["features"]) for needs in inputs)
        shape = " + ".join(shape_text(needs["input"]) for needs in inputs)
        params = f"{system['params']:,}" if system["params"] is not None else "-"
        names = " = ".join([system["id"], *system["aliases"]])
        rows.append((names, reads, shape, params, system["published"]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]:>{widths[3]}}  {row[4]}"
        for row in rows
    )


def shape_text(sizes: Iterable[int | None]) -> str:
    """Sizes of an input, for people: 128×any."""
    return "×".join("any" if size is None else str(size) for size in sizes)


def extraction_for(which: str) -> tuple[list[tuple[FeatureSpec, tuple[Variant, ...]]], Slicing | None]:
    """What the recipe of a system, of all systems of a study, or of `all` asks for.

    Returns:
        Features and the variants of training tracks that go with them, each pair once: a system that wants none reads
        them of a store that has some. And the slicing, None where the systems cut their tracks differently.

    Raises:
        ModelError: there is no such system or study.
    """
    recipes = [system.recipe for system in _chosen(which)]
    pairs = dict.fromkeys((spec, recipe.variants) for recipe in recipes for spec in (recipe.features, *recipe.further))
    varied = {spec for spec, variants in pairs if variants}
    slicings = {recipe.slicing for recipe in recipes}
    asked = [(spec, variants) for spec, variants in pairs if variants or spec not in varied]
    return asked, slicings.pop() if len(slicings) == 1 else None


def _chosen(which: str) -> list[System]:
    if "/" in which:
        return [systems.get(which)]
    chosen = [system for system in systems.systems() if which in ("all", system.study)]
    if not chosen:
        studies = ", ".join(dict.fromkeys(system.study for system in systems.systems()))
        raise ModelError(f"--for {which}: no such study", f"name a system (see `mgc models`), all, or one of {studies}")
    return chosen
