"""Remote paths: the part of `pathlib.Path` that mgc needs, for objects in object stores and on web servers (fsspec).

Object stores write an object wholly or not at all. A folder is only a common prefix of object names: folders are never
created, and nothing is renamed or locked. URLs never hold credentials, since they are stored and printed.

universal-pathlib has such paths, too, but for names, sizes and times of 32 objects below a URL it makes 71 requests
instead of one, its `open("xb")` overwrites an object of S3, and its errors are those of each protocol's library.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import posixpath
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mgc.pipeline.errors import MgcError
from mgc.pipeline.storage.servers import ServerError, fsspec_path, with_retries


@dataclass(frozen=True)
class Status:
    """Size and time of an object, named as in `os.stat_result`.

    Attributes:
        st_size: size in bytes; 0 if the server does not report it.
        st_mtime_ns: time of the last change in ns. Servers report whole seconds; the digits below are a hash of the
            object's ETag, so that another object written within the same second has another time.
    """

    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True, order=True)
class RemotePath:
    """URL of an object or folder, with methods named as in `pathlib.Path`.

    Requests raise `OSError` with the URL as `filename`; failures that may be temporary are retried first.

    Attributes:
        url: the URL, without a slash at its end.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str | Path) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    @property
    def protocol(self) -> str:
        """The part before `://`, such as `s3`."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """The part after the last slash."""
        return self.url.partition("://")[2].rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return posixpath.splitext(self.name)[0]

    @property
    def parent(self) -> RemotePath:
        """The URL without its last part; a bucket or host is its own parent."""
        protocol, _, rest = self.url.partition("://")
        return RemotePath(f"{protocol}://{rest.rpartition('/')[0] or rest}")

    def with_name(self, name: str) -> RemotePath:
        """The URL with another last part."""
        return self.parent / name

    def absolute(self) -> RemotePath:
        """The URL itself: URLs are absolute."""
        return self

    resolve = absolute

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a folder exists as soon as there is an object in it."""

    # -- queries -----------------------------------------------------------------------------------------------------

    def stat(self) -> Status:
        """Size and time of the object.

        Raises:
            FileNotFoundError: there is no object with this name.
        """
        info = with_retries(self.url, lambda system, path: system.info(path))
        if info["type"] != "file":
            raise FileNotFoundError(errno.ENOENT, "no object has this name", self.url)
        return _status(info)

    def is_file(self) -> bool:
        """True if there is an object with this name."""
        try:
            self.stat()
            return True
        except FileNotFoundError:
            return False

    def is_dir(self) -> bool:
        """True if there are objects below this name."""
        return bool(self.scan())

    def exists(self) -> bool:
        """True if there is an object with this name, or one below it."""
        try:
            with_retries(self.url, lambda system, path: system.info(path))
            return True
        except FileNotFoundError:
            return False

    def iterdir(self) -> Iterator[RemotePath]:
        """Objects and folders one level below."""
        return (self / name for name, _ in self.scan())

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Objects and folders one level below that match a pattern with exactly one wild card, `*`."""
        start, end = pattern.split("*")
        return (path for path in self.iterdir() if path.name.startswith(start) and path.name.endswith(end))

    def scan(self) -> list[tuple[str, bool]]:
        """Names of the objects and folders one level below, sorted, each with True if it is a folder.

        Raises:
            MgcError: the URL is a web server's, which cannot be listed.
        """
        self._require_listing()
        try:
            entries = with_retries(self.url, lambda system, path: system.ls(path, detail=True))
        except FileNotFoundError:
            return []
        own = fsspec_path(self.url).rstrip("/")
        names = {(entry["name"].rstrip("/").rpartition("/")[2], entry["type"] == "directory") for entry in entries
                 if entry["name"].rstrip("/") not in (own, own.lstrip("/"))}  # fmt: skip
        return sorted(names)

    def list_objects(self) -> dict[str, Status]:
        """All objects below this name, at any depth: `{path from here: status}`, sorted by path.

        Raises:
            MgcError: the URL is a web server's, which cannot be listed.
        """
        self._require_listing()
        objects = with_retries(self.url, lambda system, path: system.find(path, detail=True))
        own = fsspec_path(self.url).rstrip("/") + "/"
        return {
            name.removeprefix(own): _status(info)
            for name, info in sorted(objects.items())
            if name.startswith(own) and not name.endswith("/") and info["type"] == "file"
        }

    def _require_listing(self) -> None:
        if self.protocol in ("http", "https"):
            raise MgcError(f"{self.url}: web servers list no folders", "name a CSV or Parquet list of the tracks")

    # -- reading -----------------------------------------------------------------------------------------------------

    def read_bytes(self) -> bytes:
        """Read the whole object.

        Raises:
            FileNotFoundError: there is no object with this name.
        """
        if self.protocol != "s3":
            return with_retries(self.url, lambda system, path: system.cat_file(path))
        try:
            # A range: for a whole object s3fs requests the size first, which doubles the requests.
            return with_retries(self.url, lambda system, path: system.cat_file(path, start=0))
        except (FileNotFoundError, ServerError):
            raise
        except OSError:  # an empty object has no range
            if self.stat().st_size:
                raise
            return b""

    def read_range(self, first: int, stop: int) -> bytes:
        """Read the bytes `[first, stop)` of the object."""
        return with_retries(self.url, lambda system, path: system.cat_file(path, start=first, end=stop))

    def download(self, file: Path) -> None:
        """Copy the object to a local file."""
        with_retries(self.url, lambda system, path: system.get_file(path, str(file)))

    @contextlib.contextmanager
    def local_copy(self) -> Iterator[Path]:
        """A local copy of the object with the same file name, removed when the context ends."""
        with tempfile.TemporaryDirectory(prefix="mgc-", dir=scratch_directory()) as folder:
            file = Path(folder) / (self.name[-100:] or "object")
            self.download(file)
            yield file

    def is_readable(self) -> bool:
        """True if the first byte of the object can be read."""
        try:
            with_retries(self.url, lambda system, path: system.cat_file(path, start=0, end=1))
            return True
        except OSError:
            return False

    # -- writing -----------------------------------------------------------------------------------------------------

    def write_bytes(self, data: bytes) -> None:
        """Write the object, replacing an existing one."""
        with_retries(self.url, lambda system, path: system.pipe_file(path, data))

    def create(self, data: bytes) -> None:
        """Write the object unless it exists.

        Raises:
            FileExistsError: it exists.
        """
        with_retries(self.url, lambda system, path: system.pipe_file(path, data, mode="create"))

    def upload(self, file: Path) -> None:
        """Write the object from a local file, replacing an existing one."""
        with_retries(self.url, lambda system, path: system.put_file(str(file), path))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        with contextlib.suppress(*([FileNotFoundError] if missing_ok else [])):
            with_retries(self.url, lambda system, path: system.rm_file(path))


#: A local path, or a URL.
Place: TypeAlias = Path | RemotePath


def scratch_directory() -> str:
    """Directory for temporary files: the Dask worker's local directory if there is one, else the system's.

    Dask removes a worker's local directory even if the worker is killed.
    """
    # Looked up, not imported: importing distributed takes longer than all other imports here.
    if (distributed := sys.modules.get("distributed")) is not None:
        with contextlib.suppress(ValueError):
            return distributed.get_worker().local_directory
    return tempfile.gettempdir()


def _status(info: dict[str, Any]) -> Status:
    """The status in fsspec's description of an object, whose key for the time depends on the protocol."""
    time: Any = info.get("LastModified") or info.get("Last-Modified") or info.get("mtime") or info.get("created")
    if isinstance(time, str):
        from email.utils import parsedate_to_datetime

        with contextlib.suppress(ValueError):
            time = parsedate_to_datetime(time)
    seconds = int(time.timestamp()) if hasattr(time, "timestamp") else 0
    etag = str(info.get("ETag") or info.get("etag") or time or "").strip('"')
    below_second = int.from_bytes(hashlib.blake2b(etag.encode(), digest_size=8).digest()) % 1_000_000_000
    return Status(info["size"] or 0, seconds * 1_000_000_000 + below_second)
