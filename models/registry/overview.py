"""Systems as JSON values and as a table for `mgc models`, and the extraction settings of their recipes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from mgc.models.registry import recipes, systems
from mgc.models.registry.systems import System
from mgc.pipeline import suggestions
from mgc.pipeline.errors import UnknownModelError
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.features.variants import Variant
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.wrapping import WIDTH, ellipsise


def describe_system(system: System) -> dict[str, Any]:
    """Describe a system as a JSON object.

    Parameters are counted with the study's number of classes; `params` and `megabytes` (of float32 weights) are None
    where they depend on the data.
    """
    params = system.params(system.recipe.dataset.n_classes)
    return {
        "id": system.id,
        "aliases": system.aliases,
        "study": system.study,
        "kind": system.kind,
        "features": list(system.input.features),
        "input": list(system.input.shape),
        "further": [{"features": list(spec.features), "input": list(spec.shape)} for spec in system.further],
        "members": list(system.members),
        "classes": system.recipe.dataset.n_classes,
        "params": params,
        "megabytes": params * 4 / 1e6 if params is not None else None,
        "published": system.recipe.headline,
    }


def describe_systems(ids: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Describe systems as `describe_system` does, but without PyTorch: those of mgc are recorded.

    Args:
        ids: ids of the systems; None for all.
    """
    known = recorded()
    chosen = systems.ids() if ids is None else ids
    return [dict(known[id]) if id in known else describe_system(systems.get(id)) for id in chosen]


@cache
def recorded() -> Mapping[str, dict[str, Any]]:
    """Descriptions of the systems of mgc by id, from `manifests/systems.json`.

    To count parameters, every network must be built, which takes seconds. A test compares the record with the networks.
    """
    text = (resources.files("mgc.manifests") / "systems.json").read_text(encoding="utf-8")
    return {description["id"]: description for description in json.loads(text)}


def record() -> str:
    """Return the text of `manifests/systems.json`: a line for each system of mgc. Imports PyTorch."""
    rows = [describe_system(systems.get(id)) for id in sorted(recipes.recipe_files())]
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def render_systems(systems: list[dict[str, Any]], width: int = WIDTH) -> str:
    """Format systems as a table of text: id, features, parameters, and as much of the published score as fits.

    Of several features that a system can read, the table shows the first one.

    Args:
        systems: descriptions by `describe_systems`.
        width: columns of the terminal.
    """
    rows = [("system", "reads", "parameters", "published")]
    for system in systems:
        features = [spec["features"][0] for spec in (system, *system["further"])]
        params = f"{system['params']:,}" if system["params"] is not None else "-"
        rows.append((system["id"], "+".join(features), params, system["published"]))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    rest = max(12, width - sum(widths) - 6)
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {ellipsise([row[3]], rest)[0]}".rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", "All of a system: `mgc models ID`; of all systems: `mgc models --json`"])


def shape_text(sizes: Iterable[int | None]) -> str:
    """Format the shape of an input, such as `1×128×any`; None is `any`."""
    return "×".join("any" if size is None else str(size) for size in sizes)


def extraction_for(name: str) -> tuple[list[tuple[FeatureSpec, tuple[Variant, ...]]], Slicing | None]:
    """Collect the extraction settings of the recipes that `mgc extract --for` names; see `extraction_of`.

    Args:
        name: id of a system, key of a study, or `all`.

    Raises:
        UnknownModelError: there is no such system or study.
    """
    return extraction_of(systems_named(name, "--for "))


def extraction_of(
    chosen: Iterable[System],
) -> tuple[list[tuple[FeatureSpec, tuple[Variant, ...]]], Slicing | None]:
    """Collect the extraction settings of the recipes of systems.

    Returns:
        The features, each with the variants of training tracks to extract with it, and the slicing. No pair comes
        twice, and a feature comes without variants only if no recipe needs variants of it: systems without variants
        read stores that have them. The slicing is None if the recipes differ in it.
    """
    recipes = [system.recipe for system in chosen]
    pairs = dict.fromkeys((spec, recipe.variants) for recipe in recipes for spec in (recipe.features, *recipe.further))
    with_variants = {spec for spec, variants in pairs if variants}
    slicings = {recipe.slicing for recipe in recipes}
    features = [(spec, variants) for spec, variants in pairs if variants or spec not in with_variants]
    return features, slicings.pop() if len(slicings) == 1 else None


def embeddings_for(name: str) -> list[tuple[FeatureSpec, str]]:
    """Collect what `mgc extract --for` embeds, see `embeddings_of`.

    Args:
        name: id of a system, or key of a study; `all` embeds nothing, as weights may have to be downloaded.
    """
    return embeddings_of(systems_named(name)) if name != "all" else []


def embeddings_of(chosen: Iterable[System]) -> list[tuple[FeatureSpec, str]]:
    """Collect the features that are embedded for systems, each with the name of the network that does it."""
    recipes = [system.recipe for system in chosen]
    return list(dict.fromkeys((recipe.features, recipe.embedding) for recipe in recipes if recipe.embedding))


def systems_named(name: str, option: str = "") -> list[System]:
    """Return the system with an id, the systems of a study, or with `all` every system.

    Args:
        name: id of a system, key of a study, or `all`.
        option: option whose value the name is, with a blank, for error messages.

    Raises:
        UnknownModelError: there is no such system or study.
    """
    if "/" in name:
        return [systems.get(name)]
    matches = [system for system in systems.systems() if name in ("all", system.study)]
    if not matches:
        studies = list(dict.fromkeys(system.study for system in systems.systems()))
        hint = suggestions.question(suggestions.nearest(name, studies))
        remedy = f"{hint}name a system (see `mgc models`), all, or one of {', '.join(studies)}"
        raise UnknownModelError(f"{option}{name}: no such study", remedy)
    return matches


if __name__ == "__main__":
    sys.stdout.write(record())
