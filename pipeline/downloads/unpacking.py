"""Archives into folders: only files, only below the folder, and only as many bytes as declared."""

from __future__ import annotations

import contextlib
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mgc.pipeline.downloads import archives
from mgc.pipeline.downloads.archives import Entry
from mgc.pipeline.downloads.guard import Budget
from mgc.pipeline.downloads.progress import Progress, showing
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.escaping import visible
from mgc.pipeline.storage import files

_BLOCK = 1 << 20
#: Name of the file that is being written; it gets its own name when it is complete.
_UNFINISHED = f"{files.TEMPORARY_PREFIX}file"


class Unpacked(NamedTuple):
    """A file that was unpacked: size in bytes and CRC-32."""

    size: int
    crc: int


def unpack(archive: Path, folder: Path, known: Iterable[str] = ()) -> dict[str, Unpacked]:
    """Unpack an archive. Files that are there already, with the size and CRC-32 that a zip archive states, are kept.

    Args:
        archive: a zip or tar file.
        folder: where its files go; made if it is missing.
        known: paths that other archives have filled.

    Returns:
        The files by path.

    Raises:
        DatasetError: the archive is damaged, unsafe or too large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    budget = Budget(archive.stat().st_size, shutil.disk_usage(folder).free, known)
    total = _check_zip(archive, folder, budget) if archives.is_zip(archive) else None
    unpacked = {}
    with showing(f"unpack {archive.name}") as progress, archives.entries(archive) as found:
        progress.begin(0, total)
        for entry in found:
            if total is None:
                budget.admit(entry.path, entry.size)
            unpacked[entry.path] = _unpack_file(archive, entry, folder, progress)
    return unpacked


def _check_zip(archive: Path, folder: Path, budget: Budget) -> int:
    """Check all files of a zip archive before the first is unpacked; return the sum of their sizes in bytes."""
    total = 0
    with archives.entries(archive) as found:
        for entry in found:
            target = folder / entry.path
            budget.admit(entry.path, entry.size, present=target.stat().st_size if target.is_file() else 0)
            total += entry.size
    return total


def _unpack_file(archive: Path, entry: Entry, folder: Path, progress: Progress) -> Unpacked:
    """Unpack one file, unless it is there.

    Raises:
        DatasetError: it has more or fewer bytes than declared, or its place is not below the folder.
    """
    target = folder / entry.path
    if entry.crc is not None and is_intact(target, Unpacked(entry.size, entry.crc)):
        progress.advance(entry.size)
        return Unpacked(entry.size, entry.crc)
    _make_parents(folder, target)
    written = crc = 0
    unfinished = folder / _UNFINISHED
    try:
        with archives.damage_explained(archive), entry.open() as source, unfinished.open("wb") as file:
            while block := source.read(min(_BLOCK, entry.size - written + 1)):
                written += len(block)
                if written > entry.size:
                    break
                file.write(block)
                crc = zlib.crc32(block, crc)
                progress.advance(len(block))
        if written != entry.size or entry.crc not in (None, crc):
            problem = f"{archive}: {visible(entry.path)} does not have the {entry.size:,} bytes that are declared"
            raise DatasetError(problem, f"the archive is damaged: remove {archive} and download again")
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return Unpacked(written, crc)


def contents(archive: Path) -> dict[str, Unpacked]:
    """Sizes and CRC-32 of the files in an archive, by path; a tar archive is read to its end for them."""
    found = {}
    with archives.entries(archive) as listed:
        for entry in listed:
            crc = entry.crc
            if crc is None:
                crc = 0
                with entry.open() as file:
                    while block := file.read(_BLOCK):
                        crc = zlib.crc32(block, crc)
            found[entry.path] = Unpacked(entry.size, crc)
    return found


def is_intact(path: Path, expected: Unpacked) -> bool:
    """True if a file, which is no link, has a size and CRC-32."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != expected.size:
        return False
    return file_crc(path) == expected.crc


def file_crc(path: Path) -> int:
    """CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc


def _make_parents(folder: Path, target: Path) -> None:
    """Make the folders of a file.

    Raises:
        DatasetError: one of them is a link, which could lead elsewhere.
    """
    for parent in reversed(target.relative_to(folder).parents[:-1]):
        with contextlib.suppress(FileExistsError):
            (folder / parent).mkdir()
        if (folder / parent).is_symlink() or not (folder / parent).is_dir():
            raise DatasetError(f"{folder / parent} is in the way: it is no folder", "move it away")
    if target.is_dir() and not target.is_symlink():
        raise DatasetError(f"{target} is in the way: it is a folder", "move it away")
