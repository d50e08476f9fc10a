"""A server under load, with files that are broken, deadly or endless, and with processes that are killed."""

from __future__ import annotations

import csv
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hazards
import psutil
import pytest
import requests
from commands import mgc
from music import write_clip
from serving import ServerProcess, SlowUpload, server

from mgc.models.service.scratch import scratch_folder

pytestmark = pytest.mark.slow


def wait_for(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.corpus
def test_two_hundred_requests_a_tenth_of_them_broken(run: Path, corpus: Path, tmp_path: Path) -> None:
    """16 at once: no good file fails, the broken ones are refused as expected, memory stays flat, no file is left."""
    rows = list(csv.DictReader((corpus / "faults" / "expected.csv").open(encoding="utf-8")))
    # Of 1.6 s, the run's slice, there is enough in one of the clips that are too short for slices of 4 s.
    broken = [row["file"] for row in rows if row["expected"] in ("drop:empty", "drop:not-audio", "drop:no-audio")]
    broken.append("000004.mp3")
    good = sorted((corpus / "fma_debian").rglob("*.mp3"))[:40]
    expected = {row["path"]: row for row in mgc("predict", run, *good, "--json").json}
    with server(tmp_path, run, "--timeout", 300) as running:

        def one(number: int) -> tuple[bool, requests.Response, Path]:
            is_good = number % 10 != 3
            path = good[number % len(good)] if is_good else corpus / "faults" / broken[number // 10 % len(broken)]
            with path.open("rb") as file:
                answer = requests.post(f"{running.url}/predict", files={"file": file}, timeout=300)
            return is_good, answer, path

        process, memory = psutil.Process(running.process.pid), []
        for first, last in ((0, 100), (100, 200), (200, 300)):  # the first hundred warm everything up
            with ThreadPoolExecutor(16) as threads:
                answers = list(threads.map(one, range(first, last)))
            memory.append(process.memory_info().rss / 1e6)
            assert Counter(is_good for is_good, _, _ in answers) == {True: 90, False: 10}
            for is_good, answer, path in answers:
                assert answer.status_code == 200 if is_good else answer.status_code in (400, 422), answer.text
                if is_good:
                    shares = expected[str(path)]["probabilities"]
                    assert answer.json()["probabilities"] == pytest.approx(shares, abs=1e-9)
        assert memory[2] < memory[0] + 15, memory
        wait_for(lambda: not running.left())
        assert running.errors.read_text() == ""
        assert running.stop() == 0


@pytest.fixture
def running(run: Path, tmp_path: Path):
    """A server whose processes die or hang of some files."""
    preload = {"DASK_DISTRIBUTED__WORKER__PRELOAD": hazards.__file__}
    with server(tmp_path / "server", run, "--workers", 2, "--timeout", 60, **preload) as started:
        yield started


def test_files_and_signals_that_end_a_process_harm_no_other_request(running: ServerProcess, tmp_path: Path) -> None:
    song = write_clip(tmp_path / "song.wav", 20).read_bytes()
    late = SlowUpload(running, song)
    with ThreadPoolExecutor(8) as threads:
        # Killed while they decode: the requests are served by new processes.
        jobs = [threads.submit(running.predict, song) for _ in range(6)]
        wait_for(lambda: "mgc_admitted_requests 7.0" in running.ask("GET", "/metrics").text)
        killed = {worker.pid for worker in running.workers()}
        for worker in running.workers():
            worker.kill()
        assert [job.result().status_code for job in jobs] == [200] * 6
        assert {worker.pid for worker in running.workers()}.isdisjoint(killed)
        # Files that end or hang their process, among good ones.
        bad = {
            name: threads.submit(running.predict, name.encode() + bytes(99)) for name in ("deadly", "faulty", "endless")
        }
        good = [threads.submit(running.predict, song) for _ in range(4)]
        assert [job.result().status_code for job in good] == [200] * 4
        answers = {name: job.result() for name, job in bad.items()}
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "deadly": 422,
        "faulty": 422,
        "endless": 504,
    }
    assert late.status() == 408
    assert answers["deadly"].json()["reason"] == "crashed"
    wait_for(lambda: "mgc_admitted_requests 0.0" in running.ask("GET", "/metrics").text)
    assert running.predict(song).status_code == 200
    wait_for(lambda: not running.left())
    assert running.errors.read_text() == ""


def test_ctrl_c_in_a_terminal_lets_running_requests_finish(run: Path, tmp_path: Path) -> None:
    """The terminal sends SIGINT to the decoding processes, too."""
    song = write_clip(tmp_path / "song.wav", 20).read_bytes()
    with server(tmp_path / "server", run) as running, ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(running.predict, song) for _ in range(4)]
        wait_for(lambda: "mgc_admitted_requests 4.0" in running.ask("GET", "/metrics").text)
        for process in (psutil.Process(running.process.pid), *running.workers()):
            process.send_signal(signal.SIGINT)
        assert [job.result().status_code for job in jobs] == [200] * 4
        assert running.process.wait(timeout=60) == 0
        assert list(running.folder.glob("mgc-*")) == []
        assert running.errors.read_text() == ""


def test_a_second_signal_ends_the_server_at_once(run: Path, tmp_path: Path) -> None:
    """A client that never sends its second half does not hold it up."""
    song = write_clip(tmp_path / "song.wav", 20).read_bytes()
    with server(tmp_path / "server", run, "--workers", 1, "--timeout", 3000) as running:
        held = SlowUpload(running, song)
        wait_for(lambda: "mgc_admitted_requests 1.0" in running.ask("GET", "/metrics").text)
        running.process.terminate()
        wait_for(lambda: running.ask("GET", "/healthz").status_code == 503)
        assert running.stop() == 0
        held.give_up()
        assert list(running.folder.glob("mgc-*")) == []


def test_a_killed_server_leaves_no_process_and_its_folder_to_the_next(run: Path, tmp_path: Path, monkeypatch) -> None:
    with server(tmp_path, run) as running:
        workers = running.workers()
        assert workers
        running.process.kill()
        running.process.wait()
        assert psutil.wait_procs(workers, timeout=30)[1] == []
    [folder] = running.folder.glob("mgc-serve-*")
    monkeypatch.setattr("tempfile.tempdir", str(running.folder))
    with scratch_folder():
        assert not folder.exists()


def test_other_networks_are_warned_of(run: Path, tmp_path: Path) -> None:
    """There, any Host header is right."""
    with server(tmp_path, run, "--host", "0.0.0.0", "--workers", 1) as running:
        assert "WARNING: no authentication: whoever reaches http://0.0.0.0:" in running.errors.read_text()
        port = running.url.rpartition(":")[2]
        answer = requests.get(f"http://127.0.0.1:{port}/healthz", headers={"Host": "music.example"}, timeout=60)
        assert answer.ok
