"""Access to the audio files of a dataset, under a local folder or at a URL."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from mgc.pipeline.audio import inspection
from mgc.pipeline.audio.inspection import UnusableAudio
from mgc.pipeline.storage.remote import RemotePath, Status, scratch_directory
from mgc.pipeline.storage.urls import object_at

#: Number of attempts to read a file that changes while it is read. After that, it is left to the next run.
READ_ATTEMPTS = 2

#: Folder or URL to which a dataset's paths are relative.
Root: TypeAlias = bytes | Path | RemotePath


def stat_file(root: Root, path: bytes) -> os.stat_result | Status:
    """Return size and modification time of an audio file.

    Args:
        root: folder or URL of the dataset.
        path: path below `root`.

    Raises:
        UnusableAudio: `missing`, `not-a-file` or `unreadable`.
    """
    if not isinstance(root, RemotePath):
        return inspection.stat_file(_join(root, path))
    with _unusable_on_error():
        return object_at(root, path).stat()


@contextlib.contextmanager
def local_path(root: Root, path: bytes, row: dict[str, Any]) -> Iterator[bytes]:
    """Provide a local path of an audio file; an object at a URL is downloaded, and the copy removed at the end.

    Args:
        root: folder or URL of the dataset.
        path: path below `root`.
        row: the track's manifest row. For an object at a URL, its `size` and `mtime_ns` are set to the server's.

    Yields:
        The path of a local file.

    Raises:
        UnusableAudio: `missing` or `unreadable`, for an object at a URL.
        OSError: the server cannot be reached, or the disk is full.
    """
    if not isinstance(root, RemotePath):
        yield _join(root, path)
        return
    with tempfile.TemporaryDirectory(prefix="mgc-", dir=scratch_directory()) as folder:
        # The object's name, since FFmpeg also considers the suffix; cut, since file systems limit names to 255 bytes.
        copy = Path(folder) / os.fsdecode(path.rpartition(b"/")[2][-200:])
        status = _download(root, path, copy, row)
        try:
            yield os.fsencode(copy)
        finally:
            row |= signature(status)  # over that of the copy


def readable(root: Root, path: bytes) -> bool:
    """Return True if an audio file can be opened for reading."""
    if isinstance(root, RemotePath):
        return object_at(root, path).is_readable()
    return os.access(_join(root, path), os.R_OK)


def content_hash(root: Root, path: bytes) -> str:
    """Return the content hash of an audio file, downloading it if it lies at a URL.

    Raises:
        UnusableAudio: it is not a regular file, cannot be read or is empty.
        OSError: there is no such object, or the server cannot be reached.
    """
    if isinstance(root, RemotePath):
        with object_at(root, path).local_copy() as copy:
            return inspection.inspect(os.fsencode(copy)).content_hash
    return inspection.inspect(_join(root, path)).content_hash


def signature(status: os.stat_result | Status) -> dict[str, int]:
    """Return a file's size and modification time as manifest columns; they tell whether it changed since."""
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _join(root: bytes | Path, path: bytes) -> bytes:
    return os.path.join(os.fsencode(root), path)  # noqa: PTH118  names need not be text


def _download(root: RemotePath, path: bytes, copy: Path, row: dict[str, Any]) -> Status:
    """Download an object, again if it changed meanwhile, and set its size and time in the manifest row.

    Raises:
        UnusableAudio: `missing` or `unreadable`.
        OSError: the server cannot be reached, or the disk is full: not the object's fault.
    """
    with _unusable_on_error():
        remote = object_at(root, path)
        for _ in range(READ_ATTEMPTS):
            status = remote.stat()
            row |= signature(status)
            remote.download(copy)
            if remote.stat() == status:
                return status
    row |= {"size": None, "mtime_ns": None}
    raise UnusableAudio("unreadable", "it changed while it was read")


@contextlib.contextmanager
def _unusable_on_error() -> Iterator[None]:
    """Convert a server's errors about one object to `UnusableAudio`; others (no server, full disk) pass through."""
    try:
        yield
    except FileNotFoundError:
        raise UnusableAudio("missing") from None
    except OSError as error:
        if error.errno in (errno.EHOSTUNREACH, errno.ENOSPC, errno.EDQUOT):
            raise
        raise UnusableAudio("unreadable", error.strerror or "") from None
