"""Dataset layouts: those of mgc, those of plug-ins, and which one a folder has."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any, Protocol

from mgc.pipeline import plugins
from mgc.pipeline.datasets import fma, gtzan
from mgc.pipeline.datasets.catalogue import Catalogue
from mgc.pipeline.errors import MgcError
from mgc.pipeline.storage.remote import Place

#: Built-in values of `--format`. `tags` is `folder` with the genres of the files' tags.
FORMATS = ("auto", "fma", "gtzan", "folder", "tags", "list")


class Layout(Protocol):
    """An arrangement of audio files and genres in a folder: a module of this package, or an object of a plug-in."""

    def find_root(self, folder: Place) -> Place | None:
        """Find the folder that has this layout: `folder` or one inside it; None if there is none."""

    def read(self, root: Place) -> Catalogue:
        """Read the tracks of a folder with this layout.

        Raises:
            DatasetError: there are no tracks in it.
        """


def formats() -> list[str]:
    """All values of `--format`: the built-in ones, then those of plug-ins."""
    return [*FORMATS, *plugin_layouts()]


@cache
def plugin_layouts() -> dict[str, Layout]:
    """Layouts of plug-ins by name, which is their value of `--format`."""
    return {name: plugin.value for name, plugin in plugins.load(plugins.DATASETS, _require_layout).items()}


def _require_layout(point: EntryPoint, value: Any) -> None:
    """Check the object of an entry point.

    Raises:
        TypeError: it is not a layout.
        ValueError: its name is that of a built-in format.
    """
    if not all(callable(getattr(value, name, None)) for name in ("find_root", "read")):
        raise TypeError("it has no functions find_root and read")
    if point.name in FORMATS:
        raise ValueError(f"mgc has a format {point.name} itself")


def recognise(folder: Place, format: str) -> tuple[str, Place]:
    """Recognise the layout of a folder: FMA, GTZAN, then plug-ins by name, then plain genre folders.

    Args:
        folder: the folder that the user named.
        format: a value of `--format`; any but `auto` restricts the search to that layout.

    Returns:
        The format, and the audio root: `folder` or a folder inside it.

    Raises:
        DatasetError: the folder holds several roots of one layout.
    """
    layouts: dict[str, Layout | ModuleType] = {"fma": fma, "gtzan": gtzan, **plugin_layouts()}
    for name, layout in layouts.items():
        if format in ("auto", name) and (root := _find_root(name, layout, folder)):
            return name, root
    return ("folder" if format == "auto" else format), folder


def _find_root(name: str, layout: Layout | ModuleType, folder: Place) -> Place | None:
    """Call a layout's `find_root`; if a plug-in's fails, warn and return None."""
    try:
        return layout.find_root(folder)
    except (MgcError, OSError):
        raise
    except Exception as error:
        plugins.warn(f"the dataset layout {name} fails on {folder} ({type(error).__name__}: {error}) and is left out")
        return None
