"""URLs: parsing and checking them, and the objects that paths below them name."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from mgc.pipeline.errors import SpecError
from mgc.pipeline.storage.concurrency import map_requests
from mgc.pipeline.storage.remote import Place, RemotePath, Status

#: Protocols of object stores that a feature store can be written to.
WRITABLE_PROTOCOLS = ("s3", "gs", "memory")
#: Number of objects above which listing the whole folder takes less time than one request per object.
MAX_STAT_REQUESTS = 200

_URL = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
#: Characters that stay unquoted in the path of a web address; `%` is one, since the address may be quoted already.
_UNQUOTED = "/%:[]!$&'()*+,;=@-._~"


def parse_url(text: str) -> RemotePath | None:
    """Parse a URL; None if `text` is not written like one, and so is a local path.

    Raises:
        SpecError: the protocol is unknown, the bucket or host is missing, or the URL holds credentials, a query, a
            fragment, `.` or `..`.
    """
    if (match := _URL.fullmatch(text)) is None:
        return None
    from fsspec import available_protocols

    protocol, rest = match["protocol"], match["rest"]
    if protocol not in available_protocols():
        raise SpecError(f"{protocol}://: unknown protocol", "use s3, gs, https or memory, or a path on this machine")
    host = rest.partition("/")[0]
    if "@" in host:
        hidden = f"{protocol}://…@{host.rpartition('@')[2]}"
        raise SpecError(f"{hidden}: credentials in a URL would be stored with it", "put them into the environment")
    if protocol in ("http", "https") and re.search("[?#]", rest):
        raise SpecError(f"{protocol}://{host}: a URL with a query or a fragment", "leave out ? or # and all after it")
    if not rest.strip("/"):
        raise SpecError(f"{text}: a URL without a bucket or host", "write its name after the slashes")
    parts = [part for part in rest.split("/") if part]
    if {".", ".."} & set(parts):
        raise SpecError(f"{text}: a URL with . or .. in it", "leave them out")
    name = "/".join(parts)
    return RemotePath(f"{protocol}://{quote(name, safe=_UNQUOTED) if protocol in ('http', 'https') else name}")


def is_url(value: object) -> bool:
    """True if `str(value)` is written like a URL, valid or not."""
    return _URL.fullmatch(str(value)) is not None


def parse_place(text: str) -> Place:
    """Parse a URL or a local path.

    Raises:
        SpecError: the URL is invalid, see `parse_url`.
    """
    return parse_url(text) or Path(text)


def require_writable(path: Place) -> None:
    """Raise `SpecError` if stores cannot be written to the protocol of a URL."""
    if isinstance(path, RemotePath) and path.protocol not in WRITABLE_PROTOCOLS:
        writable = ", ".join(WRITABLE_PROTOCOLS)
        raise SpecError(f"{path}: stores are not written to {path.protocol}://", f"use {writable} or a path")


def any_in_memory(paths: Iterable[Place]) -> bool:
    """True if any of the paths is a `memory://` URL, which only this process can see."""
    return any(isinstance(path, RemotePath) and path.protocol == "memory" for path in paths)


def object_at(root: RemotePath, path: bytes) -> RemotePath:
    """The object that a manifest path names.

    Args:
        root: URL of the audio root.
        path: path below the root, `/`-separated, unescaped (`tracks.unescape`).

    Raises:
        FileNotFoundError: the path leads out of the root, or is not UTF-8, as object names must be.
    """
    parts = path.split(b"/")
    try:
        text = path.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or b".." in parts or b"." in parts:
        raise FileNotFoundError(errno.ENOENT, "not the name of an object", f"{root}/{os.fsdecode(path)!a}")
    # In a file name, `%20`, `?` and `#` are plain characters: quote them.
    return root / (quote(text) if root.protocol in ("http", "https") else text)


def stat_objects(root: RemotePath, paths: list[bytes]) -> list[Status | None]:
    """Stat objects below a root.

    Args:
        root: URL of the audio root.
        paths: paths below the root, unescaped.

    Returns:
        One status per path, None for an object that does not exist or must not be read.
    """

    def stat(path: bytes) -> Status | None:
        try:
            return object_at(root, path).stat()
        except (FileNotFoundError, PermissionError):
            return None

    if len(paths) > MAX_STAT_REQUESTS and root.protocol not in ("http", "https"):
        objects = root.list_objects()
        return [objects.get(path.decode(errors="surrogateescape")) for path in paths]
    return list(map_requests(stat, paths, root))
