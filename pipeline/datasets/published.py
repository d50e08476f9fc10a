"""Published datasets: their genres, archives and known faults, from `manifests/datasets/<name>.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Attributes:
        url: its address.
        sha1: checksum in hexadecimal; None if it is not known for certain.
        sha256: the same.
        size: its length in bytes; None if it is not known for certain.
        mirrors: other addresses of the same file, in the order in which they are tried.
    """

    url: str
    sha1: str | None = None
    sha256: str | None = None
    size: int | None = None
    mirrors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the file: the last part of its address."""
        return unquote(urlsplit(self.url).path.rpartition("/")[2])


@dataclass(frozen=True)
class PublishedDataset:
    """A dataset as its owners publish it.

    Attributes:
        name: name of the description, e.g. `fma_small`.
        title: name in prose.
        home: address of its home page.
        licence: terms of use, in prose.
        genres: class names, in their customary order.
        archives: files to download.
        faulty: `{path in the dataset: fault}` of files that are faulty as published.
        splits: name of a published list of splits that leaves out what is faulty; None if there is none.
    """

    name: str
    title: str
    home: str
    licence: str
    genres: tuple[str, ...]
    archives: tuple[Archive, ...]
    faulty: Mapping[str, str] = field(default_factory=dict)
    splits: str | None = None


@cache
def published_dataset(name: str) -> PublishedDataset:
    """Read the description of a published dataset.

    Raises:
        KeyError: there is no description with this name.
    """
    file = files("mgc.manifests") / "datasets" / f"{name}.toml"
    if not file.is_file():
        raise KeyError(name)
    entry = tomllib.loads(file.read_text(encoding="utf-8"))
    archives = tuple(
        Archive(**archive | {"mirrors": tuple(archive.get("mirrors", ()))}) for archive in entry.pop("archives")
    )
    return PublishedDataset(name=name, genres=tuple(entry.pop("genres")), archives=archives, **entry)


def published_names() -> tuple[str, ...]:
    """Names of all descriptions, sorted."""
    return tuple(
        sorted(
            file.name.removesuffix(".toml")
            for file in (files("mgc.manifests") / "datasets").iterdir()
            if file.name.endswith(".toml")
        )
    )
