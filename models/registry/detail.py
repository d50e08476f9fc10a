"""One system in full, or those that a word names: `mgc models ID` and `mgc models WORD`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mgc.models.registry import catalogue, overview, systems
from mgc.models.registry.systems import System
from mgc.pipeline import suggestions
from mgc.pipeline.errors import UnknownModelError
from mgc.pipeline.wrapping import WIDTH, wrap


def find(word: str) -> System | list[str]:
    """Find what `mgc models WORD` asks for.

    Args:
        word: id or alias of a system, or a part of ids, aliases or keys of studies, in any case.

    Returns:
        The system of the id; else the ids of the systems that have the word in one of these.

    Raises:
        UnknownModelError: there is none; the remedy names the nearest ids.
    """
    known = systems.ids()
    if word in known or word in systems.ALIASES:
        return systems.get(word)
    part = word.casefold()
    found = [id for id in known if part in id.casefold()]
    found += [id for alias, id in systems.ALIASES.items() if part in alias.casefold() and id not in found]
    if found:
        return sorted(found)
    studies = dict.fromkeys(id.partition("/")[0] for id in known)
    near = suggestions.nearest(word, [*known, *systems.ALIASES, *studies], cutoff=0.3)
    hint = suggestions.question(near)
    raise UnknownModelError(f"no model has {word!r} in its id or study", f"{hint}`mgc models` lists them all")


def describe(system: System) -> dict[str, Any]:
    """Describe a system in full as a JSON object.

    It has the keys of `overview.describe_system`, and `title` of the study, `layers`, `recipe` with the source of each
    setting in `sources`, and `results`, the published ones.
    """
    recipe = _plain(system.recipe)
    results = [_plain(result) for result in system.recipe.published]
    return overview.describe_system(system) | {
        "title": catalogue.studies().get(system.study),
        "package": system.package,
        "layers": _layers(system),
        "recipe": {key: value for key, value in recipe.items() if key not in ("published", "sources")},
        "sources": dict(system.recipe.sources),
        "results": results,
    }


def _plain(value: Any) -> Any:
    """Convert dataclasses, mappings and tuples to dicts and lists, and anything else that JSON lacks to text."""
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def render(system: System, width: int = WIDTH) -> str:
    """Format a system in full: input, size, layers, recipe and published results, each wrapped to a width."""
    lines = dict(catalogue.rows(system))
    title = catalogue.studies().get(system.study) or f"added by {system.package}"
    text = [system.id, f"  {'study':<12} {title.replace('*', '')}"]
    text += [f"  {name:<12} {value}" for name, value in lines.items() if value and name != "system"]
    for index, layer in enumerate(_layers(system)):
        text.append(
            f"  {'' if index else 'layers':<12} {layer['name']}: {layer['type']}, {layer['params']:,} parameters"
        )
    text.append(f"  {'':<12} {catalogue.LEGEND}")
    return "\n".join(part for line in text for part in wrap(line, width, indent=15))


def _layers(system: System) -> list[dict[str, Any]]:
    """The parts of a network in order: name, class and number of trainable parameters; empty for other systems."""
    if system.kind != "neural":
        return []
    from mgc.models.registry.skeleton import build_on_meta

    model = build_on_meta(system.build, system.recipe.dataset.n_classes)
    return [
        {
            "name": name,
            "type": type(module).__name__,
            "params": sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
        }
        for name, module in model.named_children()
    ]
