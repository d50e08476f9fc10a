"""Datasets: read a dataset in any known layout into one track table. No audio is decoded, no dataset changed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import clips, fma, folder, gtzan, listing
from mgc.pipeline.datasets.catalogue import Catalogue, format_names, is_audio_name
from mgc.pipeline.datasets.labels import Labelling, Recorded, Request, require_source
from mgc.pipeline.datasets.layouts import FORMATS, Layout, formats, plugin_layouts, recognise
from mgc.pipeline.datasets.published import PublishedDataset, published_dataset
from mgc.pipeline.datasets.tagging import Origin, label
from mgc.pipeline.errors import DatasetError, SpecError
from mgc.pipeline.storage import mapped
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.storage.urls import parse_place

__all__ = ["FORMATS", "Dataset", "Layout", "formats", "open_dataset", "reopen"]


@dataclass(frozen=True)
class Dataset:
    """A dataset, opened.

    Attributes:
        name: name of the dataset's folder or list, in letters, digits, `_`, `.` and `-`; its stores are filed under it.
        root: audio root, an absolute path or URL; paths in the table are relative to it.
        source: the folder or list that the user named.
        format: name of its layout: `fma`, `gtzan`, `folder`, `list`, or that of a plug-in.
        genres: class names, in their customary order for a published dataset, else sorted.
        tracks: table of DATASET_SCHEMA, sorted by `track_id`; ids and paths are unique, every genre is in `genres`, or
            null for tracks in `unlabelled`. Files need not exist. `split` is the dataset's own.
        notes: one sentence each on files or rows that were left out or look odd, for the user.
        published: name of the published dataset that it is a copy of, judged by layout and genres; None if unknown.
        options: the other arguments of `open_dataset` that were given, by name.
        labelling: how the tracks got their genres.
        unlabelled: why tracks without a genre are left out, by id: `detail` of their manifest rows.
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
    labelling: Labelling = field(default_factory=Labelling)
    unlabelled: Mapping[str, str] = field(default_factory=dict)


def open_dataset(
    source: Place,
    *,
    format: str = "auto",
    metadata: Place | None = None,
    subset: str | None = None,
    genre_column: str | None = None,
    audio_root: Place | None = None,
    cache_folder: Path | None = None,
    genres: Request | None = None,
    recorded: Callable[[str, Place], Recorded | None] = lambda name, root: None,
) -> Dataset:
    """Open a dataset.

    Args:
        source: audio folder, or track list in CSV or Parquet; a path or a URL.
        format: one of `formats()`; `auto` recognises the layout.
        metadata: FMA only: `tracks.csv` or its folder; None: `fma_metadata` beside or inside the audio folder.
        subset: FMA only: `small`, `medium`, `large` or `full`; None: the smallest that contains all files present.
        genre_column: FMA and lists only: name of the column that holds the genre; None: the layout's usual one.
        audio_root: lists only: folder that their paths are relative to; None: the folder of the list.
        cache_folder: folder that caches the parsed `tracks.csv` of FMA, and the tags of files, for the next call; None
            disables the cache.
        genres: what the call asks for as to genres; in all else, the record of the stores holds.
        recorded: function of the dataset's name and audio root that returns what its stores record; None if there are
            none.

    Raises:
        DatasetError: there is no dataset at `source`, it cannot be read, an option does not apply to its layout, or it
            is not clear where its genres are.
    """
    source = _absolute(source)
    audio_root = audio_root and _absolute(audio_root)
    options = {
        "metadata": metadata and _absolute(metadata),
        "subset": subset,
        "genre_column": genre_column,
        "audio_root": audio_root,
    }
    if format not in FORMATS and format not in plugin_layouts():
        raise SpecError(f"unknown dataset format {format!r}", f"choose one of {', '.join(formats())}")
    is_folder = _is_folder(source)
    if format != "auto" and is_folder == (format == "list"):
        raise DatasetError(f"{source} is a {'folder' if is_folder else 'file'}", f"it cannot be read as {format}")
    if format == "tags":
        format, genres = "folder", _by_tags(genres or Request())
    format, root = recognise(source, format) if is_folder else ("list", audio_root or source.parent)
    _refuse_foreign_options(format, options)
    name = _dataset_name(source, format, root)
    record = recorded(name, root)
    labelling = (genres or Request()).merged(record.labelling if record else Labelling())
    require_source(labelling.source, format)
    tagged = labelling.source == "tag"
    if tagged and genre_column:
        raise SpecError("--genre-column names a column, --genre-from tag the tags", "leave one of them out")
    origin = Origin(source, root, format, cache_folder)
    catalogue = _read(origin, tagged, options)
    tracks = clips.with_artists(catalogue.tracks, _compare_with_published(catalogue)[2])
    labelled = label(tracks, origin, labelling, record)
    labelled = labelled._replace(tracks=mapped.combine(labelled.tracks))
    catalogue = replace(catalogue, tracks=labelled.tracks)
    classes, notes, published = _compare_with_published(catalogue)
    # Layouts copy the table several times; of a million tracks, Arrow's memory pool would keep 300 MB.
    pa.default_memory_pool().release_unused()
    return Dataset(
        name=name,
        root=root,
        source=source,
        format=format,
        genres=classes,
        tracks=labelled.tracks,
        notes=(*notes, *labelled.notes),
        published=published,
        options={name: str(value) for name, value in options.items() if value is not None},
        labelling=labelling,
        unlabelled=labelled.unlabelled,
    )


def _by_tags(request: Request) -> Request:
    """The request of `--format tags`: the genres are in the files' tags.

    Raises:
        SpecError: `--genre-from` says otherwise.
    """
    if request.source not in (None, "auto", "tag"):
        problem = f"--format tags and --genre-from {request.source} contradict each other"
        raise SpecError(problem, "leave one of them out")
    return request._replace(source="tag")


def _read(origin: Origin, tagged: bool, arguments: Mapping[str, Any]) -> Catalogue:
    """Read the tracks of a dataset by its layout.

    Args:
        origin: where the dataset is.
        tagged: its genres are in the files' tags.
        arguments: `metadata`, `subset`, `genre_column` and `audio_root` of `open_dataset`; paths are absolute.
    """
    match origin.format:
        case "fma":
            names = ("metadata", "subset", "genre_column")
            return fma.read(origin.root, **{name: arguments[name] for name in names}, cache_folder=origin.cache_folder)
        case "gtzan":
            return gtzan.read(origin.root)
        case "folder":
            return folder.read(origin.root, tagged=tagged)
        case "list":
            return _read_list(origin.source, arguments["audio_root"], arguments["genre_column"], tagged)
        case format:
            return plugin_layouts()[format].read(origin.root)


def reopen(description: Mapping[str, Any], *, genres: Sequence[str] = (), cache_folder: Path | None = None) -> Dataset:
    """Open the dataset that a store was extracted from, in its present state.

    Args:
        description: `dataset` in `store.json`, with the keys `source`, `format`, `options` and `labels`.
        genres: genres of the store, which keep their spelling.
        cache_folder: see `open_dataset`.

    Raises:
        DatasetError: it no longer exists, or cannot be read.
    """
    options: dict[str, Any] = {
        name: parse_place(value) if name in ("metadata", "audio_root") else value
        for name, value in description.get("options", {}).items()
    }
    source = parse_place(description["source"])
    if isinstance(source, Path) and not source.exists():
        remedy = "name it with --dataset; if its files have moved, run `mgc extract --dataset FOLDER --moved` first"
        raise DatasetError(f"{source}: the dataset of this store is no longer there", remedy)
    record = Recorded(Labelling.from_dict(description.get("labels", {})), genres)
    return open_dataset(
        source,
        format=description["format"],
        cache_folder=cache_folder,
        recorded=lambda name, root: record,
        **options,
    )


def _read_list(source: Place, audio_root: Place | None, genre_column: str | None, tagged: bool) -> Catalogue:
    """Read a track list, which may be at a URL; its paths are then relative to the URL's parent by default."""
    if not isinstance(source, RemotePath):
        return listing.read(source, audio_root=audio_root, genre_column=genre_column, tagged=tagged)
    with source.local_copy() as copy:
        try:
            root = audio_root or source.parent
            return listing.read(copy, audio_root=root, genre_column=genre_column, tagged=tagged)
        except DatasetError as error:
            raise DatasetError(error.problem.replace(str(copy), str(source)), error.remedy) from error


def _dataset_name(source: Place, format: str, root: Place) -> str:
    """The name of a dataset's folder or list, restricted to letters, digits, `_`, `.` and `-`."""
    # FMA's audio folder is called `fma_small`, GTZAN's just `genres`: for GTZAN the folder around it says more.
    name = {"fma": root.name, "list": source.stem}.get(format, source.name)
    return re.sub(r"[^\w.-]+", "_", name).strip("._-") or "dataset"


def _absolute(path: Place) -> Place:
    """Make a path absolute, without `..`. Links stay unresolved: the user chose the link's name."""
    if isinstance(path, RemotePath):
        return path
    return Path(os.path.abspath(path))  # noqa: PTH100


def _is_folder(source: Place) -> bool:
    """True if `source` is a folder, False if it is a file that may be a list.

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


def _refuse_foreign_options(format: str, options: Mapping[str, object]) -> None:
    """Raise a DatasetError for an option that does not apply to this layout."""
    applicable = {"fma": {"metadata", "subset", "genre_column"}, "list": {"genre_column", "audio_root"}}
    foreign = [name for name, value in options.items() if value is not None and name not in applicable.get(format, ())]
    if foreign:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in foreign)
        raise DatasetError(f"{names} cannot be used with a dataset in {format} format", "leave it out")


def _compare_with_published(catalogue: Catalogue) -> tuple[tuple[str, ...], tuple[str, ...], str | None]:
    """Compare a catalogue with the published dataset of its layout: the same genres mean that it is a copy.

    Returns:
        The genres in order; the notes, with one on files that are faulty as published; the published dataset's name,
        None if the catalogue is not a copy of one.
    """
    genres = tuple(sorted(catalogue.tracks["genre"].drop_null().unique().to_pylist()))
    published: PublishedDataset | None = published_dataset(catalogue.published) if catalogue.published else None
    if published is None or set(genres) != set(published.genres):
        return genres, catalogue.notes, None
    paths = catalogue.tracks["path"].filter(pc.is_in(catalogue.tracks["path"], pa.array(published.faulty, pa.string())))
    faulty = [f"{path}: {published.faulty[path]}" for path in paths.to_pylist()]
    note = f"files known to be faulty as published: {len(faulty):,} ({format_names(faulty)})"
    return published.genres, (*catalogue.notes, *([note] if faulty else [])), catalogue.published
