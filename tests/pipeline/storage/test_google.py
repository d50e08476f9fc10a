"""Stores and audio at `gs://`, through gcsfs, against a server that speaks Google's JSON API.

Google's own service was never asked: what only it does (credentials, limits of rate) is not tested.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clusters import foreign_cluster
from commands import Outcome, mgc, tree
from objects import GS_BUCKET, read_objects, shard_files, gs_bucket, upload_folder, manifest_rows, write_songs

from mgc.pipeline.errors import MgcError
from mgc.pipeline.storage import lease, servers
from mgc.pipeline.storage.remote import RemotePath

pytest.importorskip("gcsfs", reason="gs:// is tested where gcsfs and gcp-storage-emulator are installed")
pytest.importorskip("gcp_storage_emulator", reason="gs:// is tested where gcp-storage-emulator is installed")
pytestmark = pytest.mark.slow

FEATURE = "stft:n_fft=512"


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with gs_bucket() as environment:
        yield environment


@pytest.fixture(scope="module")
def workers(server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with foreign_cluster(tmp_path_factory.mktemp("dask"), workers=1, environment=server) as address:
        yield address


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_songs(tmp_path_factory.mktemp("music") / "small")


@pytest.fixture(scope="module")
def local(music: Path, workers: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(stored(extract(music, tmp_path_factory.mktemp("local"), workers)))


@pytest.fixture(scope="module")
def store(music: Path, workers: str) -> RemotePath:
    return RemotePath(stored(extract(upload_folder(music, f"{GS_BUCKET}/small"), f"{GS_BUCKET}/features", workers)))


def extract(dataset: object, out: object, scheduler: str) -> Outcome:
    cut = ("--feature", FEATURE, "--slice", "0.3")
    return mgc("extract", "--dataset", dataset, "--out", out, *cut, "--scheduler", scheduler, "--json")


def stored(outcome: Outcome) -> str:
    assert outcome.code == 0, outcome.err
    return outcome.json["stores"][0]["store"]


def test_it_holds_the_bytes_of_a_local_store(store: RemotePath, local: Path, workers: str) -> None:
    here, there = tree(local), read_objects(store)
    assert shard_files(there) == shard_files(here)
    assert set(there) == set(here)
    assert manifest_rows(store) == manifest_rows(local)
    before = store.list_objects()
    outcome = extract(f"{GS_BUCKET}/small", store.parent, workers)
    assert outcome.json["stores"][0]["decoded"] == 0
    assert store.list_objects() == before


def test_slice_verify_and_repair(store: RemotePath, local: Path, workers: str) -> None:
    assert mgc("slice", store, "--slice", 0.2, "--overlap", 0).code == 0
    assert mgc("verify", store).out.strip() == f"{store}: every byte is as it was written"
    chunk = store / "shards" / "00000.zarr" / "stft" / "c" / "0" / "0"
    chunk.unlink()
    assert f"{chunk}: no object has this name" in mgc("verify", store).out
    audio = RemotePath(f"{GS_BUCKET}/small/blues/blues00.wav")
    audio.write_bytes((audio.parent / "blues01.wav").read_bytes())
    outcome = extract(f"{GS_BUCKET}/small", store.parent, workers)
    hashes = {row["track_id"]: row["content_hash"] for row in manifest_rows(RemotePath(stored(outcome)))}
    assert hashes["blues/blues00"] == hashes["blues/blues01"]
    assert mgc("verify", store).code == 0


def test_objects_of_several_parts(server: dict[str, str], tmp_path: Path) -> None:
    """From 5 MB on gcsfs uploads in parts."""
    file, path = tmp_path / "file", RemotePath(f"{GS_BUCKET}/large")
    file.write_bytes(os.urandom(6_000_000))
    path.upload(file)
    assert path.stat().st_size == 6_000_000
    path.download(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == file.read_bytes() == path.read_bytes()


class TestTheLock:
    def test_of_several_writers_one_gets_it(self, server: dict[str, str]) -> None:
        path, start = RemotePath(f"{GS_BUCKET}/contended/lock.json"), threading.Barrier(6)

        def race(_: int) -> lease.Lease | None:
            start.wait()
            try:
                return lease.Lease(path, "it")
            except MgcError:
                return None

        with ThreadPoolExecutor(6) as racers:
            (winner,) = [held for held in racers.map(race, range(6)) if held is not None]
        winner.release()
        assert not path.is_file()

    def test_an_expired_one_is_taken_over_once(self, server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        path = RemotePath(f"{GS_BUCKET}/expired/lock.json")
        monkeypatch.setattr(lease, "EXPIRY_S", -1)
        dead = lease.Lease(path, "it")  # as one that a kill left
        generation = lease._etag(path)
        monkeypatch.setattr(lease, "EXPIRY_S", 60)
        monkeypatch.setattr(lease, "RENEWAL_S", 0.05)
        with lease.hold(path, "it") as heir:
            with pytest.raises(FileExistsError):  # who read the expired one at the same time comes too late
                lease._replace(path, b"{}", generation)
            first = json.loads(path.read_bytes())
            while json.loads(path.read_bytes())["expires"] == first["expires"]:
                time.sleep(0.01)
            heir.require_valid()
            with pytest.raises(MgcError, match="its lock was lost"):
                dead.require_valid()
        with pytest.raises(FileExistsError):
            lease._replace(path, b"{}", generation)  # there is none any more


def test_a_killed_extraction_goes_on_to_the_same_bytes(
    store: RemotePath, music: Path, local: Path, workers: str
) -> None:
    dataset, out = upload_folder(music, f"{GS_BUCKET}/again"), RemotePath(f"{GS_BUCKET}/killed")
    command = ["extract", "--dataset", str(dataset), "--out", str(out), "--feature", FEATURE, "--slice", "0.3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mgc", *command, "--workers", "1"], start_new_session=True, stderr=subprocess.DEVNULL
    )
    killed = out / local.name
    while not list((killed / "shards").glob("*.parquet")):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert f"process {process.pid} on" in extract(dataset, out, workers).error
    held = json.loads((killed / "lock.json").read_bytes())
    (killed / "lock.json").write_bytes(json.dumps(held | {"expires": time.time() - 1}).encode())
    again = RemotePath(stored(extract(dataset, out, workers)))
    assert shard_files(read_objects(again)) == shard_files(tree(local))
    assert set(read_objects(again)) == set(tree(local))


def test_what_goes_wrong_is_said_in_one_line(server: dict[str, str], music: Path) -> None:
    assert "gs://no-such-bucket/x: no feature store" in mgc("info", "gs://no-such-bucket/x").error
    outcome = mgc("extract", "--dataset", music, "--out", "gs://no-such-bucket/features", "--feature", FEATURE)
    assert "gs://no-such-bucket/features" in outcome.error
    assert "check the URL; mgc does not create buckets" in outcome.error


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, servers.RefusedError, "the server refuses the request"),
        (403, servers.RefusedError, "the server refuses the request"),
        (404, FileNotFoundError, "no object has this name"),
        (412, FileExistsError, "another object of this name"),
        (503, servers.ServerError, "the server fails"),
    ],
)
def test_what_gcsfs_says_of_a_status(status: int, kind: type[OSError], words: str) -> None:
    from gcsfs.retry import validate_response

    def answer(*_: object) -> None:
        validate_response(status, json.dumps({"error": {"code": status, "message": "because"}}), "b/bucket/o/x")

    with pytest.raises(kind, match=words) as caught:
        servers.with_retries("gs://bucket/x", answer)
    assert caught.value.filename == "gs://bucket/x"
