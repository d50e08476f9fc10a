"""`mgc download` with a real server: what it makes of good answers and of every fault."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from commands import MGC, Outcome, mgc, mgc_process, stamps, tree
from conftest import World
from http_faults import FAULTS
from tiny_archives import fma_audio, fma_metadata, gtzan_audio, sha1

from mgc.pipeline.downloads.places import RECORD

ONE = "fma_metadata.zip"


def get(world: World, name: str, data: Path, fault: str = "plain", *options: object) -> Outcome:
    return mgc("download", name, "--mirror", world.server.url(fault), "--data-dir", data, *options)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path: content for path, content in tree(folder).items() if path != RECORD}


class TestWhatItMakes:
    def test_fma_layout(self, world: World, tmp_path: Path):
        outcome = get(world, "tiny-fma", tmp_path)
        assert outcome.code == 0, outcome.err
        folder = tmp_path / "datasets" / "tiny-fma"
        assert files_of(folder) == fma_audio() | fma_metadata()
        assert outcome.out.splitlines()[-2:] == ["licence: none", f"mgc extract --dataset {folder}"]
        assert not list((tmp_path / "datasets" / "archives").iterdir())
        assert "space: at least" in outcome.err or "space: about" in outcome.err

        again = get(world, "tiny-fma", tmp_path, "failing", "--retries", 0)
        assert (again.code, again.out) == (0, outcome.out)
        assert "is complete: nothing to do" in again.err

    def test_the_printed_command_reads_it(self, world: World, tmp_path: Path):
        outcome = get(world, "tiny-fma", tmp_path)
        command = outcome.out.splitlines()[-1].split()[1:]
        plan = mgc(*command, "--slice", 0.5, "--dry-run", "--data-dir", tmp_path)
        assert plan.code == 0, plan.err
        assert "24 files to decode" in plan.out
        assert "tiny-fma" in mgc("extract", "--dry-run", "--data-dir", tmp_path).err  # the only dataset there

    def test_gtzan_layout(self, world: World, tmp_path: Path):
        outcome = get(world, "tiny-gtzan", tmp_path, "plain", "--keep-archives", "--json")
        folder = tmp_path / "datasets" / "tiny-gtzan"
        assert files_of(folder) == gtzan_audio()
        assert outcome.json == {
            "name": "tiny-gtzan",
            "dataset": str(folder),
            "files": 4,
            "licence": "none",
            "command": f"mgc extract --dataset {folder} --splits gtzan-filtered",
        }
        kept = tmp_path / "datasets" / "archives" / "genres.tar.gz"
        assert kept.read_bytes() == (world.archives / "genres.tar.gz").read_bytes()
        plan = mgc("extract", "--dataset", folder, "--format", "gtzan", "--whole", "--dry-run", "--data-dir", tmp_path)
        assert plan.code == 0, plan.err

    def test_dry_run(self, world: World, tmp_path: Path):
        outcome = get(world, "tiny-fma", tmp_path, "plain", "--dry-run", "--json")
        sizes = {name: (world.archives / name).stat().st_size for name in ("fma_small.zip", ONE)}
        assert {row["file"]: row["bytes"] for row in outcome.json["archives"]} == sizes
        assert outcome.json["needed_bytes"] == 2 * sum(sizes.values())
        text = get(world, "tiny-fma", tmp_path, "missing", "--dry-run").out
        assert "size unknown" in text
        assert "space: what is needed is not known, " in text
        assert not list(tmp_path.iterdir())

    def test_all_that_can_be_had(self, world: World, tmp_path: Path):
        outcome = mgc("download")
        for name in ("fma-small", "fma-medium", "fma-large", "fma-full", "gtzan", "musicnn", "tiny-fma"):
            assert f"\n{name} " in f"\n{outcome.out}"
        assert "https://github.com/mdeff/fma" in outcome.out
        assert "dataset fma_small of the layout acme-offers cannot be downloaded (there is one" in outcome.err
        wrong = mgc("download", "fma-smal", "--data-dir", tmp_path)
        assert wrong.code == 2
        assert "no dataset or weights 'fma-smal' to download; did you mean fma-small" in wrong.err


#: Faults that are overcome: what is said, and how many requests it takes at most.
OVERCOME = {
    "plain": ("", 1),
    "drop": ("the connection", 5),
    "rangeless": ("does not continue downloads; beginning again", 2),
    "stalled": ("the server stopped sending", 2),
    "longer": ("the connection", 2),
    "moved": ("", 1),
    "busy": ("HTTP 503 Service Unavailable", 3),
    "shifted": ("another part than was asked for", 3),
    "changed": ("the file has changed on the server", 2),
    "unheeding": ("the file has changed on the server", 3),
    "encoded": ("", 1),
    "dated": ("the connection", 2),
}
#: Faults that are errors: what is said.
ERRORS = {
    "altered": "its SHA-1 is {actual}, the published one {published}; it was removed",
    "shorter": "its SHA-1 is ",
    "loop": "redirects in a circle",
    "failing": "HTTP 500 Internal Server Error, 2 times in a row",
    "missing": "HTTP 404 Not Found",
}


class TestFaults:
    """Every fault of the server ends with the file's bytes, or with one line that says what is wrong."""

    def test_every_fault_is_tested(self):
        assert {*OVERCOME, *ERRORS, "slow"} == set(FAULTS)

    @pytest.mark.parametrize("fault", OVERCOME)
    def test_overcome(self, fault: str, world: World, tmp_path: Path):
        said, most = OVERCOME[fault]
        before = len(world.server.requests("plain" if fault == "moved" else fault, ONE))
        outcome = get(world, "one-file", tmp_path, fault, "--timeout", 0.7, "--keep-archives")
        assert outcome.code == 0, outcome.err
        archive = tmp_path / "datasets" / "archives" / ONE
        assert archive.read_bytes() == (world.archives / ONE).read_bytes()
        assert [path.name for path in archive.parent.iterdir()] == [ONE]
        assert said in outcome.err
        requests = world.server.requests("plain" if fault == "moved" else fault, ONE)[before:]
        assert 1 <= len(requests) <= most
        if fault in ("drop", "stalled", "dated"):  # no byte was sent twice but for the last block
            whole = archive.stat().st_size
            assert requests[0]["range"] is None
            starts = [int(row["range"].removeprefix("bytes=").rstrip("-")) for row in requests[1:]]
            assert starts == sorted(starts)
            assert starts[0] >= whole // 3 - 2**15
            assert requests[1]["if"] == ("Sat, 01 Apr 2017 00:00:00 GMT" if fault == "dated" else '"1"')

    @pytest.mark.parametrize("fault", ERRORS)
    def test_errors(self, fault: str, world: World, tmp_path: Path):
        outcome = get(world, "one-file", tmp_path, fault, "--retries", 1)
        assert outcome.code == 1
        data = (world.archives / ONE).read_bytes()
        expected = {"published": sha1(data), "actual": sha1(data[:-1] + bytes([data[-1] ^ 1]))}
        last = outcome.err.splitlines()[-1]
        assert ERRORS[fault].format(**expected) in last
        assert "--mirror" in last
        left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]
        assert left == []

    def test_the_next_address_is_tried(self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        from dataclasses import replace

        from mgc.pipeline.downloads import fetching, offers
        from mgc.pipeline.downloads.settings import Settings

        (archive,) = offers.find_offer("one-file").archives
        notes: list[str] = []
        mirrored = replace(archive, mirrors=(f"{world.server.url('plain')}/{ONE}",))
        fetching.fetch(mirrored, tmp_path / ONE, Settings(notes.append))
        assert (tmp_path / ONE).read_bytes() == (world.archives / ONE).read_bytes()
        assert len(notes) == 1
        assert "HTTP 404 Not Found; trying http://127.0.0.1" in notes[0]

    def test_the_published_size_is_compared_before_anything_is_fetched(self, world: World, tmp_path: Path):
        from mgc.pipeline.datasets.published import Archive
        from mgc.pipeline.downloads import fetching
        from mgc.pipeline.downloads.settings import Settings
        from mgc.pipeline.errors import MgcError

        archive = Archive(f"{world.server.url('plain')}/{ONE}", size=10**9)
        with pytest.raises(MgcError, match=r"the file there has [0-9,]+ bytes, 1,000,000,000 were published"):
            fetching.fetch(archive, tmp_path / ONE, Settings(print))
        assert list(tmp_path.iterdir()) == []


class TestKills:
    def test_in_the_middle_of_a_file(self, world: World, tmp_path: Path):
        """The second call fetches the rest only."""
        command = [MGC, "download", "one-file", "--mirror", world.server.url("slow"), "--data-dir", tmp_path]
        part = tmp_path / "datasets" / "archives" / f"{ONE}.part"
        with subprocess.Popen(command, env=os.environ | world.environment, stderr=subprocess.DEVNULL) as process:
            await_size(part, 60_000)
            process.kill()
        had = part.stat().st_size
        assert 60_000 <= had < (world.archives / ONE).stat().st_size
        outcome = get(world, "one-file", tmp_path, "slow", "--keep-archives")
        assert outcome.code == 0, outcome.err
        assert (part.with_suffix("")).read_bytes() == (world.archives / ONE).read_bytes()
        assert world.server.requests("slow", ONE)[-1]["range"] == f"bytes={had}-"

    def test_in_the_middle_of_unpacking(self, world: World, tmp_path: Path):
        unfinished, folder = tmp_path / "datasets" / "many-files.unfinished", tmp_path / "datasets" / "many-files"
        command = [MGC, "download", "many-files", "--mirror", world.server.url("plain"), "--data-dir", tmp_path]
        with subprocess.Popen(command, env=os.environ | world.environment, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            while not (unfinished / "many" / "002").exists() and time.monotonic() < deadline:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        kept = {name: stamp for name, stamp in stamps(unfinished).items() if name.endswith(".bin")}
        assert 200 <= len(kept) < 3000
        assert not folder.exists()
        spoilt = unfinished / min(kept)
        spoilt.write_bytes(bytes(spoilt.stat().st_size))

        outcome = get(world, "many-files", tmp_path, "failing")  # the archive is there: nothing is fetched
        assert outcome.code == 0, outcome.err
        assert not unfinished.exists()
        after = stamps(folder)
        assert len(after) == 3001
        assert {name for name in kept if after[name] != kept[name]} == {min(kept)}
        assert mgc("download", "many-files", "--check", "--data-dir", tmp_path).code == 0

    def test_between_unpacking_and_the_last_name(self, world: World, tmp_path: Path):
        get(world, "tiny-gtzan", tmp_path)
        folder = tmp_path / "datasets" / "tiny-gtzan"
        folder.rename(folder.with_name("tiny-gtzan.unfinished"))
        assert get(world, "tiny-gtzan", tmp_path, "failing").code == 0
        assert files_of(folder) == gtzan_audio()

    def test_ctrl_c(self, world: World, tmp_path: Path):
        command = [MGC, "download", "many-files", "--mirror", world.server.url("slow"), "--data-dir", tmp_path]
        part = tmp_path / "datasets" / "archives" / "many.zip.part"
        with subprocess.Popen(
            command, env=os.environ | world.environment, stderr=subprocess.PIPE, text=True
        ) as process:
            await_size(part, 1)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert err.splitlines()[-1].startswith("error: interrupted; finished work is kept: run the same command again")


def await_size(path: Path, n_bytes: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and path.stat().st_size >= n_bytes:
            return
        time.sleep(0.01)
    pytest.fail(f"{path} does not grow")


class TestBadPlaces:
    @pytest.mark.parametrize(
        "url", ["ftp://host/a", "host", "http://", "http://[::1", "http://host:99999999", "file:///a"]
    )
    def test_a_mirror_that_is_no_address(self, url: str, tmp_path: Path):
        outcome = mgc("download", "gtzan", "--mirror", url, "--data-dir", tmp_path)
        assert outcome.code == 2
        assert f"error: --mirror {url}; it must be an address such as https://host/folder" in outcome.err

    def test_a_password_is_not_printed(self, world: World, tmp_path: Path):
        url = world.server.url("missing").replace("127.0.0.1", "me:secret@127.0.0.1")
        outcome = mgc("download", "one-file", "--mirror", url, "--data-dir", tmp_path)
        assert (outcome.code, "secret" in outcome.err) == (1, False)

    def test_no_network(self, tmp_path: Path):
        """A closed port, and a name that does not resolve: one line, within seconds."""
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        for url, reason in (
            (f"http://127.0.0.1:{port}", "Connection refused"),
            ("http://nowhere.invalid", "no connection"),
        ):
            began = time.monotonic()
            outcome = mgc("download", "gtzan", "--mirror", url, "--data-dir", tmp_path)
            assert time.monotonic() - began < 15
            assert outcome.code == 1
            last = outcome.err.splitlines()[-1]
            assert reason in last
            assert "check the network and $HTTPS_PROXY" in last

    def test_a_proxy_from_the_environment(self, world: World, tmp_path: Path):
        """The server stands for a proxy, which is asked for the whole address."""
        proxy = f"http://127.0.0.1:{world.server.port}"
        options = ("--mirror", "http://example.invalid/plain", "--data-dir", tmp_path, "--retries", 0)
        outcome = mgc_process("download", "one-file", *options, HTTP_PROXY=proxy, **world.environment)
        assert outcome.code == 0, outcome.err

    def test_a_full_disk(self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=700_000))
        outcome = get(world, "one-file", tmp_path)
        assert outcome.code == 1
        assert "not enough space on the disk: 1.2 MB needed, 700 kB free; free some, or" in outcome.err
        assert not (tmp_path / "datasets" / "archives" / f"{ONE}.part").exists()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_an_unwritable_folder(self, world: World, tmp_path: Path):
        tmp_path.chmod(0o500)
        try:
            outcome = get(world, "one-file", tmp_path)
        finally:
            tmp_path.chmod(0o700)
        assert outcome.code == 1
        assert "cannot be written (Permission denied)" in outcome.err

    def test_a_file_where_the_folder_goes(self, world: World, tmp_path: Path):
        (tmp_path / "datasets").write_text("")
        outcome = get(world, "one-file", tmp_path)
        assert (outcome.code, outcome.err.count("error: ")) == (1, 1)
        assert "a file exists where a folder is needed" in outcome.err

    def test_something_else_in_its_place(self, world: World, tmp_path: Path):
        song = tmp_path / "datasets" / "one-file" / "song.mp3"
        song.parent.mkdir(parents=True)
        song.write_bytes(b"mine")
        outcome = get(world, "one-file", tmp_path)
        assert outcome.code == 1
        assert "one-file is there, but mgc did not download this version of one_file into it" in outcome.err
        assert tree(song.parent) == {"song.mp3": b"mine"}

    def test_two_at_once(self, world: World, tmp_path: Path):
        import filelock

        (tmp_path / "datasets").mkdir()
        with filelock.FileLock(tmp_path / "datasets" / ".lock"):
            outcome = mgc_process(
                "download", "one-file", "--mirror", world.server.url("plain"), "--data-dir", tmp_path,
                **world.environment,
            )  # fmt: skip
        assert outcome.code == 1
        assert "another `mgc download` is at work there; wait for it to end" in outcome.err

    def test_an_archive_that_was_put_there(self, world: World, tmp_path: Path):
        archive = tmp_path / "datasets" / "archives" / ONE
        archive.parent.mkdir(parents=True)
        archive.write_bytes(b"something else")
        outcome = get(world, "one-file", tmp_path)
        assert outcome.code == 1
        assert f"its SHA-1 is {sha1(b'something else')}, the published one" in outcome.err
        assert archive.read_bytes() == b"something else"
        shutil.copyfile(world.archives / ONE, archive)
        assert get(world, "one-file", tmp_path, "failing").code == 0
