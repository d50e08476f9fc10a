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
    """A port on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def _process(command: list[str], port: int) -> Iterator[None]:
    """Run a server process until the context ends; enter the context when it listens on the port."""
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
    """Set environment variables of this process and its children until the context ends."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        servers.file_system.cache_clear()
        yield values
    servers.file_system.cache_clear()


@contextlib.contextmanager
def bucket() -> Iterator[dict[str, str]]:
    """Run an S3 server with `BUCKET`, and set the variables that this process and its children need to reach it.

    Yields:
        The variables.
    """
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
    """Run a server of Google's JSON API with `GS_BUCKET`; otherwise as `bucket`."""
    port = free_port()
    values = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}", "FSSPEC_GS_TOKEN": "anon"}
    emulator = [str(Path(__file__).with_name("gs_server.py")), str(port), GS_BUCKET.removeprefix("gs://")]
    with _process(emulator, port), _environment(values) as environment:
        import fsspec

        fsspec.config.set_conf_env(fsspec.config.conf)  # fsspec reads them only when it is imported
        yield environment
        fsspec.config.conf.pop("gs", None)


def write_songs(folder: Path) -> Path:
    """Write two genres of five clips, and a broken file whose name has characters that URLs must quote."""
    write_genres(folder, tracks=5, seconds=0.6)
    (folder / "blues" / "broken #1?.wav").write_bytes(b"RIFF" + bytes(100))
    return folder


def shard_files(files: dict[str, bytes]) -> dict[str, bytes]:
    """Select the files of the shards from `{path: content}` of a store."""
    return {name: data for name, data in files.items() if ".zarr/" in name}


def manifest_rows(path: Path | RemotePath) -> list[dict]:
    """Manifest rows of a store, without the modification time: copies of a file differ in it."""
    return Store.open(path).tracks.drop_columns(["mtime_ns"]).to_pylist()


def upload_folder(folder: Path, url: str) -> RemotePath:
    """Upload the files of a folder."""
    for name, data in tree(folder).items():
        (RemotePath(url) / name).write_bytes(data)
    return RemotePath(url)


def read_objects(url: RemotePath) -> dict[str, bytes]:
    """Content of every object below a URL, by its path: like `tree` for a folder."""
    return {name: (url / name).read_bytes() for name in url.list_objects()}
