"""Embedding of the stores that `mgc extract --for probe/...` has made, with weights that it downloads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mgc.models.embedding.embed import Progress, Result, embed
from mgc.models.embedding.embedder import open_model
from mgc.pipeline.downloads import weights
from mgc.pipeline.downloads.places import Places
from mgc.pipeline.downloads.published_weights import published_weights, published_weights_names
from mgc.pipeline.downloads.settings import Settings
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.store.store import Store
from mgc.pipeline.workspace import Workspace

#: Features, each with the network that embeds it.
Wanted = Sequence[tuple[FeatureSpec, str]]


def require_networks(wanted: Wanted, workspace: Workspace, echo: Callable[[str], None]) -> None:
    """Download the networks that the workspace lacks: before hours of extraction, not after.

    Raises:
        MgcError: one cannot be downloaded.
    """
    for _, name in wanted:
        package = name.partition("/")[0]
        where = Places(workspace.weights, package)
        if package in published_weights_names() and weights.read_record(where.folder) is None:
            echo(f"download: {package}, the network that embeds the tracks")
            weights.download(published_weights(package), where, Settings(echo))


def embed_stores(wanted: Wanted, stores: Sequence[Store], workspace: Workspace, progress: Progress) -> list[Result]:
    """Embed those of the stores that hold a wanted feature.

    Raises:
        MgcError: a network or a store cannot be used.
    """
    return [
        embed(open_model(name, workspace), store, progress=progress)
        for spec, name in wanted
        for store in stores
        if store.spec == spec
    ]
