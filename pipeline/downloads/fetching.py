"""Files from HTTP servers: resumed after an interruption, retried, and verified against their checksums."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mgc.pipeline.datasets.published import Archive
from mgc.pipeline.downloads.parts import Part, verify
from mgc.pipeline.downloads.progress import Progress, showing
from mgc.pipeline.downloads.settings import Settings, public
from mgc.pipeline.errors import DatasetError, MgcError
from mgc.pipeline.storage import files
from mgc.pipeline.units import format_seconds, format_size

if TYPE_CHECKING:
    import requests

#: Bytes that are read at a time: what a broken connection loses at most.
_CHUNK = 1 << 15
_MAX_REDIRECTS = 10
#: Longest pause before another attempt, seconds.
_MAX_PAUSE = 60.0
#: States of HTTP in which a server may answer otherwise a little later.
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class _Refusal(Exception):
    """An address does not lead to the file; another attempt would not help."""


class _Interruption(Exception):
    """A transfer broke off; another attempt may help.

    Args:
        problem: description.
        pause: seconds that the server asks to wait; None if it says nothing.
        tries: attempts that make sense.
    """

    def __init__(self, problem: str, *, pause: float | None = None, tries: int = 2**31) -> None:
        super().__init__(problem)
        self.pause, self.tries = pause, tries


def fetch(archive: Archive, path: Path, settings: Settings) -> None:
    """Fetch a file and verify it. What is there of it is continued.

    Args:
        archive: the file.
        path: where it goes; nothing is there before it is complete and verified.
        settings: addresses and limits.

    Raises:
        MgcError: no address leads to the file, or it has another checksum than the published one.
    """
    part, problems = Part(path), []
    urls = settings.urls(archive)
    with files.translate_write_errors(path), showing(archive.name) as progress:
        for number, url in enumerate(urls, 1):
            try:
                _fetch_from(url, archive, part, settings, progress)
                break
            except _Refusal as refusal:
                problems.append(f"{public(url)}: {refusal}")
                if number < len(urls):
                    settings.note(f"{problems[-1]}; trying {public(urls[number])}")
        else:
            raise MgcError("; ".join(problems), _REMEDY)
    problem = verify(archive, part.path)
    if problem is not None:
        part.remove()
        remedy = "it was removed: run the same command again, or name another server with --mirror"
        raise DatasetError(f"{archive.name}: {problem}", remedy)
    with files.translate_write_errors(path):
        part.finish(path)


_REMEDY = (
    "check the network and $HTTPS_PROXY, or name another server with --mirror; the same command continues what is there"
)


def probe(archive: Archive, settings: Settings) -> int | None:
    """Ask the server for the length of a file, in bytes; None if it does not say, or is not reached."""
    import requests

    with _session() as session:
        for url in settings.urls(archive):
            try:
                headers = {"Accept-Encoding": "identity"}
                response = session.head(url, headers=headers, timeout=settings.limits, allow_redirects=True)
            except requests.RequestException:
                continue
            if response.status_code == 200 and (length := _length(response)) is not None:
                return length
    return None


def _session() -> requests.Session:
    """A session that takes proxies and certificates from the environment, as requests does."""
    import requests

    session = requests.Session()
    session.max_redirects = _MAX_REDIRECTS
    return session


def _fetch_from(url: str, archive: Archive, part: Part, settings: Settings, progress: Progress) -> None:
    """Fetch all of a file from one address. An attempt that brings new bytes makes up for those that failed before.

    Raises:
        _Refusal: the address does not lead to the file, or too many attempts failed.
    """
    failures, most = 0, part.size()
    with _session() as session:
        while True:
            try:
                return _attempt(session, url, archive, part, settings, progress)
            except _Interruption as interruption:
                has_more = part.size() > most
                most = max(most, part.size())
                failures = 1 if has_more else failures + 1
                if failures > min(settings.retries, interruption.tries - 1):
                    times = f", {failures} times in a row" if failures > 1 else ""
                    raise _Refusal(f"{interruption}{times}") from None
                pause = min(_MAX_PAUSE, interruption.pause or 0.5 * 2 ** (failures - 1))
                settings.note(
                    f"{archive.name}: {interruption}; again in {format_seconds(pause)}, from {_amount(part.size())}"
                )
                time.sleep(pause)


def _amount(n_bytes: int) -> str:
    return format_size(n_bytes) if n_bytes else "the start"


def _attempt(
    session: requests.Session, url: str, archive: Archive, part: Part, settings: Settings, progress: Progress
) -> None:
    """Request what is missing of a file, and append it.

    Raises:
        _Refusal: the address does not lead to the file.
        _Interruption: the transfer broke off.
    """
    import requests

    start = part.size()
    if archive.size is not None and start == archive.size:
        return
    if (archive.size is not None and start > archive.size) or (start and not _may_continue(archive, part, url)):
        part.remove()
        start = 0
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if (validator := part.validator(url)) is not None:
            headers["If-Range"] = validator
    try:
        with session.get(url, headers=headers, timeout=settings.limits, stream=True) as response:
            if (body := _begin(response, url, archive, part, settings)) is None:
                return
            progress.begin(*body)
            _receive(response, part, *body, progress=progress)
    except requests.TooManyRedirects:
        raise _Refusal(f"it redirects in a circle, or more than {_MAX_REDIRECTS} times") from None
    except requests.exceptions.SSLError as error:
        raise _Refusal(f"no secure connection ({_reason(error)})") from None
    except requests.exceptions.ProxyError as error:
        raise _Interruption(f"the proxy does not answer ({_reason(error)})", tries=2) from None
    except requests.ReadTimeout:
        raise _Interruption(f"no answer for {settings.timeout:g} s") from None
    except requests.ConnectionError as error:
        raise _Interruption(f"no connection ({_reason(error)})", tries=settings.retries + 1 if start else 2) from None
    except requests.RequestException as error:
        raise _Refusal(f"it cannot be requested ({_reason(error)})") from None


def _may_continue(archive: Archive, part: Part, url: str) -> bool:
    """True if the beginning of a file may be continued: its version is known, or the whole is verified in the end."""
    return bool(archive.sha1 or archive.sha256 or part.validator(url))


def _begin(
    response: requests.Response, url: str, archive: Archive, part: Part, settings: Settings
) -> tuple[int, int | None] | None:
    """Judge the head of an answer.

    Returns:
        Position in the file at which its body begins, and the length of the file, None if unknown; None in place of
        both if the file is complete.

    Raises:
        _Refusal: the address does not lead to the file.
        _Interruption: another attempt is needed.
    """
    start, status = part.size(), response.status_code
    if status in _PASSING:
        raise _Interruption(f"HTTP {status} {response.reason}", pause=_retry_after(response))
    content_range = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    total = int(content_range[2]) if content_range and content_range[2] != "*" else None
    if status == 416 and start:
        if total == start and archive.size in (None, start):
            return None
        _restart(part, "the server has fewer bytes than are here")
    if status == 206:
        validator, known = _validator(response), part.validator(url)
        if content_range is None or content_range[1] != str(start):
            _restart(part, "the server answers with another part than was asked for")
        if known and validator and validator != known:
            _restart(part, "the file has changed on the server")
    elif status == 200:
        if start:
            reason = "the file has changed on the server, or it" if part.validator(url) else "the server"
            settings.note(f"{archive.name}: {reason} does not continue downloads; beginning again")
            part.remove()
        start, total = 0, _length(response)
    else:
        raise _Refusal(f"HTTP {status} {response.reason}")
    if archive.size is not None and total is not None and total != archive.size:
        raise _Refusal(f"the file there has {total:,} bytes, {archive.size:,} were published")
    part.record(url, _validator(response))
    return start, total if total is not None else archive.size


def _restart(part: Part, reason: str) -> NoReturn:
    """Give up what is there of a file; the next attempt begins anew."""
    part.remove()
    raise _Interruption(reason, pause=0.1)


def _receive(response: requests.Response, part: Part, start: int, total: int | None, *, progress: Progress) -> None:
    """Append the body of an answer to the part, which holds `start` bytes.

    Raises:
        _Interruption: the body ended before its time.
    """
    position = start
    with part.path.open("ab") as file:
        for chunk in _chunks(response):
            file.write(chunk)
            position += len(chunk)
            progress.advance(len(chunk))
            if total is not None and position > total:
                break
    if total is not None and position > total:
        part.remove()
        raise _Refusal(f"it sends more than the {total:,} bytes that it declares")
    if total is not None and position < total:
        raise _Interruption("the connection ended early")


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield the bytes of a body as they were sent: a server may call a .gz file an encoding of its content."""
    from urllib3 import exceptions

    try:
        yield from response.raw.stream(_CHUNK, decode_content=False)
    except exceptions.ReadTimeoutError:
        raise _Interruption("the server stopped sending") from None
    except exceptions.HTTPError as error:
        raise _Interruption(f"the connection broke ({_reason(error)})") from None


def _length(response: requests.Response) -> int | None:
    """Content-Length of an answer in bytes; None if it has none that can be read."""
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _validator(response: requests.Response) -> str | None:
    """Name of the file's version for an `If-Range` header: a strong ETag, else the date of its last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _retry_after(response: requests.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if re.fullmatch(r"[0-9]{1,4}", text) else None


def _reason(error: BaseException) -> str:
    """The innermost reason of an error of requests or urllib3, in a few words."""
    for _ in range(10):
        if (inner := _inner(error)) is None:
            break
        error = inner
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:120]


def _inner(error: BaseException) -> BaseException | None:
    """The exception that another one stands for."""
    candidates = (getattr(error, "reason", None), *error.args, error.__cause__)
    return next((inner for inner in candidates if isinstance(inner, BaseException)), None)
