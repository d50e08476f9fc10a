"""The HTTP interface of a server: `/predict`, the page, and what monitors need."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mgc.models.prediction.prediction import FilePrediction
from mgc.models.service import metrics, openapi, page, uploads
from mgc.models.service.guard import Guard
from mgc.models.service.problems import RequestProblem
from mgc.models.service.service import Service
from mgc.pipeline import console
from mgc.pipeline.errors import MgcError

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


def make_app(service: Service, *, token: str | None, hosts: frozenset[str] | None) -> Starlette:
    """Make the ASGI application of a server.

    Args:
        service: predicts the files.
        token: see `Guard`.
        hosts: see `Guard`.
    """
    endpoints = _Endpoints(service, needs_token=token is not None)
    routes = [
        Route("/", endpoints.page, methods=["GET"]),
        Route("/predict", endpoints.predict, methods=["POST"]),
        Route("/healthz", endpoints.health, methods=["GET"]),
        Route("/metrics", endpoints.metrics, methods=["GET"]),
        Route("/openapi.json", endpoints.description, methods=["GET"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(_Counting, service=service, paths=frozenset(route.path for route in routes)),
            Middleware(Guard, token=token, hosts=hosts),
        ],
        exception_handlers={HTTPException: _explain, RequestProblem: _refuse},
    )


class _Endpoints:
    """The functions that answer the paths."""

    def __init__(self, service: Service, *, needs_token: bool) -> None:
        self._service = service
        self._page = page.render(service, needs_token=needs_token)

    async def page(self, request: Request) -> Response:
        """Answer with the page for people."""
        return HTMLResponse(self._page.html, headers=self._page.headers)

    async def health(self, request: Request) -> Response:
        """Say whether the server takes requests."""
        if self._service.is_stopping:
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ok", "model": self._service.model, "run": self._service.run})

    async def metrics(self, request: Request) -> Response:
        """Answer with the metrics."""
        return Response(self._service.metrics.text(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def description(self, request: Request) -> Response:
        """Answer with the description of the interface."""
        return JSONResponse(openapi.describe(self._service))

    async def predict(self, request: Request) -> Response:
        """Predict the file in the body."""
        service, arrived = self._service, time.monotonic()
        try:
            top_k, timeline = _options(request, len(service.classes))
            service.admit()
        except RequestProblem:
            await uploads.drain(request, service.limits.max_bytes)
            raise
        path, deadline = service.new_path(), arrived + service.limits.timeout_s
        try:
            name = await self._receive(request, path)
            queued_at = time.monotonic()
            service.metrics.record("upload", queued_at - arrived)
            loop = asyncio.get_running_loop()
            job = loop.run_in_executor(service.threads, service.predict, path, deadline, queued_at)
        except BaseException:
            path.unlink(missing_ok=True)
            service.release()
            raise
        # The place is taken until the work ends, also if the client is told earlier that it takes too long.
        job.add_done_callback(self._close)
        prediction = await _finish(job, deadline, service.limits.timeout_s)
        _require_ok(prediction, service)
        return JSONResponse(service.answer(prediction, name, top_k, timeline=timeline))

    def _close(self, job: asyncio.Future[FilePrediction]) -> None:
        """Give the place of a request back when its work has ended."""
        self._service.release()
        if not job.cancelled():
            job.exception()  # marks it as seen: the client may have got its answer already

    async def _receive(self, request: Request, path: Path) -> str | None:
        """Write the file that a request brings; return its name."""
        limits = self._service.limits
        try:
            async with asyncio.timeout(limits.timeout_s):
                return await uploads.save_upload(request, path, limits.max_bytes)
        except TimeoutError:
            problem = f"the body did not arrive within {limits.timeout_s:g} s"
            raise RequestProblem(408, problem, "send a smaller file, or use a faster connection") from None
        except ClientDisconnect:
            raise RequestProblem(400, "the connection was closed before the body ended", "send it again") from None
        except OSError as error:
            problem = f"the server cannot keep the file while it decodes it: {error.strerror}"
            raise RequestProblem(503, problem, "make room in the server's temporary folder") from None
        except RequestProblem:
            await uploads.drain(request, limits.max_bytes)
            raise


def _options(request: Request, n_genres: int) -> tuple[int, bool]:
    """Read the query: `top_k` and `timeline`.

    Raises:
        RequestProblem: 400 if a value is out of its range, or there is no such parameter.
    """
    if unknown := sorted(set(request.query_params) - {"top_k", "timeline"}):
        raise RequestProblem(400, f"there is no parameter {unknown[0][:50]!r}", "use top_k and timeline")
    top_k, timeline = request.query_params.get("top_k", "3"), request.query_params.get("timeline", "false").lower()
    if not (top_k.isascii() and top_k.isdecimal() and len(top_k) < 10 and int(top_k)):
        raise RequestProblem(
            400, f"top_k={top_k[:50]}", f"it must be a whole number from 1 (there are {n_genres} genres)"
        )
    if timeline not in _TRUE + _FALSE:
        raise RequestProblem(400, f"timeline={timeline[:50]}", "it must be true or false")
    return int(top_k), timeline in _TRUE


async def _finish(job: asyncio.Future[FilePrediction], deadline: float, timeout_s: float) -> FilePrediction:
    """Wait for a prediction until the deadline; the work itself is not interrupted here.

    Raises:
        RequestProblem: 504 at the deadline, 503 if no process can decode or the server stops, 500 for any other error.
    """
    await asyncio.wait({job}, timeout=max(0.0, deadline - time.monotonic()))
    late = RequestProblem(504, f"the file was not decoded within {timeout_s:g} s", "send a shorter file, or try again")
    if not job.done():
        raise late
    try:
        return job.result()
    except TimeoutError:
        raise late from None
    except asyncio.CancelledError:
        raise RequestProblem(503, "the server is stopping", "send the request to another server, or later") from None
    except MgcError as error:
        raise RequestProblem(503, error.problem, "try again later") from None
    except Exception as error:
        console.echo(f"serve: {type(error).__name__}: {error}", err=True)
        raise RequestProblem(500, "the server failed; its log says why", "report it to who runs the server") from None


def _require_ok(prediction: FilePrediction, service: Service) -> None:
    """Raise `RequestProblem` if the file cannot be used: 504 if decoding took too long, else 422."""
    if prediction.status == "ok":
        return
    detail = f" ({prediction.detail})" if prediction.detail else ""
    remedy = "send another file"
    if prediction.reason == "too-long":
        remedy = f"send at most {service.limits.max_duration:g} s of audio"
    raise RequestProblem(
        504 if prediction.reason == "timeout" else 422,
        f"the file cannot be used: {prediction.reason}{detail}",
        remedy,
        {"reason": prediction.reason, "detail": prediction.detail or None},
    )


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestProblem)
    return error.response()


async def _explain(request: Request, error: Exception) -> Response:
    """Answer a request whose path or method is wrong."""
    assert isinstance(error, HTTPException)
    remedy = "GET /openapi.json lists the paths and their methods"
    if error.status_code == 404:
        problem = f"there is no {request.url.path[:100]}"
    elif error.status_code == 405:
        problem = f"{request.method[:20]} {request.url.path[:100]} is not possible"
    else:
        problem = str(error.detail)
    return RequestProblem(error.status_code, problem, remedy, headers=error.headers).response()


class _Counting:
    """ASGI middleware that counts answers by path and status; paths that do not exist count as `other`."""

    def __init__(self, app: ASGIApp, service: Service, paths: frozenset[str]) -> None:
        self._app, self._service, self._paths = app, service, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: Any = scope.get("path")

        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._service.metrics.count_request(path if path in self._paths else "other", message["status"])
            await send(message)

        await self._app(scope, receive, count)
