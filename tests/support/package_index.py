"""A package index (PEP 503) for pip: `package_index.py FOLDER PAUSE` serves the wheels of a folder and prints its port.

The second half of a wheel comes after PAUSE seconds.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class Handler(BaseHTTPRequestHandler):
    folder: Path
    pause: float

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        kind, _, name = urlsplit(self.path).path.strip("/").partition("/")
        wheels = [path for path in self.folder.glob("*.whl") if path.name.split("-")[0] == name.replace("-", "_")]
        if kind == "simple" and wheels:
            links = "".join(f'<a href="/files/{path.name}">{path.name}</a>\n' for path in wheels)
            return self.reply(200, "text/html", f"<!DOCTYPE html><html><body>{links}</body></html>".encode())
        file = self.folder / name
        if kind == "files" and file.is_file():
            return self.reply(200, "application/octet-stream", file.read_bytes(), self.pause)
        return self.reply(404, "text/plain", b"no")

    def reply(self, status: int, kind: str, body: bytes, pause: float = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body[: len(body) // 2])
            time.sleep(pause)
            self.wfile.write(body[len(body) // 2 :])


@contextlib.contextmanager
def serving(folder: Path, pause: float = 0) -> Iterator[dict[str, str]]:
    """Run the server in a process of its own; yields the environment in which pip asks it, and nothing else."""
    command = [sys.executable, __file__, str(folder), str(pause)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield only(f"http://127.0.0.1:{port}/simple/")
        finally:
            process.kill()


def only(url: str) -> dict[str, str]:
    """Environment in which pip knows one index."""
    return {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": url, "PIP_NO_CACHE_DIR": "1"}


if __name__ == "__main__":
    Handler.folder, Handler.pause = Path(sys.argv[1]), float(sys.argv[2])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
