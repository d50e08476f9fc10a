"""Versions of the libraries that made a file."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

#: Distributions whose name is not that of the package they install.
_DISTRIBUTIONS = {"mgc": "mgc-music"}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The installed version of each package by its name, `unknown` where it is not installed as a distribution."""
    return {name: _version(_DISTRIBUTIONS.get(name, name)) for name in packages}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"
