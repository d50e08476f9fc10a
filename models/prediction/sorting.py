"""Sorting of music into a folder for each genre; no file is ever overwritten."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Literal

from mgc.pipeline.errors import MgcError
from mgc.pipeline.storage import files

#: How a file gets into the folder of its genre.
Way = Literal["copy", "link", "move"]
#: Characters that no file system forbids in the name of a folder.
_FOREIGN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]+')


def folder_name(genre: str) -> str:
    """Return the name of a genre's folder: the genre without characters that lead elsewhere or that systems forbid."""
    return _FOREIGN.sub("_", genre).strip(" .") or "_"


def target(path: str, folder: Path, genre: str) -> Path:
    """Return the place of a file in a sorted folder."""
    return folder / folder_name(genre) / Path(path).name


def place(path: Path, final: Path, way: Way) -> bool:
    """Put a file into its place.

    Args:
        path: the file.
        final: its place; the folder is created if it does not exist.
        way: copy the file, link to it (a symbolic link to its absolute path), or move it.

    Returns:
        False if the place holds this very file, or an equal one, already; a file to be moved stays then.

    Raises:
        MgcError: the place holds another file, or cannot be written.
    """
    if os.path.lexists(final):
        if final.is_file() and filecmp.cmp(path, final, shallow=False):
            return False
        raise _taken(final)
    with files.translate_write_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            if way == "link":
                final.symlink_to(Path(os.path.abspath(path)))  # noqa: PTH100  # a link to a link stays one
            else:
                _copy(path, final, as_link=way == "move")
        except FileExistsError:  # it came into being this moment
            raise _taken(final) from None
        if way == "move":
            path.unlink()
    return True


def _taken(final: Path) -> MgcError:
    return MgcError(f"{final}: another file of this name is there", "it stays; rename one of them")


def _copy(path: Path, final: Path, *, as_link: bool) -> None:
    """Give a file, or a whole copy of it, a second name that must not exist yet.

    Raises:
        FileExistsError: it exists.
    """
    if as_link and not path.is_symlink():
        try:
            os.link(path, final)
        except FileExistsError:
            raise
        except OSError:  # another file system, or one without hard links
            pass
        else:
            return
    temporary = final.with_name(f"{files.TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        shutil.copy2(path, temporary)
        try:
            os.link(temporary, final)  # unlike a rename, this never replaces a file
        except FileExistsError:
            raise
        except OSError:
            if os.path.lexists(final):
                raise FileExistsError(str(final)) from None
            temporary.rename(final)
    finally:
        temporary.unlink(missing_ok=True)
