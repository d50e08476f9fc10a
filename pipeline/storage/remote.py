"""Objects at URLs: what mgc does of paths, with object stores and web servers through fsspec.

Objects appear whole or not at all, and folders are but beginnings of names: nothing is renamed, nothing is locked.
Credentials are no part of a URL here, since URLs are stored and printed.

universal-pathlib has paths like these, but for names, sizes and times of 32 objects below a URL it makes 71 requests
instead of one, its `open("xb")` overwrites an object of S3, and its errors are those of each protocol's library.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import posixpath
import re
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

from mgc.pipeline.errors import MgcError, SpecError
from mgc.pipeline.storage.servers import ServerError, attempt, inside

T = TypeVar("T")
U = TypeVar("U")

#: Requests at a time where many objects are wanted.
AT_ONCE = 16
#: Objects beyond which listing all of a folder takes less time than to ask for each.
FEW = 200
#: Where objects can be written one after the other, by one writer at a time.
WRITABLE = ("s3", "gs", "memory")

_URL = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
#: What may stand in the path of a web address as it is; among it what begins an escape.
_PLAIN = "/%:[]!$&'()*+,;=@-._~"


@dataclass(frozen=True)
class Status:
    """What a server says of an object.

    Attributes:
        st_size: bytes; 0 where it does not say.
        st_mtime_ns: time of its last change in whole seconds; the nanoseconds below are a hash of its ETag, so that
            another object written within the second is noticed.
    """

    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True, order=True)
class RemotePath:
    """An object, or the common beginning of the names of some, with the methods of `pathlib.Path` that are used here.

    What goes wrong is an `OSError` with the URL as its `filename`, after several attempts where it may pass.

    Attributes:
        url: without a slash at its end.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str | Path) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    @property
    def protocol(self) -> str:
        """What stands before `://`."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """What stands behind the last slash."""
        return self.url.partition("://")[2].rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return posixpath.splitext(self.name)[0]

    @property
    def parent(self) -> RemotePath:
        """What stands before the last slash; a bucket or host has no parent but itself."""
        protocol, _, rest = self.url.partition("://")
        return RemotePath(f"{protocol}://{rest.rpartition('/')[0] or rest}")

    def with_name(self, name: str) -> RemotePath:
        """Another name beside this one."""
        return self.parent / name

    def absolute(self) -> RemotePath:
        """Itself."""
        return self

    resolve = absolute

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: folders are there once something is in them."""

    # -- asking ------------------------------------------------------------------------------------------------------

    def stat(self) -> Status:
        """Size and time of the object.

        Raises:
            FileNotFoundError: there is none of this name.
        """
        info = attempt(self.url, lambda system, path: system.info(path))
        if info["type"] != "file":
            raise FileNotFoundError(errno.ENOENT, "no object has this name", self.url)
        return _status(info)

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        try:
            self.stat()
            return True
        except FileNotFoundError:
            return False

    def is_dir(self) -> bool:
        """Whether there are objects below this name."""
        return bool(self.scan())

    def exists(self) -> bool:
        """Whether there is an object of this name, or one below it."""
        try:
            attempt(self.url, lambda system, path: system.info(path))
            return True
        except FileNotFoundError:
            return False

    def iterdir(self) -> Iterator[RemotePath]:
        """What there is one level below."""
        return (self / name for name, _ in self.scan())

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """What fits a pattern one level below. The only wild card is a `*` at one of its ends."""
        start, end = pattern.split("*")
        return (path for path in self.iterdir() if path.name.startswith(start) and path.name.endswith(end))

    def scan(self) -> list[tuple[str, bool]]:
        """Names one level below, and whether each is a folder; sorted."""
        self._require_listing()
        try:
            entries = attempt(self.url, lambda system, path: system.ls(path, detail=True))
        except FileNotFoundError:
            return []
        own = inside(self.url).rstrip("/")
        found = {(entry["name"].rstrip("/").rpartition("/")[2], entry["type"] == "directory") for entry in entries
                 if entry["name"].rstrip("/") not in (own, own.lstrip("/"))}  # fmt: skip
        return sorted(found)

    def below(self) -> dict[str, Status]:
        """Every object below this name at any depth, by its path from here, sorted."""
        self._require_listing()
        found = attempt(self.url, lambda system, path: system.find(path, detail=True))
        own = inside(self.url).rstrip("/") + "/"
        return {
            name.removeprefix(own): _status(info)
            for name, info in sorted(found.items())
            if name.startswith(own) and not name.endswith("/") and info["type"] == "file"
        }

    def _require_listing(self) -> None:
        if self.protocol in ("http", "https"):
            raise MgcError(f"{self.url}: web servers list no folders", "name a CSV or Parquet list of the tracks")

    # -- reading -----------------------------------------------------------------------------------------------------

    def read_bytes(self) -> bytes:
        """All bytes of the object.

        Raises:
            FileNotFoundError: there is none of this name.
        """
        if self.protocol != "s3":
            return attempt(self.url, lambda system, path: system.cat_file(path))
        try:
            # A range: of a whole object s3fs asks for the size first, which doubles the requests.
            return attempt(self.url, lambda system, path: system.cat_file(path, start=0))
        except (FileNotFoundError, ServerError):
            raise
        except OSError:  # an empty object has no range
            if self.stat().st_size:
                raise
            return b""

    def fetch(self, file: Path) -> None:
        """Copy the object to a file on this machine."""
        attempt(self.url, lambda system, path: system.get_file(path, str(file)))

    @contextlib.contextmanager
    def fetched(self) -> Iterator[Path]:
        """A copy of the object on this machine, under the same name, until the context ends."""
        with tempfile.TemporaryDirectory(prefix="mgc-", dir=scratch()) as folder:
            file = Path(folder) / (self.name[-100:] or "object")
            self.fetch(file)
            yield file

    def readable(self) -> bool:
        """Whether the object can be read."""
        try:
            attempt(self.url, lambda system, path: system.cat_file(path, start=0, end=1))
            return True
        except OSError:
            return False

    # -- writing -----------------------------------------------------------------------------------------------------

    def write_bytes(self, data: bytes) -> None:
        """Put an object in place of whatever has its name."""
        attempt(self.url, lambda system, path: system.pipe_file(path, data))

    def create(self, data: bytes) -> None:
        """Put an object where there is none of its name.

        Raises:
            FileExistsError: there is one.
        """
        attempt(self.url, lambda system, path: system.pipe_file(path, data, mode="create"))

    def upload(self, file: Path) -> None:
        """Put a file of this machine in place of whatever has this name."""
        attempt(self.url, lambda system, path: system.put_file(str(file), path))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        with contextlib.suppress(*([FileNotFoundError] if missing_ok else [])):
            attempt(self.url, lambda system, path: system.rm_file(path))

    def remove(self) -> None:
        """Remove the object of this name, and all below it."""
        self.unlink(missing_ok=True)
        for_each(lambda name: (self / name).unlink(missing_ok=True), self.below(), self)


#: Where something is: on this machine, or at a URL.
Place: TypeAlias = Path | RemotePath


def parse(text: str) -> RemotePath | None:
    """The URL that a text is; None where it is none, and so names a file.

    Raises:
        SpecError: it is a URL of no known protocol, or one with credentials, a query or a fragment in it.
    """
    if (match := _URL.fullmatch(text)) is None:
        return None
    from fsspec import available_protocols

    protocol, rest = match["protocol"], match["rest"]
    if protocol not in available_protocols():
        raise SpecError(f"{protocol}://: an unknown protocol", "use s3, gs, https or memory, or a path on this machine")
    host = rest.partition("/")[0]
    if "@" in host:
        hidden = f"{protocol}://…@{host.rpartition('@')[2]}"
        raise SpecError(f"{hidden}: credentials in a URL would be stored with it", "put them into the environment")
    if protocol in ("http", "https") and re.search("[?#]", rest):
        raise SpecError(f"{protocol}://{host}: a URL with a query or a fragment", "name a folder or file as it is")
    if not rest.strip("/"):
        raise SpecError(f"{text}: a URL without a bucket or host", "name one behind the slashes")
    parts = [part for part in rest.split("/") if part]
    if {".", ".."} & set(parts):
        raise SpecError(f"{text}: a URL with . or .. in it", "leave them out")
    name = "/".join(parts)
    return RemotePath(f"{protocol}://{quote(name, safe=_PLAIN) if protocol in ('http', 'https') else name}")


def is_url(text: object) -> bool:
    """Whether something is, or is written like, a URL."""
    return _URL.fullmatch(str(text)) is not None


def place(text: str) -> Place:
    """A path on this machine, or a URL."""
    return parse(text) or Path(text)


def require_writable(path: Place) -> None:
    """Raise `SpecError` where a store cannot be written."""
    if isinstance(path, RemotePath) and path.protocol not in WRITABLE:
        raise SpecError(f"{path}: stores are not written to {path.protocol}://", f"use {', '.join(WRITABLE)} or a path")


def in_one_process(places: Iterable[Place]) -> bool:
    """Whether one of some places exists in this process only."""
    return any(isinstance(place, RemotePath) and place.protocol == "memory" for place in places)


def below(root: RemotePath, path: bytes) -> RemotePath:
    """The object that a path from a root means.

    Args:
        root: a URL.
        path: `/`-separated, as in the manifest once unescaped.

    Raises:
        FileNotFoundError: it leads out of the root, or is no text, which names of objects are.
    """
    parts = path.split(b"/")
    try:
        text = path.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or b".." in parts or b"." in parts:
        raise FileNotFoundError(errno.ENOENT, "no name of an object", f"{root}/{os.fsdecode(path)!a}")
    # What looks like an escape in a name, a query or a fragment is part of the name.
    return root / (quote(text) if root.protocol in ("http", "https") else text)


def statuses(root: RemotePath, paths: list[bytes]) -> list[Status | None]:
    """What the server says of each of some paths from a root; None where there is no object."""

    def one(path: bytes) -> Status | None:
        try:
            return below(root, path).stat()
        except (FileNotFoundError, PermissionError):
            return None

    if len(paths) > FEW and root.protocol not in ("http", "https"):
        found = root.below()
        return [found.get(path.decode(errors="surrogateescape")) for path in paths]
    return list(several(one, paths, root))


def several(function: Callable[[U], T], items: Iterable[U], where: Place) -> Iterator[T]:
    """What a function returns for each of some items, in their order.

    Args:
        function: makes a request or a few; at a URL `AT_ONCE` calls of it run at a time, in threads.
        items: taken as they are needed: twice as many results wait at most.
        where: what the requests are about.

    Raises:
        Exception: the first that a call raises; those not begun then are left out.
    """
    if not isinstance(where, RemotePath):
        yield from map(function, items)
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    threads = ThreadPoolExecutor(AT_ONCE)
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            waiting.append(threads.submit(function, item))
            if len(waiting) == 2 * AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def for_each(function: Callable[[U], object], items: Iterable[U], where: Place) -> None:
    """Call a function with each of some items, for what it does; otherwise as `several`."""
    for _ in several(function, items, where):
        pass


def scratch() -> str:
    """A folder for what is soon removed: a Dask worker's own, which does not outlive it, or the system's."""
    if (distributed := sys.modules.get("distributed")) is not None:  # whose import takes longer than all else here
        with contextlib.suppress(ValueError):
            return distributed.get_worker().local_directory
    return tempfile.gettempdir()


def _status(info: dict[str, Any]) -> Status:
    when: Any = info.get("LastModified") or info.get("Last-Modified") or info.get("mtime") or info.get("created")
    if isinstance(when, str):
        from email.utils import parsedate_to_datetime

        with contextlib.suppress(ValueError):
            when = parsedate_to_datetime(when)
    seconds = int(when.timestamp()) if hasattr(when, "timestamp") else 0
    etag = str(info.get("ETag") or info.get("etag") or when or "").strip('"')
    below_second = int.from_bytes(hashlib.blake2b(etag.encode(), digest_size=8).digest()) % 1_000_000_000
    return Status(info["size"] or 0, seconds * 1_000_000_000 + below_second)
