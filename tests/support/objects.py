"""Object stores for tests: servers that speak S3 or Google's JSON API, each a process of its own."""

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
from music import write_genres

from mgc.pipeline.storage import servers
from mgc.pipeline.storage.remote import RemotePath
from mgc.pipeline.store.store import Store

BUCKET = "s3://music-bucket"
GS_BUCKET = "gs://music-bucket"


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def _process(command: list[str], port: int) -> Iterator[None]:
    """A server, once it listens; it ends with the context."""
    server = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None
            assert time.monotonic() < deadline
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[dict[str, str]]:
    """Variables that this process and its children have."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        servers.file_system.cache_clear()
        yield values
    servers.file_system.cache_clear()


@contextlib.contextmanager
def bucket() -> Iterator[dict[str, str]]:
    """The environment in which `BUCKET` exists; this process and its children have it."""
    port = free_port()
    values = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "never-to-be-printed",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    moto = ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _process(moto, port), _environment(values) as environment:
        servers.file_system("s3").call_s3("create_bucket", Bucket=BUCKET.removeprefix("s3://"))
        yield environment


@contextlib.contextmanager
def gs_bucket() -> Iterator[dict[str, str]]:
    """The same for `GS_BUCKET`."""
    port = free_port()
    values = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}", "FSSPEC_GS_TOKEN": "anon"}
    emulator = [str(Path(__file__).with_name("gs_server.py")), str(port), GS_BUCKET.removeprefix("gs://")]
    with _process(emulator, port), _environment(values) as environment:
        import fsspec

        fsspec.config.set_conf_env(fsspec.config.conf)  # read when fsspec was imported
        yield environment
        fsspec.config.conf.pop("gs", None)


def write_songs(folder: Path) -> Path:
    """Two genres; one file is broken, and its name is what URLs are not."""
    write_genres(folder, tracks=5, seconds=0.6)
    (folder / "blues" / "broken #1?.wav").write_bytes(b"RIFF" + bytes(100))
    return folder


def shard_files(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files of the shards."""
    return {name: data for name, data in files.items() if ".zarr/" in name}


def manifest_rows(path: Path | RemotePath) -> list[dict]:
    """The manifest, but for what a copy cannot share with its original."""
    return Store.open(path).tracks.drop_columns(["mtime_ns"]).to_pylist()


def upload_folder(folder: Path, url: str) -> RemotePath:
    """Put a folder's files at a URL."""
    for name, data in tree(folder).items():
        (RemotePath(url) / name).write_bytes(data)
    return RemotePath(url)


def read_objects(url: RemotePath) -> dict[str, bytes]:
    """What `tree` says of a folder, of the objects below a URL."""
    return {name: (url / name).read_bytes() for name in url.list_objects()}
