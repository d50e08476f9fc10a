"""The audio files of a dataset as files that can be opened: where they lie, or as copies of objects."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import audio
from pipeline.audio import Unusable
from pipeline.remote import RemotePath, Status, below, scratch

#: Times a file that changes while it is read is read before it is given up until the next run.
READINGS = 2


def status(root: bytes | RemotePath, path: bytes) -> os.stat_result | Status:
    """What the file system, or the server, says of an audio file.

    Raises:
        Unusable: `missing`, `not-a-file` or `unreadable`.
    """
    if not isinstance(root, RemotePath):
        return audio.status(os.path.join(root, path))  # noqa: PTH118  names need not be text
    with _refusals():
        return below(root, path).stat()


@contextlib.contextmanager
def at_hand(root: bytes | RemotePath, path: bytes, row: dict[str, Any]) -> Iterator[bytes]:
    """The name of an audio file that can be opened.

    Of an object it is that of a copy, one at a time; what the server says of its size and time enters the row.

    Raises:
        Unusable: there is no object, or it cannot be read.
    """
    if not isinstance(root, RemotePath):
        yield os.path.join(root, path)  # noqa: PTH118  names need not be text
        return
    with tempfile.TemporaryDirectory(prefix="mgc-", dir=scratch()) as folder:
        copy = Path(folder) / os.fsdecode(path.rpartition(b"/")[2][-200:])  # FFmpeg looks at names, too
        found = _fetch(root, path, copy, row)
        try:
            yield os.fsencode(copy)
        finally:
            row |= signature(found)


def _fetch(root: RemotePath, path: bytes, copy: Path, row: dict[str, Any]) -> Status:
    """Copy an object that keeps still meanwhile, and enter its size and time into the manifest row.

    Raises:
        Unusable: `missing` or `unreadable`.
        OSError: no server can be reached, or the disk is full: that is no fault of the object's.
    """
    with _refusals():
        place = below(root, path)
        for _ in range(READINGS):
            found = place.stat()
            row |= signature(found)
            place.fetch(copy)
            if place.stat() == found:
                return found
    row |= {"size": None, "mtime_ns": None}
    raise Unusable("unreadable", "it changed while it was read")


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What a server says of one object as `Unusable`."""
    try:
        yield
    except FileNotFoundError:
        raise Unusable("missing") from None
    except OSError as error:
        if error.errno in (errno.EHOSTUNREACH, errno.ENOSPC, errno.EDQUOT):
            raise
        raise Unusable("unreadable", error.strerror or "") from None


def signature(found: os.stat_result | Status) -> dict[str, int]:
    """What tells one state of a file from another, as columns of the manifest."""
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}
