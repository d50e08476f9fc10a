"""The command `mgc serve`."""

from __future__ import annotations

import importlib.util
import stat
from pathlib import Path

import click

from mgc.models.parallel.options import device_option
from mgc.models.prediction.naming import calibrated_option, choose_naming, unknown_option
from mgc.models.runs.commands import choose_run
from mgc.pipeline import completion, console, help_groups, option_types
from mgc.pipeline.console import LOCAL_PATH
from mgc.pipeline.errors import MgcError
from mgc.pipeline.workspace import Workspace

#: Libraries of the extra `serve`.
_LIBRARIES = ("starlette", "uvicorn", "python_multipart", "prometheus_client")
#: Shortest token that is accepted, in characters.
_MIN_TOKEN = 16


@help_groups.command()
@click.argument("path", type=LOCAL_PATH, required=False, metavar="[RUN]", shell_complete=completion.runs)
@help_groups.group("Address")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 is every network.")
@click.option(
    "--port", type=option_types.Whole(0, 65535), default=8000, show_default=True, help="Port; 0 picks a free one."
)
@click.option("--token-file", type=LOCAL_PATH, metavar="FILE", help="Require the token in FILE of every client.")
@help_groups.group("Answers")
@unknown_option
@calibrated_option
@help_groups.group("Limits of a request")
@click.option("--max-size", type=option_types.POSITIVE, default=100, show_default=True, help="MB of a file.")
@click.option(
    "--max-duration", type=option_types.SECONDS, default=1200, show_default=True, help="Seconds of audio in a file."
)
@click.option(
    "--timeout", type=option_types.SECONDS, default=60, show_default=True, help="Seconds from request to answer."
)
@click.option("--queue", type=option_types.COUNT, default=32, show_default=True, help="Requests that may wait.")
@help_groups.group("Processes and hardware")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that decode.  [default: one per processor]")
@device_option
@console.common_options
def serve(
    path: Path | None,
    host: str,
    port: int,
    token_file: Path | None,
    unknown: float | str,
    calibrated: bool,
    max_size: float,
    max_duration: float,
    timeout: float,
    queue: int,
    workers: int | None,
    device: str,
    data_dir: Path,
) -> int:
    """Answer over HTTP with the genres of files that are sent, by the model of a run.

    A page for people is at the printed address: it shows the genres of a song over time. Without RUN, the latest run is
    served. No file is kept. Ctrl-C and SIGTERM let running requests finish.
    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise MgcError(f"mgc serve needs {', '.join(missing)}", "`pip install 'mgc-music[serve]'`")
    from mgc.models.service import server
    from mgc.models.service.app import make_app
    from mgc.models.service.guard import LOOPBACK_HOSTS
    from mgc.models.service.service import Limits, open_service

    token = _read_token(token_file) if token_file is not None else None
    run = choose_run(Workspace(data_dir), path)
    naming = choose_naming(run, unknown, calibrated=calibrated, command="serve")
    limits = Limits(round(max_size * 1e6), max_duration, timeout, queue)
    with server.bind(host, port) as sock:
        is_local, url = server.is_loopback(sock), server.url(sock)
        if not is_local:
            _warn(url, token is not None)
        with open_service(run, limits, naming, workers, device) as service:
            app = make_app(service, token=token, hosts=LOOPBACK_HOSTS | {host.lower()} if is_local else None)
            ready = f"serve: {service.model} of {service.run} at {url} (Ctrl-C stops)"
            echo = console.note_printer(to_stderr=True)
            server.Server(app, service, timeout, echo, lambda: console.result(ready)).run([sock])
    return 0


def _warn(url: str, has_token: bool) -> None:
    """Say what it means that other machines can reach the server."""
    if has_token:
        console.warn(f"serve: the token travels unencrypted to {url}: put a proxy with TLS in front")
    else:
        danger = f"no authentication: whoever reaches {url} can send files"
        console.warn(f"serve: WARNING: {danger}; --token-file FILE asks for a token")


def _read_token(path: Path) -> str:
    """Read the token in a file; warn if other users can read it.

    Raises:
        MgcError: the file is missing, or holds no token.
    """
    remedy = "write one with `openssl rand -hex 32 > FILE; chmod 600 FILE`"
    try:
        token = path.read_text(encoding="utf-8").strip()
        mode = path.stat().st_mode
    except OSError as error:
        raise MgcError(f"--token-file {path}: {error.strerror}", remedy) from None
    except UnicodeDecodeError:
        raise MgcError(f"--token-file {path}: it holds no text", remedy) from None
    if not token:
        raise MgcError(f"--token-file {path}: it is empty", remedy)
    if len(token) < _MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        problem = f"--token-file {path}: a token is {_MIN_TOKEN} or more ASCII characters without spaces"
        raise MgcError(problem, remedy)
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        console.warn(f"serve: other users can read {path}; `chmod 600` hides it")
    return token
