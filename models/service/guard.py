"""Who may use a server: checks of token, Host and origin before a request reaches the application."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mgc.models.service.problems import RequestProblem

#: Paths that need no token: the page, which asks for it, what monitors whether the server runs, and its description.
OPEN_PATHS = ("/", "/healthz", "/openapi.json")
#: Host names that mean this machine.
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware that refuses requests of strangers, and adds headers that browsers obey to every answer.

    Args:
        app: the application.
        token: the token that `Authorization: Bearer` must have; None if none is needed.
        hosts: names that the Host header may have; None for any. A page of another site that lets its own name point to
            this machine (DNS rebinding) is refused by it.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, hosts: frozenset[str] | None) -> None:
        self._app, self._hosts = app, hosts
        self._token = None if token is None else token.encode("utf-8")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        problem = self._problem(scope["method"], scope["path"], Headers(scope=scope))
        app = self._app if problem is None else problem.response()
        await app(scope, receive, send_with_headers)

    def _problem(self, method: str, path: str, headers: Headers) -> RequestProblem | None:
        """Return why a request is refused; None if it is not."""
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return RequestProblem(421, f"the Host header is {host[:100]!r}", "use localhost or 127.0.0.1 in the URL")
        if method not in ("GET", "HEAD") and _is_cross_site(headers, host):
            return RequestProblem(403, "a page of another site sent the request", "use the server's own page")
        if self._token is not None and path not in OPEN_PATHS:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            # Headers are Latin-1: the bytes that the client sent are compared.
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
                remedy = "send the header `Authorization: Bearer TOKEN` with the server's token"
                return RequestProblem(
                    401, "the token is missing or wrong", remedy, headers={"WWW-Authenticate": "Bearer"}
                )
        return None


def _name(host: str) -> str | None:
    """Name in a Host header, without the port; None if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_cross_site(headers: Headers, host: str) -> bool:
    """Whether a page of another site sends the request. Clients that are no browsers send neither header."""
    if (site := headers.get("sec-fetch-site")) is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != host
