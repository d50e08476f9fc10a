"""Servers that objects lie on: fsspec's file systems, and whatever goes wrong with them as errors of one kind.

Credentials come from where each library looks for them (environment, configuration files, the machine's role).
"""

from __future__ import annotations

import errno
import functools
import logging
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from mgc.pipeline.errors import MgcError

T = TypeVar("T")

#: Times that a request is made before a failure that may pass counts, and seconds before the first repetition.
ATTEMPTS = 4
PAUSE_S = 0.5
#: Seconds to reach a server, and to wait for its next bytes: with `ATTEMPTS`, nobody waits for a dead host for minutes.
CONNECT_S = 5
READ_S = 60
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


def attempt(url: str, request: Callable[[Any, str], T]) -> T:
    """Make a request, and make it again after a pause where what went wrong may pass.

    Args:
        url: what it is about.
        request: given fsspec's file system and the path in it.

    Raises:
        OSError: what is wrong, with the URL as `filename`; a FileNotFoundError, PermissionError or FileExistsError
            where it is that.
    """
    protocol = url.partition("://")[0]
    system = file_system(protocol)
    for left in reversed(range(1 if protocol == "gs" else ATTEMPTS)):  # gcsfs itself makes six
        try:
            return request(system, inside(url))
        except Exception as error:
            explained, passing = _explained(error, url)
            if not passing or not left:
                raise explained from error
        time.sleep(PAUSE_S * 2 ** (ATTEMPTS - 1 - left) * random.uniform(0.5, 1))
    raise AssertionError


def inside(url: str) -> str:
    """The path that fsspec's file system of the URL's protocol has for it. Its library has to be installed."""
    from fsspec.core import strip_protocol

    return strip_protocol(url)


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
def file_system(protocol: str) -> Any:
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
