"""What there is, as plain values for `--json` and as text for people: the systems, and what a run is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from models import registry
from models.registry import System
from models.runs import Run
from pipeline.augment import Variant
from pipeline.errors import ModelError
from pipeline.features import FeatureSpec
from pipeline.slicing import Slicing


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
        for system in registry.systems()
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
        return [registry.get(which)]
    systems = [system for system in registry.systems() if which in ("all", system.study)]
    if not systems:
        studies = ", ".join(dict.fromkeys(system.study for system in registry.systems()))
        raise ModelError(f"--for {which}: no such study", f"name a system (see `mgc models`), all, or one of {studies}")
    return systems


def describe_run(run: Run) -> dict[str, Any]:
    """A run's configuration, its history and how it ended."""
    return {
        "run": str(run.path),
        "finished": run.finished,
        **run.config,
        "history": run.history,
        "summary": run.summary,
    }


def _reads(run: Run) -> list[str]:
    """What a run reads: stores, or the members of an ensemble."""
    if "members" in run.config:
        return [f"  member    {member['model']}: {member['run']}" for member in run.config["members"]]
    frames = " + ".join(str(source.frames) for source in run.sources)
    return [
        *(f"  store     {source.path}" for source in run.sources),
        *(f"  frames    {source.spec}, computed of {source.waveform}" for source in run.sources if source.waveform),
        f"  slices    {run.slicing}, {frames} frames each",
    ]


def render_run(run: Run) -> str:
    """What a run is, in a few lines."""
    splits = run.selection.tracks["split"].to_pylist()
    lines = [
        f"{run.path}",
        f"  model     {run.model}, seed {run.config['seed']}",
        *_reads(run),
        f"  tracks    {', '.join(f'{split} {splits.count(split):,}' for split in dict.fromkeys(splits))}",
        f"  genres    {', '.join(run.config['classes'])}",
    ]
    if run.config["differences"]:
        lines.append(f"  study     differs from the study: {'; '.join(run.config['differences'])}")
    if fold := run.config.get("fold"):
        lines.append("  fold      validated on fold {} of {}".format(*fold))
    if chosen := run.summary.get("search", {}).get("chosen"):
        lines.append(f"  search    {', '.join(f'{name} {value}' for name, value in chosen.items())}")
    lines.append(f"  state     {'finished' if run.finished else 'unfinished: `mgc train --resume` continues it'}")
    if run.history:
        last = run.history[-1]
        scores = ", ".join(f"{name} {value:.3f}" for name, value in last.items() if isinstance(value, float))
        lines.append(f"  epoch {last['epoch']:<3} {scores}")
    return "\n".join(lines)
