"""A server process with faults, and a package whose small archives `mgc download` offers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from http_faults import Server, serving
from tiny_archives import install_offers, write_archives

from mgc.pipeline import plugins
from mgc.pipeline.datasets import layouts


@dataclass(frozen=True)
class World:
    """The archives, their server, and the environment in which other processes know of them."""

    archives: Path
    server: Server
    environment: dict[str, str]


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("downloads")
    archives, site = folder / "archives", folder / "site"
    archives.mkdir()
    site.mkdir()
    write_archives(archives)
    caches = (plugins._entry_points, layouts.plugin_layouts)
    with serving(archives, folder / "requests.log") as server, pytest.MonkeyPatch.context() as patch:
        install_offers(site, archives, server.url("missing"))
        patch.syspath_prepend(site)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            patch.delenv(name, raising=False)
        for cached in caches:
            cached.cache_clear()
        paths = [str(site), os.environ.get("PYTHONPATH", "")]
        yield World(archives, server, {"PYTHONPATH": os.pathsep.join(filter(None, paths))})
    for cached in caches:
        cached.cache_clear()
