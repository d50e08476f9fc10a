"""Stores and audio at URLs, tested with an S3 server (moto) and an HTTP server, each in its own process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from clusters import foreign_cluster
from commands import mgc, tree
from music import write_list
from objects import BUCKET, bucket, free_port, manifest_rows, read_objects, shard_files, upload_folder, write_songs

from mgc.pipeline.errors import MgcError
from mgc.pipeline.storage import concurrency, lease, servers, urls
from mgc.pipeline.storage.remote import RemotePath
from mgc.pipeline.store.store import Store

pytest.importorskip("s3fs")

#: A feature that needs no librosa.
FEATURE = "stft:n_fft=512"
HOST = socket.gethostname()


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with bucket() as environment:
        yield environment


@pytest.fixture(scope="module")
def workers(server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a scheduler; its worker gets the S3 server's address and credentials from its environment alone."""
    with foreign_cluster(tmp_path_factory.mktemp("dask"), workers=1, environment=server) as address:
        yield address


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_songs(tmp_path_factory.mktemp("music") / "small")


@pytest.fixture(scope="module")
def objects(server: dict[str, str], music: Path) -> RemotePath:
    """The same music as objects in the bucket."""
    return upload_folder(music, f"{BUCKET}/small")


@pytest.fixture(scope="module")
def local(music: Path, workers: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local store, extracted from the same music."""
    return extracted(music, tmp_path_factory.mktemp("local"), workers)


@pytest.fixture(scope="module")
def store(objects: RemotePath, workers: str) -> RemotePath:
    """A store in the bucket, extracted from music in the bucket."""
    return extracted(objects, f"{BUCKET}/features", workers)


def extract(dataset: object, out: object, scheduler: str | None, *options: object):
    cluster = ["--scheduler", scheduler] if scheduler else []
    return mgc(
        "extract", "--dataset", dataset, "--out", out, "--feature", FEATURE, "--slice", "0.3", *cluster, *options
    )


def extracted(dataset: object, out: object, scheduler: str | None, *options: object):
    outcome = extract(dataset, out, scheduler, "--json", *options)
    assert outcome.code == 0, outcome.err
    return urls.parse_place(outcome.json["stores"][0]["store"])


@pytest.mark.slow
class TestAStoreOfObjects:
    def test_it_holds_the_bytes_of_a_local_one(self, store: RemotePath, local: Path) -> None:
        here, there = tree(local), read_objects(store)
        assert shard_files(there) == shard_files(here)
        assert shard_files(here)
        assert set(there) == set(here)
        assert (store / "slices.parquet").read_bytes() == (local / "slices.parquet").read_bytes()
        assert manifest_rows(store) == manifest_rows(local)
        assert {row["reason"] for row in manifest_rows(store)} == {None, "unsupported"}

    def test_no_credentials_are_stored(self, store: RemotePath, server: dict[str, str]) -> None:
        secret = server["AWS_SECRET_ACCESS_KEY"].encode()
        assert not any(secret in data for data in read_objects(store).values())

    def test_a_second_call_changes_nothing(self, store: RemotePath, objects: RemotePath) -> None:
        before = store.list_objects()
        outcome = extract(objects, store.parent, None, "--json")
        assert outcome.json["stores"][0]["decoded"] == 0
        assert store.list_objects() == before

    def test_info_slice_split_audit_and_verify(self, store: RemotePath, objects: RemotePath) -> None:
        assert mgc("info", store, "--json").json["ok"] == 10
        assert mgc("split", store, "--redo", "--seed", 3).code == 0
        assert mgc("slice", store, "--slice", 0.2, "--overlap", 0).code == 0
        assert "not recorded" not in mgc("audit", store).err
        assert mgc("info", store, "--json").json["audit"]["clean"]
        assert mgc("verify", store).out.strip() == f"{store}: every byte is as it was written"
        assert Store.open(store).slicing.seconds == 0.2

    def test_frames_are_read(self, store: RemotePath, local: Path) -> None:
        there, here = Store.open(store), Store.open(local)
        for shard in here.fragments():
            np.testing.assert_array_equal(there.read(shard), here.read(shard))

    def test_publishing_asks_once_for_each_fragment_and_for_several_at_a_time(
        self, store: RemotePath, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        system, requests, running, most = servers.file_system("s3"), [], [0], [0]
        call = system._call_s3

        async def counting(method: str, *arguments: object, **options: object) -> object:
            requests.append((options.get("Key") or "", method))
            running[0] += 1
            most[0] = max(most[0], *running)
            await asyncio.sleep(0.05)  # so that the calls overlap
            try:
                return await call(method, *arguments, **options)
            finally:
                running[0] -= 1

        monkeypatch.setattr(system, "_call_s3", counting)
        assert mgc("slice", store, "--slice", 0.3, "--overlap", 0).code == 0
        fragments = [Store.open(store).fragment_path(shard).name for shard in Store.open(store).fragments()]
        assert len(fragments) >= 3
        for name in fragments:
            assert [method for key, method in requests if key.endswith(f"/shards/{name}")] == ["get_object"]
        assert len(fragments) <= most[0] <= concurrency.MAX_CONCURRENT_REQUESTS

    def test_objects_without_a_fragment_are_nothing(self, store: RemotePath) -> None:
        for name in ("00077.zarr/zarr.json", "00077.zarr/stft/c/0/0"):
            (store / "shards" / name).write_bytes(b"half an upload")
        assert mgc("verify", store).code == 0
        assert mgc("slice", store, "--slice", 0.3).code == 0
        assert mgc("info", store, "--json").json["ok"] == 10

    def test_a_flipped_byte_is_noticed_and_repaired(
        self, store: RemotePath, objects: RemotePath, workers: str, local: Path
    ) -> None:
        chunk = store / "shards" / "00000.zarr" / "stft" / "c" / "0" / "0"
        good = chunk.read_bytes()
        chunk.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
        problem, line = mgc("verify", store).out, f"{chunk}: its bytes are not those that were written"
        assert problem.strip() == line
        # Verification reads the object, not the local copy that `test_frames_are_read` made.
        extracted(objects, store.parent, workers, "--verify")
        assert chunk.read_bytes() == good
        assert mgc("verify", store).code == 0
        assert shard_files(read_objects(store)) == shard_files(tree(local))

    @pytest.mark.slow
    def test_changed_new_and_lost_objects(self, workers: str, music: Path, tmp_path: Path) -> None:
        folder = tmp_path / "changing"
        shutil.copytree(music, folder)
        dataset = upload_folder(folder, f"{BUCKET}/changing")
        out = f"{BUCKET}/changing-features"
        extracted(dataset, out, workers)
        (dataset / "blues" / "blues00.wav").write_bytes((folder / "disco" / "disco04.wav").read_bytes())
        (dataset / "blues" / "blues77.wav").write_bytes((folder / "disco" / "disco03.wav").read_bytes())
        (dataset / "disco" / "disco01.wav").unlink()
        outcome = extract(dataset, out, workers, "--json")
        report = outcome.json["stores"][0]
        assert (report["ok"], report["dropped"]) == (10, {"missing": 1, "unsupported": 1})
        hashes = {row["track_id"]: row["content_hash"] for row in manifest_rows(urls.parse_place(report["store"]))}
        assert hashes["blues/blues00"] == hashes["disco/disco04"]
        assert mgc("verify", report["store"]).code == 0
        again = extracted(dataset, out, workers, "--rebuild")
        assert len(manifest_rows(again)) == 11
        assert not list(again.parent.glob("*.old"))


def test_an_empty_object_is_read(server: dict[str, str]) -> None:
    path = RemotePath(f"{BUCKET}/empty")
    path.write_bytes(b"")
    assert path.read_bytes() == b""
    with pytest.raises(FileNotFoundError):
        (path.parent / "gone").read_bytes()


@pytest.mark.parametrize("root", [f"{BUCKET}/existence", "memory://existence"])
def test_objects_exist_and_so_do_folders_with_something_in_them(server: dict[str, str], root: str) -> None:
    folder = RemotePath(root) / "folder"
    assert not folder.exists()
    (folder / "object").write_bytes(b"x")
    assert [path.exists() for path in (folder, folder / "object", folder / "obj")] == [True, True, False]
    assert [path.is_file() for path in (folder, folder / "object")] == [False, True]
    (folder / "object").unlink()
    assert not folder.exists()


class TestLease:
    def test_the_error_names_the_holder(self, objects: RemotePath, store: RemotePath) -> None:
        with lease.hold(store / "lock.json", "it"):
            outcome = extract(objects, store.parent, None)
            assert outcome.code == 1
            assert f"{store}: process {os.getpid()} on {HOST} is writing to it; wait for it to end" in outcome.error
        assert not (store / "lock.json").is_file()
        assert extract(objects, store.parent, None).code == 0

    def test_of_several_writers_one_gets_it(self, server: dict[str, str]) -> None:
        path = RemotePath(f"{BUCKET}/contended/lock.json")
        start = threading.Barrier(6)

        def race(_: int) -> lease.Lease | str:
            start.wait()
            try:
                return lease.Lease(path, "it")
            except MgcError as error:
                return error.problem

        with ThreadPoolExecutor(6) as racers:
            ends = list(racers.map(race, range(6)))
        (winner,) = [end for end in ends if isinstance(end, lease.Lease)]
        assert [end for end in ends if end is not winner] == [
            f"it: process {os.getpid()} on {HOST} is writing to it"
        ] * 5
        winner.release()

    def test_an_expired_one_is_taken_over_once(self, server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        path = RemotePath(f"{BUCKET}/expired/lock.json")
        monkeypatch.setattr(lease, "EXPIRY_S", -1)
        dead = lease.Lease(path, "it")  # like the lease of a killed process
        etag = lease._etag(path)
        monkeypatch.setattr(lease, "EXPIRY_S", 60)
        with lease.hold(path, "it") as heir:
            heir.require_valid()
            with pytest.raises(MgcError, match="is writing to it"):
                lease.Lease(path, "it")
            with pytest.raises(FileExistsError):  # a writer that read the expired lease at the same time is too late
                lease._replace(path, b"{}", etag)
            with pytest.raises(MgcError, match="its lock was lost"):
                dead.require_valid()
            dead.release()
            assert path.is_file()

    def test_the_holder_renews_it_and_notices_its_loss(
        self, server: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lease, "RENEWAL_S", 0.05)
        path = RemotePath(f"{BUCKET}/renewed/lock.json")
        with lease.hold(path, "it") as held_lease:
            first = json.loads(path.read_bytes())
            while json.loads(path.read_bytes())["expires"] == first["expires"]:
                time.sleep(0.01)
            held_lease.require_valid()
            path.write_bytes(json.dumps(first | {"token": "another's", "holder": "somebody"}).encode())
            while not held_lease._loss:
                time.sleep(0.01)
            with pytest.raises(MgcError, match=r"its lock was lost \(somebody holds it now\)"):
                held_lease.require_valid()
        assert path.is_file()


@pytest.mark.slow
def test_a_killed_extraction_goes_on_to_the_same_bytes(objects: RemotePath, local: Path, workers: str) -> None:
    """The process is killed when the first fragment exists; its lock names it until it expires."""
    out = RemotePath(f"{BUCKET}/killed")
    command = ["extract", "--dataset", str(objects), "--out", str(out), "--feature", FEATURE, "--slice", "0.3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mgc", *command, "--workers", "1"], start_new_session=True, stderr=subprocess.DEVNULL
    )
    store = out / local.name
    while not list((store / "shards").glob("*.parquet")):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "unfinished" in mgc("info", store).error
    outcome = extract(objects, out, workers)
    assert f"process {process.pid} on {HOST} is writing to it" in outcome.error
    lock = json.loads((store / "lock.json").read_bytes())
    (store / "lock.json").write_bytes(json.dumps(lock | {"expires": time.time() - 1}).encode())
    again = extracted(objects, out, workers)
    assert shard_files(read_objects(again)) == shard_files(tree(local))
    assert manifest_rows(again) == manifest_rows(local)
    assert set(read_objects(again)) == set(tree(local))


@pytest.fixture(scope="module")
def site(music: Path) -> Iterator[str]:
    """URL of a web server that serves the music."""
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(music)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 30
    while True:
        assert time.monotonic() < deadline
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            break
    yield url
    process.kill()
    process.wait()


class TestAudioFromAWebServer:
    def test_a_list_of_it(self, site: str, music: Path, tmp_path: Path, workers: str, local: Path) -> None:
        paths = [*tree(music), "blues/gone.wav"]
        track_list = write_list(tmp_path / "web.csv", [{"path": path, "genre": path.split("/")[0]} for path in paths])
        outcome = extract(track_list, tmp_path / "out", workers, "--json", "--audio-root", site)
        report = outcome.json["stores"][0]
        assert report["dropped"] == {"missing": 1, "unsupported": 1}
        columns = ("track_id", "content_hash", "duration_s", "status", "detail", "n_frames")
        rows = {row["track_id"]: [row[name] for name in columns] for row in manifest_rows(Path(report["store"]))}
        del rows["blues/gone"]
        assert rows == {row["track_id"]: [row[name] for name in columns] for row in manifest_rows(local)}
        assert (
            extract(track_list, tmp_path / "out", None, "--json", "--audio-root", site).json["stores"][0]["decoded"]
            == 0
        )

    @pytest.mark.parametrize("path", ["../secret.wav", "a/../../b.wav", "/etc/passwd", "http://elsewhere.org/x.wav"])
    def test_paths_do_not_leave_the_root(self, path: str, tmp_path: Path) -> None:
        track_list = write_list(tmp_path / "web.csv", [{"path": path, "genre": "rock"}])
        outcome = extract(track_list, tmp_path / "out", None, "--audio-root", "http://127.0.0.1:9/music")
        assert outcome.code == 1
        assert "leads out of http://127.0.0.1:9/music" in outcome.error

    def test_it_has_no_folders(self, site: str, tmp_path: Path) -> None:
        assert f"{site}/nothing: web servers list no folders" in extract(f"{site}/nothing", tmp_path, None).error


class TestMemory:
    @pytest.mark.slow
    def test_it_works_within_one_process(self, music: Path, local: Path) -> None:
        dataset = upload_folder(music, "memory://here/small")
        store = extracted(dataset, "memory://here/features", None)
        assert shard_files(read_objects(store)) == shard_files(tree(local))
        assert manifest_rows(store) == manifest_rows(local)
        assert mgc("verify", store).code == 0

    def test_it_has_no_other_processes(self, music: Path) -> None:
        outcome = extract(music, "memory://there/features", "tcp://127.0.0.1:1")
        assert outcome.code == 2
        assert "memory:// exists in this process only" in outcome.error


class TestErrors:
    def test_the_workspace_must_be_local(self) -> None:
        assert "name a path on this machine" in mgc("info", "--data-dir", "s3://bucket/x").error

    def test_a_bucket_that_does_not_exist(self, server: dict[str, str], music: Path) -> None:
        assert "s3://no-such-bucket/x: no feature store" in mgc("info", "s3://no-such-bucket/x").error
        assert "there is nothing below this name" in extract("s3://no-such-bucket/x", "s3://no-such-bucket", None).error
        outcome = extract(music, "s3://no-such-bucket/features", None)
        assert outcome.code == 1
        assert "no such bucket; check the URL; mgc does not create buckets" in outcome.error

    def test_stores_are_not_written_to_web_servers(self, music: Path) -> None:
        assert "stores are not written to https://" in extract(music, "https://host/features", None).error

    def test_a_server_that_does_not_exist(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(servers, "RETRY_DELAY_S", 0.01)
        with pytest.raises(OSError, match="the server cannot be reached"):
            RemotePath(f"http://127.0.0.1:{free_port()}/x").stat()

    def test_errors_of_a_web_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(servers, "RETRY_DELAY_S", 0.01)
        requests = []

        class Answers(BaseHTTPRequestHandler):
            """Answer with the status in the path; `cut` ends the body early."""

            def do_GET(self) -> None:
                requests.append(self.path)
                word = self.path.rpartition("/")[2]
                self.send_response(int(word) if word.isdigit() else 200)
                self.send_header("Content-Length", "100")
                self.end_headers()
                self.wfile.write(bytes(10 if word == "cut" else 100))

            def log_message(self, *arguments: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            root = RemotePath(f"http://127.0.0.1:{server.server_port}")
            assert (root / "200").read_bytes() == bytes(100)
            for word, kind, text, times in (
                ("403", PermissionError, "refuses", 1),
                ("404", FileNotFoundError, "no object", 1),
                ("503", servers.ServerError, "server fails", servers.MAX_ATTEMPTS),
                ("cut", servers.ServerError, "server fails", servers.MAX_ATTEMPTS),
            ):
                requests.clear()
                with pytest.raises(kind, match=text):
                    (root / word).read_bytes()
                assert len(requests) == times
            with pytest.raises(PermissionError):
                (root / "403").stat()
            server.shutdown()

    def test_temporary_errors_are_retried(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(servers, "RETRY_DELAY_S", 0.01)
        path, calls = RemotePath("memory://a/b"), []

        def request(error: Exception) -> str:
            calls.append(error)
            if len(calls) < servers.MAX_ATTEMPTS:
                raise error
            return "at last"

        assert servers.with_retries(path.url, lambda *_: request(TimeoutError("slow"))) == "at last"
        assert len(calls) == servers.MAX_ATTEMPTS
        calls.clear()
        with pytest.raises(PermissionError):
            servers.with_retries(path.url, lambda *_: request(PermissionError("no")))
        assert len(calls) == 1
