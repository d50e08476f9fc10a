"""Descriptions of published weights of networks: where they come from, under which licence, and what they learnt."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class PublishedNetwork:
    """A trained network.

    Attributes:
        name: its name in `mgc train --weights PACKAGE/NAME`.
        system: id of the system whose weights these are.
        trained_on: dataset that it was trained on, in prose.
        tags: what its outputs stand for, in their order.
        index, data: paths of its TensorFlow checkpoint in the wheel.
        layers: module of the network by layer of the checkpoint.
    """

    name: str
    system: str
    trained_on: str
    tags: tuple[str, ...]
    index: str
    data: str
    layers: Mapping[str, str]


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that a wheel of a package index holds.

    Attributes:
        name: name of the description, e.g. `musicnn`.
        title: name in prose.
        home: address of the home page.
        licence: identifier of the licence.
        copyright: who holds the rights.
        citation: the publication.
        note: what a user should know.
        requirement: what pip is asked for.
        file: name of the wheel.
        size: its length in bytes.
        sha256: its checksum in hexadecimal.
        licence_file: path of the licence in the wheel.
        networks: the networks; the first one of a system is its default.
    """

    name: str
    title: str
    home: str
    licence: str
    copyright: str
    citation: str
    note: str
    requirement: str
    file: str
    size: int
    sha256: str
    licence_file: str
    networks: tuple[PublishedNetwork, ...]


@cache
def published_weights(name: str) -> PublishedWeights:
    """Read the description of published weights.

    Raises:
        KeyError: there is no description with this name.
    """
    file = files("mgc.manifests") / "weights" / f"{name}.toml"
    if not file.is_file():
        raise KeyError(name)
    entry = tomllib.loads(file.read_text(encoding="utf-8"))
    tags, layers = entry.pop("tags"), entry.pop("layers")
    networks = tuple(
        PublishedNetwork(**row | {"tags": tuple(tags[row["tags"]]), "layers": layers[row["layers"]]})
        for row in entry.pop("networks")
    )
    return PublishedWeights(name=name, networks=networks, **entry)


def published_weights_names() -> tuple[str, ...]:
    """Names of all descriptions, sorted."""
    folder = files("mgc.manifests") / "weights"
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))
