"""Servers of remote objects: fsspec file systems, retries, and errors of all libraries as `OSError`.

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

#: Number of times a request is sent if it fails with an error that may be temporary.
MAX_ATTEMPTS = 4
#: Seconds before the second attempt; the delay doubles with each further one.
RETRY_DELAY_S = 0.5
#: Timeouts in seconds for connecting, and for the next bytes; a dead host is reported within half a minute.
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60
_INSTALL = {"s3": "mgc-music[s3]", "gs": "mgc-music[gs]", "http": "mgc-music[http]", "https": "mgc-music[http]"}
_LIBRARY = {"s3": "s3fs", "gs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}

#: Class names of exceptions (botocore, aiohttp, gcsfs, google.auth, fsspec, standard library): names instead of
#: classes, since a protocol's libraries are imported only when it is used.
_NO_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError",
    "DefaultCredentialsError", "RefreshError", "NonRetryableError",
}  # fmt: skip
_UNREACHABLE = {"ConnectionError", "ClientConnectionError", "ProxyConnectionError", "gaierror", "TransportError"}
_TEMPORARY = {
    "TimeoutError", "FSTimeoutError", "IncompleteRead", "IncompleteReadError", "HTTPClientError",
    "ResponseStreamingError", "ResponseParserError", "ClientPayloadError", "ChecksumError",
}  # fmt: skip
_TEMPORARY_ERRNO = (errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO), errno.ETIMEDOUT)


class ServerError(OSError):
    """A server is unreachable, fails or refuses a request: whether the object exists is unknown."""


class RefusedError(ServerError, PermissionError):
    """A server refuses a request, or there are no credentials."""


def with_retries(url: str, request: Callable[[Any, str], T]) -> T:
    """Call `request`, and call it again after a pause if the error may be temporary.

    Args:
        url: URL of the object.
        request: called with fsspec's file system and the object's path in it.

    Returns:
        The result of `request`.

    Raises:
        OSError: the request failed; `filename` is the URL. It is a FileNotFoundError, PermissionError, FileExistsError
            or `ServerError` where one of these applies.
    """
    protocol = url.partition("://")[0]
    system = file_system(protocol)
    for retries_left in reversed(range(1 if protocol == "gs" else MAX_ATTEMPTS)):  # gcsfs itself makes six attempts
        try:
            return request(system, fsspec_path(url))
        except Exception as error:
            os_error, temporary = _as_os_error(error, url)
            if not temporary or not retries_left:
                raise os_error from error
        time.sleep(RETRY_DELAY_S * 2 ** (MAX_ATTEMPTS - 1 - retries_left) * random.uniform(0.5, 1))
    raise AssertionError


def fsspec_path(url: str) -> str:
    """The path of a URL in fsspec's file system for its protocol, whose library must be installed."""
    from fsspec.core import strip_protocol

    return strip_protocol(url)


def _as_os_error(error: Exception, url: str) -> tuple[OSError, bool]:
    """Convert an error of any library to an `OSError`, and tell whether it may be temporary.

    gcsfs gives status codes as numbers or as text, and reports a refusal in the text of a plain OSError.
    """
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception) and _is_failure(error.__cause__):
        error = error.__cause__  # fsspec turns every error of a web server into a missing file
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(error, "status", None) or getattr(error, "code", None)
    text = next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
    if type(error) is OSError and text.startswith("Forbidden: "):  # gcsfs
        status, text = 403, str(error).splitlines()[-1][:200]
    code = None
    for source in (error.__cause__, error):  # s3fs wraps botocore's error, or passes it on
        if isinstance(response := getattr(source, "response", None), dict):
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
        return RefusedError(errno.EACCES, f"the server refuses the request ({text})", url), False
    if kinds & _UNREACHABLE:
        return ServerError(errno.EHOSTUNREACH, "the server cannot be reached", url), True
    if status in (408, 429) or (isinstance(status, int) and status >= 500):
        return ServerError(errno.EIO, f"the server fails ({text})", url), True
    if kinds & _TEMPORARY or number in _TEMPORARY_ERRNO:
        return ServerError(errno.EIO, f"the connection or the server fails ({text})", url), True
    return OSError(number or errno.EIO, text, url), False


def _is_failure(cause: Exception) -> bool:
    """True if the cause of a FileNotFoundError is a failed connection or server, not a missing file."""
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    return "ClientError" in kinds or bool(kinds & (_UNREACHABLE | _TEMPORARY))


@functools.cache
def file_system(protocol: str) -> Any:
    """fsspec's file system for a protocol, without its cache of listings: other processes write, too.

    Raises:
        MgcError: the protocol's library is not installed.
    """
    import fsspec

    settings: dict[str, Any] = {}
    try:
        if protocol == "s3":
            retries = {"total_max_attempts": 1, "mode": "standard"}
            limits = {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S, "retries": retries}
            settings = {"config_kwargs": limits, "use_listings_cache": False}
        elif protocol in ("http", "https"):
            import aiohttp

            # `encoded`: `urls` quotes paths. `trust_env`: proxies, and ~/.netrc for credentials.
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)
            settings = {"encoded": True, "client_kwargs": {"timeout": timeout, "trust_env": True}}
        elif protocol == "gs":
            import aiohttp
            from gcsfs.core import GCSFileSystem

            # gcsfs logs each failed attempt; mgc reports the last failure in one line.
            logging.getLogger("gcsfs").addHandler(logging.NullHandler())
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)
            # Not `gcsfs.GCSFileSystem`: it requests the bucket's type over another channel. If no server answers
            # there, as with an emulator, that takes a minute before each request.
            return GCSFileSystem(requests_timeout=timeout, use_listings_cache=False, skip_instance_cache=True)
        elif protocol != "memory":
            settings = {"use_listings_cache": False}
        # fsspec would return the instance of an earlier call, even if the environment names another server by now.
        system = fsspec.filesystem(protocol, skip_instance_cache=True, **settings)
    except ImportError as error:
        library = _LIBRARY.get(protocol)
        install = f"pip install '{_INSTALL[protocol]}'" if library else str(error)
        raise MgcError(f"{protocol}:// needs {library or 'another library'}", install) from None
    if protocol == "s3":
        system.retries = 1  # `with_retries` is enough
    return system
