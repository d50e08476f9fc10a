"""The server process: its socket, and the loop that ends it gracefully."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from mgc.models.service.service import Service
from mgc.pipeline.errors import MgcError

#: Seconds for which answers that are written already are still sent.
_SEND_S = 5
#: Seconds after which a connection without a request is closed.
_KEEP_ALIVE_S = 15


def bind(host: str, port: int) -> socket.socket:
    """Bind a TCP socket.

    Args:
        host: name or address of this machine.
        port: the port; 0 for any free one.

    Raises:
        MgcError: the port is in use, the host is no address of this machine, or the user may not use the port.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise MgcError(f"--host {host}: no such host", "name an address of this machine, such as 127.0.0.1") from None
    failure: OSError = OSError(errno.EADDRNOTAVAIL, "no address")
    for family, kind, protocol, _, address in sorted(addresses, key=lambda one: one[0] != socket.AF_INET):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            # Linux lets two sockets bind one port until the first of them listens.
            sock.listen(1024)
            return sock
        except OSError as error:
            failure = error
            sock.close()
    raise _explain(failure, host, port)


def _explain(error: OSError, host: str, port: int) -> MgcError:
    if error.errno == errno.EADDRINUSE:
        return MgcError(f"--port {port}: in use", "choose another one, or 0 for any free one")
    if error.errno == errno.EACCES:
        return MgcError(f"--port {port}: no permission", "choose one from 1024")
    if error.errno == errno.EADDRNOTAVAIL:
        return MgcError(f"--host {host}: no address of this machine", "choose 127.0.0.1, or 0.0.0.0 for all of them")
    return MgcError(f"--host {host} --port {port}: {error.strerror}", "choose another address")


def url(sock: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(sock: socket.socket) -> bool:
    """Return whether only this machine can reach a bound socket."""
    return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback


class Server(uvicorn.Server):
    """Serves until SIGTERM or Ctrl-C, then finishes what was begun.

    Until the running requests are finished, new ones get 503. A second signal ends the server at once.

    Args:
        app: the application.
        service: what the application predicts with.
        grace_s: seconds for which running requests may go on after the signal.
        echo: function that prints a line for the user.
        ready: function that is called once requests are answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        grace_s: float,
        echo: Callable[[str], object],
        ready: Callable[[], object],
    ) -> None:
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # it would print a line for each malformed request
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_SEND_S,
        )
        super().__init__(config)
        self._service, self._grace_s, self._echo, self._ready = service, grace_s, echo, ready
        self._stop_at = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer requests."""
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at a signal: gracefully at the first, at once at the second."""
        if self._service.is_stopping:
            self.should_exit = self.force_exit = True
        self._service.is_stopping = True
        self._stop_at = time.monotonic() + self._grace_s

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end; uvicorn calls this ten times a second."""
        service = self._service
        if service.is_stopping and not self.should_exit:
            left = self._stop_at - time.monotonic()
            if service.n_admitted and left <= 0:
                self._echo(f"serve: {service.n_admitted} requests were given up after {self._grace_s:g} s")
            self.should_exit = not service.n_admitted or left <= 0
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM; unlike uvicorn's, it does not raise them again at the end."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
