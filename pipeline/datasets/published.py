"""Descriptions of published datasets, shipped as `manifests/datasets/<name>.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Archive:
    """A file to download, with the checksums (hexadecimal) that are known for certain."""

    url: str
    sha1: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Published:
    """A dataset as its owners publish it.

    Attributes:
        name: name of its description, e.g. `fma_small`.
        title: name in prose.
        home: address of its home page.
        licence: terms, in prose.
        genres: its classes, in their customary order.
        archives: what to download.
        faulty: path in the dataset → what is wrong with that file as published.
    """

    name: str
    title: str
    home: str
    licence: str
    genres: tuple[str, ...]
    archives: tuple[Archive, ...]
    faulty: Mapping[str, str] = field(default_factory=dict)


@cache
def published(name: str) -> Published:
    """The description of that name; KeyError if there is none."""
    file = files("mgc.manifests") / "datasets" / f"{name}.toml"
    if not file.is_file():
        raise KeyError(name)
    entry = tomllib.loads(file.read_text(encoding="utf-8"))
    archives = tuple(Archive(**archive) for archive in entry.pop("archives"))
    return Published(name=name, genres=tuple(entry.pop("genres")), archives=archives, **entry)


def published_names() -> tuple[str, ...]:
    """The names of all descriptions, sorted."""
    return tuple(
        sorted(
            file.name.removesuffix(".toml")
            for file in (files("mgc.manifests") / "datasets").iterdir()
            if file.name.endswith(".toml")
        )
    )
