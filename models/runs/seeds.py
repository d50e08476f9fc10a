"""Runs that differ in their seed alone."""

from __future__ import annotations

from typing import Any

from mgc.models.runs.run import Run
from mgc.pipeline.errors import MgcError

#: Settings of a run's configuration that another seed leaves as they are.
_SETTINGS = (
    "model",
    "classes",
    "frames",
    "training",
    "limit_tracks",
    "variants",
    "weights",
    "fold",
    "search",
    "refit",
    "split_unit",
)
#: Settings of its stores: path and moment of extraction may differ, tracks, labels and slices may not.
_STORE_SETTINGS = ("manifest", "spec", "slicing", "waveform")


def other_seeds(run: Run) -> bool | None:
    """Whether a finished run beside this one has the same system, settings and data, but another seed.

    None for a run whose seed is not that of one network: classical systems and ensembles.
    """
    if run.config.get("kind") != "neural":
        return None
    own = _settings(run.config)
    return any(other["seed"] != run.config["seed"] and _settings(other) == own for other in _finished_beside(run))


def _finished_beside(run: Run) -> list[dict[str, Any]]:
    """Configurations of the other finished runs in the folder of a run; those that cannot be read are left out."""
    configs = []
    for head in run.path.resolve().parent.glob("*/summary.json"):
        if head.parent != run.path.resolve():
            try:
                configs.append(Run.open(head.parent).config)
            except MgcError:
                continue
    return configs


def _settings(config: dict[str, Any]) -> list[Any]:
    stores = [config["store"], *config.get("further", [])]
    if config.get("training"):  # which repeats the seed
        config = config | {"training": config["training"] | {"seed": None}}
    return [
        *(config.get(name) for name in _SETTINGS),
        *([store.get(name) for name in _STORE_SETTINGS] for store in stores),
    ]
