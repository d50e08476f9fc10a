"""Files that clients send: the body of a request, streamed into a file and never larger than the limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from mgc.models.service.problems import RequestProblem

#: Name of the multipart field that holds the file.
FIELD = "file"
#: Content types of a raw body; also any `audio/...`, and `video/...`, as browsers label recordings.
RAW_TYPES = ("application/octet-stream", "application/ogg")
_HOW = "send the file as multipart field `file`, or as the body with a Content-Type such as audio/mpeg"
_BLOCK = 1 << 18
#: Seconds for which the rest of a refused body is read: many clients read no answer while they send.
_DRAIN_S = 5


async def save_upload(request: Request, path: Path, max_bytes: int) -> str | None:
    """Write the file in the body of a request.

    Args:
        request: the request.
        path: path of the new file.
        max_bytes: most bytes of the body.

    Returns:
        The file's name, as the client gave it; None for a raw body.

    Raises:
        RequestProblem: 413 for a larger body, 415 for another content type, 400 if no file is in it.
        ClientDisconnect: the client has closed the connection.
        OSError: the file cannot be written.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    _check_declared_size(request, max_bytes)
    name = None
    if kind == "multipart/form-data":
        name = await _save_part(request, path, max_bytes)
    elif kind.startswith(("audio/", "video/")) or kind in RAW_TYPES:
        async with await anyio.open_file(path, "wb") as file:
            async for chunk in _limited(request, max_bytes):
                await file.write(chunk)
    else:
        raise RequestProblem(415, f"the body's Content-Type is {kind or 'missing'}", _HOW)
    if not path.stat().st_size:
        raise RequestProblem(400, "no file: the body is empty", _HOW)
    return name


async def drain(request: Request, max_bytes: int) -> None:
    """Read what remains of a refused body for some seconds, so that the client reads the answer."""
    if "expect" in request.headers:  # the client waits for an answer before it sends
        return
    with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError, RequestProblem):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in _limited(request, 2 * max_bytes):
                pass


def _too_large(max_bytes: int) -> RequestProblem:
    return RequestProblem(413, f"the body is larger than {max_bytes / 1e6:g} MB", "send a smaller file")


def _check_declared_size(request: Request, max_bytes: int) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yield the blocks of a body; raise `RequestProblem` as soon as it is larger than `max_bytes`."""
    n_bytes = 0
    async for chunk in request.stream():
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes)
        yield chunk


async def _save_part(request: Request, path: Path, max_bytes: int) -> str | None:
    """Write the file of a multipart body. Until it is complete, Starlette keeps it in a file without a name."""
    try:
        parser = MultiPartParser(request.headers, _limited(request, max_bytes), max_files=1, max_fields=8)
        form = await parser.parse()
    except MultiPartException as error:
        raise RequestProblem(400, f"the multipart body cannot be read: {error.message}", _HOW) from None
    try:
        part = form.get(FIELD)
        if not isinstance(part, UploadFile):
            raise RequestProblem(400, f"no file: the form has no file in the field `{FIELD}`", _HOW)
        async with await anyio.open_file(path, "wb") as file:
            while block := await part.read(_BLOCK):
                await file.write(block)
        return part.filename
    finally:
        await form.close()
