"""Versions of installed packages, which stores and runs record."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

#: Distribution names that differ from the name of the package.
_DISTRIBUTIONS = {"mgc": "mgc-music"}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Look up installed versions.

    Args:
        packages: names of packages, such as `numpy`.

    Returns:
        Version by name; `unknown` for a package that is not installed as a distribution.
    """
    return {name: _version(_DISTRIBUTIONS.get(name, name)) for name in packages}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"
