"""Objects at URLs: what mgc does of paths, with object stores and web servers through fsspec.

Objects appear whole or not at all, and folders are but beginnings of names: nothing is renamed, nothing is locked.
Credentials come from where each library looks for them (environment, configuration files, the machine's role), and are
no part of a URL here, since URLs are stored and printed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import posixpath
import random
import re
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

from pipeline.errors import MgcError, SpecError

T = TypeVar("T")
U = TypeVar("U")

#: Times that a request is made before a failure that may pass counts, and seconds before the first repetition.
ATTEMPTS = 4
PAUSE_S = 0.5
#: Seconds to reach a server, and to wait for its next bytes: with `ATTEMPTS`, nobody waits for a dead host for minutes.
CONNECT_S = 5
READ_S = 60
#: Requests at a time where many objects are wanted.
AT_ONCE = 16
#: Objects beyond which listing all of a folder takes less time than to ask for each.
FEW = 200
#: Where objects can be written one after the other, by one writer at a time.
WRITABLE = ("s3", "gs", "memory")

_URL = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
#: What may stand in the path of a web address as it is; among it what begins an escape.
_PLAIN = "/%:[]!$&'()*+,;=@-._~"
_INSTALL = {"s3": "mgc[s3]", "gs": "mgc[gs]", "http": "mgc[http]", "https": "mgc[http]"}
_LIBRARY = {"s3": "s3fs", "gs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}

#: Names of exceptions (botocore, aiohttp, gcsfs, google.auth, fsspec, the standard library), which are imported with
#: their libraries only.
_NO_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError",
    "DefaultCredentialsError", "RefreshError", "NonRetryableError",
}  # fmt: skip
_UNREACHABLE = {"ConnectionError", "ClientConnectionError", "ProxyConnectionError", "gaierror", "TransportError"}
_PASSING = {
    "TimeoutError", "FSTimeoutError", "IncompleteRead", "IncompleteReadError", "HTTPClientError",
    "ResponseStreamingError", "ResponseParserError", "ClientPayloadError", "ChecksumError",
}  # fmt: skip
_PASSING_ERRNO = (errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO), errno.ETIMEDOUT)


class ServerError(OSError):
    """A server cannot be reached, fails or refuses: nothing is known of the object."""


class RefusedError(ServerError, PermissionError):
    """A server refuses, or there are no credentials."""


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

    What goes wrong is an `OSError` with the URL as its `filename`, after `ATTEMPTS` where it may pass.

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
        info = attempt(self, lambda system, path: system.info(path))
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
        return bool(self._entries())

    def exists(self) -> bool:
        """Whether there is an object of this name, or one below it."""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator[RemotePath]:
        """What there is one level below."""
        return (self / name for name, _ in self._entries())

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """What fits a pattern one level below. The only wild card is a `*` at one of its ends."""
        start, end = pattern.split("*")
        return (path for path in self.iterdir() if path.name.startswith(start) and path.name.endswith(end))

    def scan(self) -> Iterator[tuple[str, bool]]:
        """Names one level below, and whether each is a folder; sorted."""
        yield from self._entries()

    def _entries(self) -> list[tuple[str, bool]]:
        self._require_listing()
        try:
            entries = attempt(self, lambda system, path: system.ls(path, detail=True))
        except FileNotFoundError:
            return []
        own = self._inside().rstrip("/")
        found = {(entry["name"].rstrip("/").rpartition("/")[2], entry["type"] == "directory") for entry in entries
                 if entry["name"].rstrip("/") not in (own, own.lstrip("/"))}  # fmt: skip
        return sorted(found)

    def below(self) -> dict[str, Status]:
        """Every object below this name at any depth, by its path from here, sorted."""
        self._require_listing()
        found = attempt(self, lambda system, path: system.find(path, detail=True))
        own = self._inside().rstrip("/") + "/"
        return {
            name.removeprefix(own): _status(info)
            for name, info in sorted(found.items())
            if name.startswith(own) and not name.endswith("/") and info["type"] == "file"
        }

    def _require_listing(self) -> None:
        if self.protocol in ("http", "https"):
            raise MgcError(f"{self.url}: web servers list no folders", "name a CSV or Parquet list of the tracks")

    def _inside(self) -> str:
        return _system(self.protocol)._strip_protocol(self.url)

    # -- reading -----------------------------------------------------------------------------------------------------

    def read_bytes(self) -> bytes:
        """All bytes of the object.

        Raises:
            FileNotFoundError: there is none of this name.
        """
        if self.protocol != "s3":
            return attempt(self, lambda system, path: system.cat_file(path))
        try:
            # A range: of a whole object s3fs asks for the size first, which doubles the requests.
            return attempt(self, lambda system, path: system.cat_file(path, start=0))
        except (FileNotFoundError, ServerError):
            raise
        except OSError:  # an empty object has no range
            if self.stat().st_size:
                raise
            return b""

    def fetch(self, file: Path) -> None:
        """Copy the object to a file on this machine."""
        attempt(self, lambda system, path: system.get_file(path, str(file)))

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
            attempt(self, lambda system, path: system.cat_file(path, start=0, end=1))
            return True
        except OSError:
            return False

    # -- writing -----------------------------------------------------------------------------------------------------

    def write_bytes(self, data: bytes) -> None:
        """Put an object in place of whatever has its name."""
        attempt(self, lambda system, path: system.pipe_file(path, data))

    def create(self, data: bytes) -> None:
        """Put an object where there is none of its name.

        Raises:
            FileExistsError: there is one.
        """
        attempt(self, lambda system, path: system.pipe_file(path, data, mode="create"))

    def upload(self, file: Path) -> None:
        """Put a file of this machine in place of whatever has this name."""
        attempt(self, lambda system, path: system.put_file(str(file), path))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        with contextlib.suppress(*([FileNotFoundError] if missing_ok else [])):
            attempt(self, lambda system, path: system.rm_file(path))

    def remove(self) -> None:
        """Remove the object of this name, and all below it."""
        self.unlink(missing_ok=True)
        for _ in several(lambda name: (self / name).unlink(missing_ok=True), self.below(), self):
            pass


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


def scratch() -> str:
    """A folder for what is soon removed: a Dask worker's own, which does not outlive it, or the system's."""
    if (distributed := sys.modules.get("distributed")) is not None:  # whose import takes longer than all else here
        with contextlib.suppress(ValueError):
            return distributed.get_worker().local_directory
    return tempfile.gettempdir()


def attempt(place: RemotePath, request: Callable[[Any, str], T]) -> T:
    """Make a request, and make it again after a pause where what went wrong may pass.

    Args:
        place: what it is about.
        request: given fsspec's file system and the path in it.

    Raises:
        OSError: what is wrong, with the URL as `filename`; a FileNotFoundError, PermissionError or FileExistsError
            where it is that.
    """
    system = _system(place.protocol)
    for left in reversed(range(1 if place.protocol == "gs" else ATTEMPTS)):  # gcsfs itself makes six
        try:
            return request(system, system._strip_protocol(place.url))
        except Exception as error:
            explained, passing = _explained(error, place.url)
            if not passing or not left:
                raise explained from error
        time.sleep(PAUSE_S * 2 ** (ATTEMPTS - 1 - left) * random.uniform(0.5, 1))
    raise AssertionError


def _explained(error: Exception, url: str) -> tuple[OSError, bool]:
    """An error of any library as one of the operating system's, and whether it may pass.

    gcsfs gives status codes as numbers or as text, and tells of a refusal by the words of a plain OSError.
    """
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception) and _told(error.__cause__):
        error = error.__cause__  # fsspec calls whatever happened to a web server a missing file
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(error, "status", None) or getattr(error, "code", None)
    text = next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
    if type(error) is OSError and text.startswith("Forbidden: "):  # gcsfs
        status, text = 403, str(error).splitlines()[-1][:200]
    code = None
    for told in (error.__cause__, error):  # botocore's error, which s3fs translates, or lets through
        if isinstance(response := getattr(told, "response", None), dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            code = response.get("Error", {}).get("Code")
            text = response.get("Error", {}).get("Message") or text
    if isinstance(status, str) and status.isdigit():
        status = int(status)
    number = getattr(error, "errno", None)
    if kinds & _NO_CREDENTIALS:
        return RefusedError(errno.EACCES, "no credentials in the environment", url), False
    if isinstance(error, FileExistsError) or code in ("PreconditionFailed", "ConditionalRequestConflict"):
        return FileExistsError(errno.EEXIST, "there is another object of this name", url), False
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        bucket = "bucket" in text and "not exist" in text
        return FileNotFoundError(errno.ENOENT, "no such bucket" if bucket else "no object has this name", url), False
    if isinstance(error, PermissionError) or status in (401, 403):
        return RefusedError(errno.EACCES, f"the server refuses it ({text})", url), False
    if kinds & _UNREACHABLE:
        return ServerError(errno.EHOSTUNREACH, "the server cannot be reached", url), True
    if status in (408, 429) or (isinstance(status, int) and status >= 500):
        return ServerError(errno.EIO, f"the server fails ({text})", url), True
    if kinds & _PASSING or number in _PASSING_ERRNO:
        return ServerError(errno.EIO, f"the connection or the server fails ({text})", url), True
    return OSError(number or errno.EIO, text, url), False


def _told(cause: Exception) -> bool:
    """Whether the cause of a missing file says that it is not missing."""
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    return "ClientError" in kinds or bool(kinds & (_UNREACHABLE | _PASSING))


@functools.cache
def _system(protocol: str) -> Any:
    """fsspec's file system of a protocol. Its own listings are never remembered: others write, too.

    Raises:
        MgcError: the library is not installed.
    """
    import fsspec

    settings: dict[str, Any] = {}
    try:
        if protocol == "s3":
            once = {"total_max_attempts": 1, "mode": "standard"}
            limits = {"connect_timeout": CONNECT_S, "read_timeout": READ_S, "retries": once}
            settings = {"config_kwargs": limits, "use_listings_cache": False}
        elif protocol in ("http", "https"):
            import aiohttp

            # Paths are quoted here. `trust_env`: proxies, and ~/.netrc for credentials.
            patience = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
            settings = {"encoded": True, "client_kwargs": {"timeout": patience, "trust_env": True}}
        elif protocol == "gs":
            import logging

            import aiohttp
            from gcsfs.core import GCSFileSystem

            # What is said here is said in one line, and not before it counts.
            logging.getLogger("gcsfs").addHandler(logging.NullHandler())
            patience = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
            # Not `gcsfs.GCSFileSystem`, which asks over another channel what kind of bucket it is: where nobody
            # answers, as with an emulator, a minute before each request.
            return GCSFileSystem(requests_timeout=patience, use_listings_cache=False)
        elif protocol != "memory":
            settings = {"use_listings_cache": False}
        system = fsspec.filesystem(protocol, **settings)
    except ImportError as error:
        missing = _LIBRARY.get(protocol)
        install = f"pip install '{_INSTALL[protocol]}'" if missing else str(error)
        raise MgcError(f"{protocol}:// needs {missing or 'another library'}", install) from None
    if protocol == "s3":
        system.retries = 1  # those here are enough
    return system


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
