"""`mgc serve` as a process of its own, and clients that send files slowly."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import requests
from commands import MGC

TOKEN = "correct-horse-battery-staple"


@dataclass
class ServerProcess:
    """A running server.

    Attributes:
        url: its address.
        process: the process.
        folder: its temporary folder.
        errors: file of what it writes on stderr.
        token: its token; empty if it needs none.
        started: when it was started, in seconds since the epoch.
        line: what it says on stdout when it answers.
    """

    url: str
    process: subprocess.Popen
    folder: Path
    errors: Path
    token: str
    started: float
    line: str
    session: requests.Session = field(default_factory=requests.Session)

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request, with the token."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= options.pop("headers", {})
        return self.session.request(method, self.url + path, headers=headers, timeout=120, **options)

    def predict(self, data: bytes, name: str = "song.wav", **params: object) -> requests.Response:
        """Send a file."""
        return self.ask("POST", "/predict", files={"file": (name, data)}, params=params)

    def metrics(self) -> dict[str, float]:
        """Values of its metrics, by name with labels."""
        lines = self.ask("GET", "/metrics").text.splitlines()
        values = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in values}

    def workers(self) -> list[psutil.Process]:
        """The processes that decode."""
        children = psutil.Process(self.process.pid).children()
        return [one for one in children if any("spawn_main" in word for word in one.cmdline())]

    def left(self) -> list[str]:
        """Files that are in its temporary folder, but for locks and those that Dask keeps."""
        paths = [path for path in self.folder.rglob("*") if path.is_file() and "dask" not in str(path)]
        return [path.name for path in paths if path.name != ".lock"]

    def stop(self) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextmanager
def server(folder: Path, *words: object, token: str = "", **environment: str) -> Iterator[ServerProcess]:
    """Start `mgc serve` with a temporary folder of its own, on a free port, and wait until it answers."""
    temporary = folder / "tmp"
    temporary.mkdir(parents=True)
    command = [str(MGC), "serve", *map(str, words), "--port", "0"]
    if token:
        (folder / "token").write_text(f"{token}\n")
        (folder / "token").chmod(0o600)
        command += ["--token-file", str(folder / "token")]
    started = time.time()
    environment = os.environ | {"TMPDIR": str(temporary)} | environment
    with (
        (folder / "errors").open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"at (http://\S+) \(Ctrl-C stops\)", line)
            assert found, (line, (folder / "errors").read_text())
            yield ServerProcess(found[1], process, temporary, folder / "errors", token, started, line)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=60)


class SlowUpload:
    """A request whose body is sent in two halves.

    Args:
        running: the server.
        data: the file.
    """

    def __init__(self, running: ServerProcess, data: bytes) -> None:
        place = urlsplit(running.url)
        assert place.hostname is not None
        self._socket = socket.create_connection((place.hostname, place.port or 80), timeout=60)
        head = (
            f"POST /predict HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {running.token}\r\n"
            f"Content-Type: audio/wav\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        )
        self._rest = data[len(data) // 2 :]
        self._socket.sendall(head.encode() + data[: len(data) // 2])

    def give_up(self) -> None:
        """Close the connection without the second half."""
        self._socket.close()

    def finish(self) -> int:
        """Send the second half, and return the status of the answer."""
        self._socket.sendall(self._rest)
        return self.status()

    def status(self) -> int:
        """Wait for the answer, and return its status."""
        answer = b""
        while block := self._socket.recv(1 << 16):
            answer += block
        self._socket.close()
        return int(answer.split(b" ", 2)[1])
