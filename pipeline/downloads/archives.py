"""Files in zip and tar archives, one after the other, each with its declared size."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from mgc.pipeline.downloads.guard import safe_path
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.escaping import visible

#: Method of zip by number, of those that Python does not know.
_METHODS = {9: "deflate64", 93: "zstandard", 98: "PPMd"}
_ENCRYPTED = 0x1


class Entry(NamedTuple):
    """A file in an archive.

    Attributes:
        path: its safe path.
        size: its declared size in bytes.
        crc: its CRC-32; None in a tar archive, which has none.
        open: opens it for reading, before the next entry is asked for.
    """

    path: str
    size: int
    crc: int | None
    open: Callable[[], IO[bytes]]


def is_zip(archive: Path) -> bool:
    """True if the name of an archive is that of a zip file."""
    return archive.suffix.lower() == ".zip"


@contextlib.contextmanager
def entries(archive: Path) -> Iterator[Iterator[Entry]]:
    """Read the files of an archive in their order; folders are left out.

    Raises:
        DatasetError: it is damaged or cut off, or holds something else than files and folders, an unsafe name, or a
            file that is encrypted or compressed by a method that is not known.
    """
    with damage_explained(archive):
        if is_zip(archive):
            with zipfile.ZipFile(archive) as opened:
                yield _zip_entries(archive, opened)
        else:
            with _opened(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as unpacked:
                yield _tar_entries(unpacked)
                while stream.read(1 << 20):  # the checksum of a compressed stream stands at its end
                    pass


@contextlib.contextmanager
def damage_explained(archive: Path) -> Iterator[None]:
    """Turn the errors of the archive modules into a `DatasetError`."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        if error.errno is not None:  # one of the disk
            raise
        raise _damaged(archive, error) from error


def _damaged(archive: Path, error: Exception) -> DatasetError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return DatasetError(
        f"{archive}: the archive is damaged or cut off ({reason})", f"remove {archive} and download again"
    )


def _zip_entries(archive: Path, opened: zipfile.ZipFile) -> Iterator[Entry]:
    for info in opened.infolist():
        path = safe_path(info.orig_filename.rstrip("/")) if info.is_dir() else safe_path(info.orig_filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _no_file(path)
        if info.is_dir():
            continue
        by_hand = f"unpack it by hand with `7z x {archive}` or `unzip`"
        if info.flag_bits & _ENCRYPTED:
            raise DatasetError(f"{archive}: {visible(path)} is encrypted", by_hand)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
            raise DatasetError(
                f"{archive}: {visible(path)} is compressed by {method}, which Python cannot read", by_hand
            )
        yield Entry(path, info.file_size, info.CRC, lambda info=info: opened.open(info))  # type: ignore[misc]


def _tar_entries(unpacked: tarfile.TarFile) -> Iterator[Entry]:
    for info in unpacked:
        path = safe_path(info.name)
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            raise _no_file(path)
        yield Entry(path, info.size, None, lambda info=info: _tar_file(unpacked, info))  # type: ignore[misc]


def _tar_file(unpacked: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = unpacked.extractfile(info)
    assert file is not None  # it is a regular file
    return file


def _no_file(path: str) -> DatasetError:
    problem = f"the archive holds {visible(repr(path))}, a link, a device or a sparse file"
    return DatasetError(problem, "a dataset consists of files and folders: nothing of it was used")


def _opened(archive: Path) -> Any:
    """Open the tar stream in a file, by the name of its compression."""
    name = archive.name.lower()
    if name.endswith((".gz", ".tgz")):
        return gzip.open(archive)
    if name.endswith((".bz2", ".tbz2")):
        return bz2.open(archive)
    return lzma.open(archive) if name.endswith((".xz", ".txz")) else archive.open("rb")
