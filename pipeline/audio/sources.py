"""The audio files of a dataset as files that can be opened: where they lie, or as copies of objects."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from mgc.pipeline.audio import decoding
from mgc.pipeline.audio.decoding import Unusable
from mgc.pipeline.storage.remote import RemotePath, Status, below, scratch

#: Times a file that changes while it is read is read before it is given up until the next run.
READINGS = 2

#: Where the paths of a dataset begin.
Root: TypeAlias = bytes | Path | RemotePath


def status(root: Root, path: bytes) -> os.stat_result | Status:
    """What the file system, or the server, says of an audio file.

    Raises:
        Unusable: `missing`, `not-a-file` or `unreadable`.
    """
    if not isinstance(root, RemotePath):
        return decoding.status(_joined(root, path))
    with _refusals():
        return below(root, path).stat()


@contextlib.contextmanager
def at_hand(root: Root, path: bytes, row: dict[str, Any]) -> Iterator[bytes]:
    """The name of an audio file that can be opened.

    Of an object it is that of a copy, one at a time; what the server says of its size and time enters the row.

    Raises:
        Unusable: there is no object, or it cannot be read.
    """
    if not isinstance(root, RemotePath):
        yield _joined(root, path)
        return
    with tempfile.TemporaryDirectory(prefix="mgc-", dir=scratch()) as folder:
        copy = Path(folder) / os.fsdecode(path.rpartition(b"/")[2][-200:])  # FFmpeg looks at names, too
        found = _fetch(root, path, copy, row)
        try:
            yield os.fsencode(copy)
        finally:
            row |= signature(found)


def readable(root: Root, path: bytes) -> bool:
    """Whether an audio file can be read."""
    if isinstance(root, RemotePath):
        return below(root, path).readable()
    return os.access(_joined(root, path), os.R_OK)


def content_hash(root: Root, path: bytes) -> str:
    """The content hash of an audio file.

    Raises:
        Unusable: it is no file that can be read.
        OSError: there is no such object, or no server can be reached.
    """
    if isinstance(root, RemotePath):
        with below(root, path).fetched() as copy:
            return decoding.inspect(os.fsencode(copy)).content_hash
    return decoding.inspect(_joined(root, path)).content_hash


def _joined(root: bytes | Path, path: bytes) -> bytes:
    return os.path.join(os.fsencode(root), path)  # noqa: PTH118  names need not be text


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
