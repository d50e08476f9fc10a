"""An object store for tests: a server of its own process that speaks S3, with credentials that mean nothing."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import tree

from pipeline import remote
from pipeline.remote import RemotePath

BUCKET = "s3://music-bucket"


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def object_store() -> Iterator[dict[str, str]]:
    """What the environment must say for `BUCKET` to be on a new server, which ends with the context."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None
            assert time.monotonic() < deadline
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "never-to-be-printed",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def bucket() -> Iterator[dict[str, str]]:
    """The environment in which `BUCKET` exists; this process and its children have it."""
    with object_store() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        remote._system.cache_clear()
        remote._system("s3").call_s3("create_bucket", Bucket=BUCKET.removeprefix("s3://"))
        yield environment
    remote._system.cache_clear()


def put(folder: Path, url: str) -> RemotePath:
    """Put a folder's files at a URL."""
    for name, data in tree(folder).items():
        (RemotePath(url) / name).write_bytes(data)
    return RemotePath(url)
