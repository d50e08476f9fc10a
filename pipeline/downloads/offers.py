"""What can be downloaded: datasets that mgc or layouts of plug-ins describe, and weights of networks."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from mgc.pipeline import plugins, suggestions
from mgc.pipeline.datasets.layouts import plugin_layouts
from mgc.pipeline.datasets.published import PublishedDataset, published_dataset, published_names
from mgc.pipeline.downloads.published_weights import (
    PublishedWeights,
    published_weights,
    published_weights_names,
)
from mgc.pipeline.errors import UsageError

#: Names of datasets and of archives: they become names of files.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


def offers() -> dict[str, PublishedDataset | PublishedWeights]:
    """All that can be downloaded, by the name that `mgc download` takes: `fma-small` for `fma_small`.

    A layout of a plug-in may have an attribute `downloads`, a sequence of `PublishedDataset`. One that cannot be used
    is reported on stderr and left out.
    """
    found: dict[str, PublishedDataset | PublishedWeights] = {
        _offer_name(name): published_dataset(name) for name in published_names()
    }
    found |= {name: published_weights(name) for name in published_weights_names()}
    for layout, dataset in _plugin_datasets():
        problem = _problem(dataset, found)
        if problem is None:
            found[_offer_name(dataset.name)] = dataset
        else:
            name = getattr(dataset, "name", dataset)
            plugins.warn(f"the dataset {name} of the layout {layout} cannot be downloaded ({problem}); repair it")
    return found


def find_offer(name: str) -> PublishedDataset | PublishedWeights:
    """Find a dataset, or weights, by the name that `mgc download` takes.

    Raises:
        UsageError: there is neither.
    """
    known = offers()
    if (offer := known.get(_offer_name(name))) is not None:
        return offer
    near = suggestions.question(suggestions.nearest(_offer_name(name), known))
    raise UsageError(
        f"no dataset or weights {name!r} to download", f"{near}`mgc download` lists all: {', '.join(known)}"
    )


def _offer_name(name: str) -> str:
    return name.replace("_", "-")


def _plugin_datasets() -> Iterator[tuple[str, PublishedDataset]]:
    for name, layout in plugin_layouts().items():
        for dataset in getattr(layout, "downloads", ()):
            yield name, dataset


def _problem(dataset: object, found: Container[str]) -> str | None:
    """Say why the description of a plug-in cannot be used; None if it can."""
    if not isinstance(dataset, PublishedDataset):
        return "it is no PublishedDataset"
    if not _NAME.fullmatch(dataset.name):
        return "its name cannot be that of a folder"
    if _offer_name(dataset.name) in found:
        return "there is one with this name"
    names = [archive.name for archive in dataset.archives]
    if not names or len(set(names)) < len(names) or not all(map(_NAME.fullmatch, names)):
        return "its addresses must end in different names of files"
    return None
