"""A dataset from its published archives to a folder that `mgc extract --dataset` reads."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgc.pipeline.datasets.published import Archive, PublishedDataset
from mgc.pipeline.downloads import fetching, places
from mgc.pipeline.downloads.guard import no_room
from mgc.pipeline.downloads.parts import Part, verify
from mgc.pipeline.downloads.places import Places
from mgc.pipeline.downloads.published_weights import PublishedWeights
from mgc.pipeline.downloads.settings import Settings, public
from mgc.pipeline.downloads.unpacking import Unpacked, unpack
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.storage import files
from mgc.pipeline.units import format_size
from mgc.pipeline.workspace import ARCHIVES


@dataclass(frozen=True)
class ArchivePlan:
    """What is to be done about an archive.

    Attributes:
        archive: the archive.
        size: its length in bytes; None if neither the description nor the server says.
        present: bytes of it that are on the disk.
        is_complete: True if nothing has to be fetched.
    """

    archive: Archive
    size: int | None
    present: int
    is_complete: bool

    @property
    def missing(self) -> int:
        """Bytes to fetch, as far as they are known."""
        return 0 if self.is_complete else max(0, (self.size or 0) - self.present)


@dataclass(frozen=True)
class Plan:
    """What a download would do.

    Attributes:
        archives: the archives in order.
        unpacked: bytes of unpacked files on the disk.
        free: free bytes of the disk.
    """

    archives: tuple[ArchivePlan, ...]
    unpacked: int
    free: int

    @property
    def to_unpack(self) -> int:
        """Bytes that unpacking will need, about: audio is compressed already, so they are those of the archives."""
        return max(0, sum(plan.size or 0 for plan in self.archives) - self.unpacked)

    @property
    def needed(self) -> int:
        """Bytes that are needed on the disk, about."""
        return sum(plan.missing for plan in self.archives) + self.to_unpack

    def lines(self, settings: Settings) -> list[str]:
        """The plan as text, one line per archive and one for the space."""
        lines = []
        for plan in self.archives:
            size = format_size(plan.size) if plan.size is not None else "size unknown"
            state = f"{format_size(plan.present)} there" if plan.present else "to fetch"
            state = "is there" if plan.is_complete else state
            lines.append(f"{plan.archive.name}: {size}, {state}; {public(settings.urls(plan.archive)[0])}")
        about = "at least" if any(plan.size is None for plan in self.archives) else "about"
        needed = f"{about} {format_size(self.needed)} needed" if self.needed else "what is needed is not known"
        return [*lines, f"space: {needed}, {format_size(self.free)} free"]


def make_plan(dataset: PublishedDataset, where: Places, settings: Settings) -> Plan:
    """Find out what is there, and ask the server for the lengths that are not known."""
    plans = []
    for archive in dataset.archives:
        path = where.archive(archive)
        if path.is_file():
            plans.append(ArchivePlan(archive, path.stat().st_size, path.stat().st_size, True))
        else:
            size = archive.size if archive.size is not None else fetching.probe(archive, settings)
            plans.append(ArchivePlan(archive, size, Part(path).size(), False))
    unpacked = sum(file.stat().st_size for file in where.unfinished.rglob("*") if file.is_file())
    above = next(folder for folder in (where.root, *where.root.absolute().parents) if folder.exists())
    return Plan(tuple(plans), unpacked, shutil.disk_usage(above).free)


def download(dataset: PublishedDataset, where: Places, settings: Settings, *, keep_archives: bool) -> int:
    """Fetch, verify and unpack a dataset. A call that was interrupted is continued; a complete dataset stays as it is.

    Args:
        dataset: the dataset.
        where: where it goes.
        settings: how it is fetched.
        keep_archives: True to keep the archives when it is complete.

    Returns:
        Number of files in the dataset.

    Raises:
        MgcError: it cannot be fetched, verified, unpacked or written.
    """
    with where.locked(), files.translate_write_errors(where.root):
        if (known := _complete_files(dataset, where)) is not None:
            settings.note(f"{where.folder} is complete: nothing to do; --check verifies its files")
            return len(known)
        unpacked = places.read_record(where.unfinished, dataset)
        if unpacked is None:
            unpacked = _fetch_and_unpack(dataset, where, settings)
        if not keep_archives:
            for archive in dataset.archives:
                where.archive(archive).unlink(missing_ok=True)
        where.unfinished.rename(where.folder)
        files.sync_folder(where.root)
    return len(unpacked)


def _complete_files(dataset: PublishedDataset, where: Places) -> dict[str, Unpacked] | None:
    """The files of the dataset if its folder is complete; None if there is no such folder.

    Raises:
        DatasetError: there is something else in its place.
    """
    if not os.path.lexists(where.folder):
        return None
    if (known := places.read_record(where.folder, dataset)) is not None:
        return known
    check = f"mgc download {where.name} {shlex.quote(str(where.folder))} --check"
    problem = f"{where.folder} is there, but mgc did not download this version of {dataset.title} into it"
    raise DatasetError(problem, f"move it away, or choose another --data-dir; `{check}` compares it")


def _fetch_and_unpack(dataset: PublishedDataset, where: Places, settings: Settings) -> dict[str, Unpacked]:
    """Fill the unfinished folder, its record last; return its files by path."""
    (where.root / ARCHIVES).mkdir(exist_ok=True)
    plan = make_plan(dataset, where, settings)
    for line in plan.lines(settings):
        settings.note(line)
    if plan.needed > plan.free:
        raise no_room(plan.needed, plan.free)
    for archive_plan in plan.archives:
        archive, path = archive_plan.archive, where.archive(archive_plan.archive)
        if not archive_plan.is_complete:
            fetching.fetch(archive, path, settings)
        elif (problem := verify(archive, path)) is not None:
            raise DatasetError(f"{path}: {problem}", "remove it and run the same command again")
    unpacked: dict[str, Unpacked] = {}
    for archive in dataset.archives:
        unpacked |= unpack(where.archive(archive), where.unfinished, unpacked)
    # One call for all files: a call for each of FMA-large's 106,574 would take minutes.
    getattr(os, "sync", lambda: None)()
    places.write_record(where.unfinished, dataset, unpacked)
    return unpacked


def next_command(dataset: PublishedDataset, folder: Path) -> str:
    """The command that reads the dataset."""
    splits = f" --splits {dataset.splits}" if dataset.splits else ""
    return f"mgc extract --dataset {shlex.quote(str(folder))}{splits}"


def describe(dataset: PublishedDataset | PublishedWeights, name: str) -> dict[str, Any]:
    """A dataset, or weights, that can be downloaded, as JSON."""
    sizes: list[int | None] = (
        [dataset.size] if isinstance(dataset, PublishedWeights) else [archive.size for archive in dataset.archives]
    )
    return {
        "name": name,
        "title": dataset.title,
        "bytes": None if None in sizes else sum(filter(None, sizes)),
        "licence": dataset.licence,
        "home": dataset.home,
    }
