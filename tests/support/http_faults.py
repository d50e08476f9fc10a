"""HTTP server for tests whose faults are chosen by the URL, `/FAULT/FILE`: `http_faults.py FOLDER LOG` prints its port.

Each request is a line of JSON in LOG: fault, file, and the headers Range and If-Range.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

#: All faults. `plain` has none: it serves ranges and knows ETags.
FAULTS = {
    "plain": "none",
    "drop": "every answer ends after a third of the file, at most",
    "rangeless": "the first answer ends in the middle, and ranges are ignored",
    "altered": "one byte is another one",
    "slow": "the first answer takes about 20 s",
    "stalled": "the first answer stops in the middle, with the connection open",
    "longer": "more bytes are declared than sent",
    "shorter": "fewer bytes are declared than the file has",
    "loop": "redirects in a circle",
    "moved": "redirects to `plain`",
    "busy": "503 twice",
    "failing": "500 always",
    "missing": "404",
    "shifted": "the first answer ends in the middle, and a range is answered with another one",
    "changed": "the first answer ends in the middle of another version of the file",
    "unheeding": "the same, and If-Range is ignored",
    "encoded": "the file is said to be in an encoding of its content",
    "dated": "the first answer ends in the middle; there is no ETag, but a date",
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    log: Path
    counts: ClassVar[Counter[tuple[str, str]]] = Counter()
    lock = threading.Lock()

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.answer(has_body=False)

    def do_GET(self) -> None:
        self.answer(has_body=True)

    def answer(self, has_body: bool) -> None:
        _, fault, name = urlsplit(self.path).path.split("/")  # a proxy is asked for whole addresses
        file = self.folder / name
        with self.lock:
            number = self.counts[fault, name] = self.counts[fault, name] + has_body
            if has_body:
                row = {"fault": fault, "file": name, "range": self.headers["Range"], "if": self.headers["If-Range"]}
                with self.log.open("a") as log:
                    log.write(json.dumps(row) + "\n")
        if fault in ("loop", "moved"):
            target = "plain" if fault == "moved" else "loop"
            return self.reply(302, {"Location": f"/{target}/{name}", "Content-Length": "0"})
        if fault == "missing" or not file.is_file() or fault not in FAULTS:
            return self.reply(404, {"Content-Length": "0"})
        if fault == "failing" or (fault == "busy" and number <= 2):
            state = 500 if fault == "failing" else 503
            return self.reply(state, {"Content-Length": "0", "Retry-After": "0"})
        self.serve(fault, number, file.read_bytes(), has_body)

    def serve(self, fault: str, number: int, data: bytes, has_body: bool) -> None:
        """Send a file, or the part that was asked for."""
        is_first = number == 1
        if fault == "altered":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault in ("changed", "unheeding") and is_first:
            data = bytes(byte ^ 255 for byte in data)
        version = "1" if is_first or fault not in ("changed", "unheeding") else "2"
        headers = {"ETag": f'"{version}"'}
        if fault == "dated":
            headers = {"Last-Modified": "Sat, 01 Apr 2017 00:00:00 GMT"}
        if fault == "encoded":
            headers["Content-Encoding"] = "gzip"
        start, status = 0, 200
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        fits = self.headers["If-Range"] in (None, *headers.values()) or fault == "unheeding"
        if wanted and fits and fault != "rangeless":
            start, status = int(wanted[1]), 206
            if start >= len(data):
                return self.reply(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
            start = start // 2 if fault == "shifted" else start
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        declared = len(body) + {"longer": 1000, "shorter": -1000}.get(fault, 0)
        self.reply(status, headers | {"Content-Length": str(declared)})
        if has_body:
            self.send(fault, is_first, body[:declared], len(data))

    def send(self, fault: str, is_first: bool, body: bytes, whole: int) -> None:
        """Send a body, or what the fault leaves of it."""
        if fault == "drop":
            body = body[: whole // 3]
        if fault in ("rangeless", "shifted", "changed", "unheeding", "stalled", "dated") and is_first:
            body = body[: whole // 2]
        with contextlib.suppress(ConnectionError):
            if fault == "slow" and is_first:
                step = whole // 400
                for begin in range(0, len(body), step):
                    self.wfile.write(body[begin : begin + step])
                    time.sleep(0.05)
            else:
                self.wfile.write(body)
            self.wfile.flush()
            if fault == "stalled" and is_first:
                time.sleep(30)
        self.close_connection = True

    def reply(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@dataclass(frozen=True)
class Server:
    """A running server."""

    folder: Path
    log: Path
    port: int

    def url(self, fault: str) -> str:
        """The folder on the server whose files have a fault."""
        assert fault in FAULTS
        return f"http://127.0.0.1:{self.port}/{fault}"

    def requests(self, fault: str, name: str) -> list[dict[str, Any]]:
        """All requests for a file with a fault, in their order."""
        rows = map(json.loads, self.log.read_text().splitlines()) if self.log.exists() else ()
        return [row for row in rows if (row["fault"], row["file"]) == (fault, name)]


@contextlib.contextmanager
def serving(folder: Path, log: Path) -> Iterator[Server]:
    """Serve a folder by a process of its own."""
    command = [sys.executable, __file__, folder, log]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Server(folder, log, int(process.stdout.readline()))
        finally:
            process.kill()


if __name__ == "__main__":
    Handler.folder, Handler.log = (Path(argument) for argument in itertools.islice(sys.argv, 1, 3))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
