"""Datasets as their owners publish them, read into one track table. No audio is opened, no dataset written to."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline import plugins
from mgc.pipeline.datasets import fma, folder, gtzan, listing
from mgc.pipeline.datasets.catalogue import Catalogue, format_names, is_audio_name
from mgc.pipeline.datasets.published import Published, published
from mgc.pipeline.errors import DatasetError, MgcError
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.storage.urls import parse_place

__all__ = ["FORMATS", "Dataset", "Layout", "formats", "open_dataset", "reopen"]

#: Values of `--format` that mgc knows itself.
FORMATS = ("auto", "fma", "gtzan", "folder", "list")


class Layout(Protocol):
    """A way to arrange audio files and their genres in a folder: a module of this package, or a plug-in."""

    def find_root(self, folder: Place) -> Place | None:
        """The folder inside `folder` (or itself) that has this layout; None if there is none."""

    def read(self, root: Place) -> Catalogue:
        """The tracks of a folder with this layout.

        Raises:
            DatasetError: there are no tracks in it.
        """


def formats() -> list[str]:
    """Values of `--format`: mgc's own, then those of plug-ins."""
    return [*FORMATS, *_plugin_layouts()]


@cache
def _plugin_layouts() -> dict[str, Layout]:
    return {name: plugin.value for name, plugin in plugins.load(plugins.DATASETS, _require_layout).items()}


def _require_layout(point: EntryPoint, value: Any) -> None:
    """Raise `TypeError` if the object of an entry point is no layout, `ValueError` if its name is taken."""
    if not all(callable(getattr(value, name, None)) for name in ("find_root", "read")):
        raise TypeError("it has no functions find_root and read")
    if point.name in FORMATS:
        raise ValueError(f"mgc has a format {point.name} itself")


@dataclass(frozen=True)
class Dataset:
    """A dataset as found.

    Attributes:
        name: what its stores are filed under: the name of its folder or list, in letters, digits, `_`, `.` and `-`.
        root: absolute audio root, or its URL; the paths in the table are relative to it.
        source: the folder or list that was named.
        format: `fma`, `gtzan`, `folder` or `list`.
        genres: the classes, in their customary order for a published dataset, else sorted.
        tracks: table of DATASET_SCHEMA, sorted by `track_id`, ids and paths unique, every genre one of `genres`.
            Files may be absent. `split` is what the dataset itself says.
        notes: what was left out or looks odd, for the user to read.
        published: name of the published dataset that it is a copy of, as layout and genres suggest.
        options: what else was said about it, by the names that `open_dataset` has for it.
    """

    name: str
    root: Place
    source: Place
    format: str
    genres: tuple[str, ...]
    tracks: pa.Table
    notes: tuple[str, ...]
    published: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


def open_dataset(
    source: Place,
    *,
    format: str = "auto",
    metadata: Place | None = None,
    subset: str | None = None,
    genre_column: str | None = None,
    audio_root: Place | None = None,
    copies: Path | None = None,
) -> Dataset:
    """Read the dataset at `source`.

    Args:
        source: an audio folder, or a list of tracks in CSV or Parquet; either may be a URL.
        format: one of FORMATS; `auto` recognises the others.
        metadata: FMA only: `tracks.csv` or its folder.
        subset: FMA only: `small`, `medium`, `large` or `full`.
        genre_column: FMA and lists only: the column that holds the genre.
        audio_root: lists only: the folder that their paths are relative to.
        copies: FMA only: a folder to keep what was read of `tracks.csv` in, for the next call.

    Raises:
        DatasetError: there is no dataset there, it cannot be read, or an option does not apply to it.
    """
    source = _absolute(source)
    audio_root = audio_root and _absolute(audio_root)
    if format not in FORMATS and format not in _plugin_layouts():
        raise DatasetError(f"unknown dataset format {format!r}", f"choose one of {', '.join(formats())}")
    is_folder = _is_folder(source)
    if format != "auto" and is_folder == (format == "list"):
        raise DatasetError(f"{source} is a {'folder' if is_folder else 'file'}", f"it cannot be read as {format}")
    format, root = _recognise(source, format) if is_folder else ("list", audio_root or source.parent)
    _refuse_foreign_options(
        format,
        {"--metadata": metadata, "--subset": subset, "--genre-column": genre_column, "--audio-root": audio_root},
    )
    match format:
        case "fma":
            found = fma.read(root, metadata=metadata, subset=subset, genre_column=genre_column, copies=copies)
        case "gtzan":
            found = gtzan.read(root)
        case "folder":
            found = folder.read(root)
        case "list":
            found = _read_list(source, audio_root, genre_column)
        case _:
            found = _plugin_layouts()[format].read(root)
    genres, notes = _describe(found)
    given = {"metadata": metadata and _absolute(metadata), "subset": subset, "genre_column": genre_column}
    options = given | {"audio_root": audio_root}
    # FMA's audio folder is called `fma_small`, GTZAN's just `genres`: there the folder around it says more.
    name = {"fma": root.name, "list": source.stem}.get(format, source.name)
    return Dataset(
        name=re.sub(r"[^\w.-]+", "_", name).strip("._-") or "dataset",
        root=root,
        source=source,
        format=format,
        genres=genres,
        tracks=found.tracks,
        notes=notes,
        published=found.published if _known(found, genres) else None,
        options={name: str(value) for name, value in options.items() if value is not None},
    )


def reopen(described: Mapping[str, Any]) -> Dataset:
    """The dataset that a store was made of, as it is now.

    Args:
        described: what the store says of it.

    Raises:
        DatasetError: it is no longer there, or cannot be read.
    """
    options: dict[str, Any] = {
        name: parse_place(value) if name in ("metadata", "audio_root") else value
        for name, value in described.get("options", {}).items()
    }
    return open_dataset(parse_place(described["source"]), format=described["format"], **options)


def _read_list(source: Place, audio_root: Place | None, genre_column: str | None) -> Catalogue:
    """The tracks of a list; of one at a URL, whose paths begin there, by a copy."""
    if not isinstance(source, RemotePath):
        return listing.read(source, audio_root=audio_root, genre_column=genre_column)
    with source.local_copy() as copy:
        try:
            return listing.read(copy, audio_root=audio_root or source.parent, genre_column=genre_column)
        except DatasetError as error:
            raise DatasetError(error.problem.replace(str(copy), str(source)), error.remedy) from error


def _absolute(path: Place) -> Place:
    """An absolute path without `..`; links are not followed, since the name of a link is the one the user chose."""
    if isinstance(path, RemotePath):
        return path
    return Path(os.path.abspath(path))  # noqa: PTH100


def _is_folder(source: Place) -> bool:
    """Whether `source` is a folder (True) or a file that may be a list (False).

    Raises:
        DatasetError: it is neither, cannot be read, or is an empty folder or an audio file.
    """
    remedy = "name a folder of audio, or a CSV or Parquet list"
    if isinstance(source, RemotePath):
        return _is_remote_folder(source, remedy)
    try:
        mode = source.stat().st_mode
        if stat.S_ISDIR(mode):
            with os.scandir(source) as entries:
                if next(entries, None) is None:
                    raise DatasetError(f"{source} is an empty folder", remedy)
            return True
    except OSError as error:
        raise DatasetError(f"cannot open dataset {source}: {error.strerror}", remedy) from error
    if not stat.S_ISREG(mode) or is_audio_name(source.name):
        raise DatasetError(f"{source} is {'one audio file' if stat.S_ISREG(mode) else 'not a file'}", remedy)
    return False


def _is_remote_folder(source: RemotePath, remedy: str) -> bool:
    try:
        if source.is_file():
            if is_audio_name(source.name):
                raise DatasetError(f"{source} is one audio file", remedy)
            return False
        if source.is_dir():
            return True
    except OSError as error:
        raise DatasetError(f"cannot open dataset {source}: {error.strerror}", remedy) from error
    raise DatasetError(f"cannot open dataset {source}: there is nothing below this name", remedy)


def _recognise(source: Place, format: str) -> tuple[str, Place]:
    """The format of a folder and where in it the audio is; the first of FMA, GTZAN, plug-ins and plain folders that fits."""
    layouts: dict[str, Layout | ModuleType] = {"fma": fma, "gtzan": gtzan, **_plugin_layouts()}
    for name, layout in layouts.items():
        if format in ("auto", name) and (root := _root(name, layout, source)):
            return name, root
    return ("folder" if format == "auto" else format), source


def _root(name: str, layout: Layout | ModuleType, source: Place) -> Place | None:
    """The root of a layout below a folder; a plug-in that fails is reported, and its layout is not recognised."""
    try:
        return layout.find_root(source)
    except (MgcError, OSError):
        raise
    except Exception as error:
        plugins.warn(f"the dataset layout {name} fails on {source} ({type(error).__name__}: {error}) and is left out")
        return None


def _refuse_foreign_options(format: str, options: dict[str, object]) -> None:
    """Raise a DatasetError for an option that says nothing about a dataset of this format."""
    applicable = {"fma": {"--metadata", "--subset", "--genre-column"}, "list": {"--genre-column", "--audio-root"}}
    foreign = [name for name, value in options.items() if value is not None and name not in applicable.get(format, ())]
    if foreign:
        raise DatasetError(f"{' and '.join(foreign)} cannot be used with a dataset in {format} format", "leave it out")


def _known(found: Catalogue, genres: tuple[str, ...]) -> Published | None:
    """The published dataset of the same layout and genres."""
    known = published(found.published) if found.published else None
    return known if known is not None and set(genres) == set(known.genres) else None


def _describe(found: Catalogue) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The genres in order, and the notes; a dataset with the genres of a published one is taken for a copy of it."""
    genres = tuple(sorted(found.tracks["genre"].unique().to_pylist()))
    known = _known(found, genres)
    if known is None:
        return genres, found.notes
    here = pc.is_in(found.tracks["path"], pa.array(known.faulty, pa.string()))
    faulty = [f"{path}: {known.faulty[path]}" for path in found.tracks["path"].filter(here).to_pylist()]
    note = f"files known to be faulty as published: {len(faulty):,} ({format_names(faulty)})"
    return known.genres, (*found.notes, *([note] if faulty else []))
