"""Atomic files and folders: write under a temporary name, fsync, rename. Objects at URLs are atomic by themselves."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blake3

from mgc.pipeline.errors import MgcError
from mgc.pipeline.storage.concurrency import run_requests
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.storage.urls import is_url

if TYPE_CHECKING:  # `mgc --help` imports this module, and must not wait for pyarrow
    import pyarrow as pa

#: Start of every temporary name; leftovers of an interrupted run are recognised by it.
TEMPORARY_PREFIX = ".tmp-"
#: Error text for a file that does not match its digest.
CHECKSUM_MISMATCH = "its bytes are not those that were written"

# -- files -----------------------------------------------------------------------------------------------------------


def write_bytes(path: Place, data: bytes) -> None:
    """Write `data` to `path` atomically, replacing an existing file."""
    if isinstance(path, RemotePath):
        path.write_bytes(data)
        return
    temporary = temporary_path(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        replace_file(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_path(path: Path) -> Path:
    """A temporary name beside `path`, for this process."""
    return path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")


def replace_file(temporary: Path, path: Path) -> None:
    """Rename `temporary`, already synced to disk, to `path`, replacing an existing file."""
    temporary.replace(path)
    sync_folder(path.parent)


def write_json(path: Place, value: Any) -> None:
    """Write `value` as indented JSON atomically, replacing an existing file."""
    write_bytes(path, encode_json(value))


def write_json_with_digest(path: Place, value: dict[str, Any]) -> None:
    """Write a JSON object atomically, with a last key `digest`: BLAKE3-128 of the object without that key."""
    write_bytes(path, _encode_with_digest(value))


def read_json_with_digest(path: Place) -> dict[str, Any]:
    """Read an object that `write_json_with_digest` wrote, and check its digest.

    Returns:
        The object without the key `digest`.

    Raises:
        FileNotFoundError: the file does not exist.
        OSError: the file is not byte for byte as it was written.
    """
    data = path.read_bytes()
    try:
        value = json.loads(data)
        del value["digest"]
    except (ValueError, KeyError, TypeError, RecursionError):
        value = None
    if value is None or _encode_with_digest(value) != data:
        raise OSError(errno.EIO, CHECKSUM_MISMATCH, str(path))
    return value


def _encode_with_digest(value: dict[str, Any]) -> bytes:
    return encode_json(value | {"digest": digest(encode_json(value))})


def encode_json(value: Any) -> bytes:
    """Encode `value` as indented JSON, as `write_json` writes it."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def file_problem(path: Place, size: int, digest: str | None) -> str | None:
    """Describe how a file deviates from its recorded size and digest; None if it does not.

    Args:
        path: the file.
        size: recorded size in bytes.
        digest: recorded digest; None checks the size only.
    """
    try:
        actual_size = path.stat().st_size
        if actual_size != size:
            return f"{actual_size} bytes instead of {size}"
        return CHECKSUM_MISMATCH if digest is not None and file_digest(path) != digest else None
    except OSError as error:
        return error.strerror or "unreadable"


# -- folders ---------------------------------------------------------------------------------------------------------


def replace_folder(temporary: Path, final: Place) -> None:
    """Move a finished folder to its final name, replacing an existing folder.

    Locally, all files are synced to disk before the rename. At a URL, files are uploaded one by one, and a reader may
    see some of them: the caller has to write a marker, such as a manifest, when this function has returned.
    """
    if isinstance(final, RemotePath):
        names = sorted(path.relative_to(temporary).as_posix() for path in temporary.rglob("*") if path.is_file())
        for name in names:
            (final / name).upload(temporary / name)
        for name in set(final.list_objects()) - set(names):
            (final / name).unlink(missing_ok=True)
        shutil.rmtree(temporary)
        return
    for folder, _, names in os.walk(temporary):
        for name in names:
            with (Path(folder) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(folder))
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    sync_folder(final.parent)


def remove_temporaries(folder: Place) -> None:
    """Remove the temporary files that an interrupted run left in a folder."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        remove(path)


def remove(path: Place) -> None:
    """Remove a file, or a folder with its contents; ignore a missing path, and errors inside a folder."""
    if isinstance(path, RemotePath):
        path.unlink(missing_ok=True)
        run_requests(lambda name: (path / name).unlink(missing_ok=True), path.list_objects(), path)
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync_folder(folder: Place) -> None:
    """Fsync a folder so that renames in it survive a power failure, where the file system supports it."""
    if isinstance(folder, RemotePath):
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# -- digests ---------------------------------------------------------------------------------------------------------


class Digest:
    """Incremental BLAKE3, cut to 128 bits, with the interface of `hashlib`. It takes an eighth of BLAKE2b's time."""

    def __init__(self, data: bytes | memoryview = b"") -> None:
        self._state = blake3.blake3(data)

    def update(self, data: bytes | memoryview) -> None:
        """Hash the next bytes."""
        self._state.update(data)

    def hexdigest(self) -> str:
        """The digest of all bytes so far, 32 hexadecimal digits."""
        return self._state.hexdigest(length=16)


def digest(data: bytes | memoryview) -> str:
    """BLAKE3-128 of `data`, 32 hexadecimal digits."""
    return Digest(data).hexdigest()


def file_digest(path: Place) -> str:
    """BLAKE3-128 of a file, 32 hexadecimal digits; memory use is independent of the file's size."""
    if isinstance(path, RemotePath):
        with path.local_copy() as copy:
            return file_digest(copy)
    with path.open("rb") as file:
        return stream_digest(file)


def stream_digest(file: io.BufferedReader | pa.NativeFile) -> str:
    """BLAKE3-128 of an open file from its current position, 32 hexadecimal digits."""
    return hashlib.file_digest(file, Digest).hexdigest()  # type: ignore[arg-type]


def folder_checksums(folder: Path, name: str) -> dict[str, list]:
    """Size and digest of every file below `folder`.

    Args:
        folder: a local folder.
        name: prefix of the keys, in place of the folder's own path.

    Returns:
        `{"<name>/<path below folder>": [size in bytes, digest]}`, sorted by path.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {f"{name}/{path.relative_to(folder).as_posix()}": [path.stat().st_size, file_digest(path)] for path in paths}


# -- errors ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def translate_write_errors(target: Place) -> Iterator[None]:
    """Turn an `OSError` while writing below `target` into a one-line `MgcError` with a remedy."""
    try:
        yield
    except OSError as error:
        raise explain_write_error(error, target) from error


def explain_write_error(error: OSError, target: Place) -> MgcError:
    """The `MgcError`, with a remedy, for an `OSError` of the system or a server while writing below `target`."""
    path = error.filename or target
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MgcError(f"{target}: the disk is full", "free some space and run the same command again: it continues")
    if is_url(path):
        return explain_server_error(error)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return MgcError(
            f"{path}: cannot be written ({os.strerror(error.errno)})",
            "choose another folder or change its permissions",
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return MgcError(f"{path}: a file exists where a folder is needed", "move it away or choose another folder")
    return MgcError(f"{path}: {error.strerror or error}", "check the disk and run the same command again")


def explain_server_error(error: OSError) -> MgcError:
    """The `MgcError`, with a remedy, for an `OSError` that `servers.with_retries` raised."""
    remedies = {
        errno.ENOENT: "check the URL; mgc does not create buckets",
        errno.EACCES: "check the credentials in the environment, and their permissions",
        errno.EHOSTUNREACH: "check the network and the server's address, and run the same command again: it continues",
    }
    remedy = remedies.get(error.errno or 0, "run the same command again: it continues")
    return MgcError(f"{error.filename}: {error.strerror}", remedy)
