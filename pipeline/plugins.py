"""Plug-ins: systems, features and dataset layouts that other installed packages add by entry points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points, packages_distributions, version
from typing import Any

import click

from mgc.pipeline.escaping import visible

#: A module or function that registers systems when it is loaded; see `mgc.models.registry.systems`.
MODELS = "mgc.models"
#: A subclass of `FeatureSpec`; the entry point's name is the feature's.
FEATURES = "mgc.features"
#: A module or object with `find_root` and `read`; the entry point's name is the format's.
DATASETS = "mgc.datasets"


@dataclass(frozen=True)
class Plugin:
    """An object from another package.

    Attributes:
        name: name of its entry point.
        package: distribution and version that it comes from, such as `acme 1.0`.
        value: the object.
    """

    name: str
    package: str
    value: Any


def load(group: str, check: Callable[[EntryPoint, Any], Any] | None = None) -> dict[str, Plugin]:
    """Load the plug-ins of a group, by name.

    One that does not load is reported on stderr in one line and left out; all others work.

    Args:
        group: `MODELS`, `FEATURES` or `DATASETS`.
        check: raises an exception if the object is not what the group needs.
    """
    plugins = {}
    for point in _entry_points(group):
        package = _package(point)
        try:
            value = point.load()
            if check is not None:
                check(point, value)
        except Exception as error:  # a plug-in may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            warn(f"plug-in {point.name} = {point.value} of {package} is left out ({reason}); repair or uninstall it")
        else:
            plugins[point.name] = Plugin(point.name, package, value)
    return plugins


def origin(module: str) -> str | None:
    """Distribution and version that a module belongs to, such as `acme 1.0`; None for the modules of mgc.

    Where no distribution is installed that has the module, the name of its top-level package.
    """
    package = module.partition(".")[0]
    if package == "mgc":
        return None
    names = packages_distributions().get(package)
    return f"{names[0]} {version(names[0])}" if names else package


def warn(problem: str) -> None:
    """Print one line on stderr."""
    click.echo(f"warning: {visible(problem)}", err=True)


@cache
def _entry_points(group: str) -> tuple[EntryPoint, ...]:
    return tuple(sorted(entry_points(group=group), key=lambda point: (point.name, _package(point))))


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
