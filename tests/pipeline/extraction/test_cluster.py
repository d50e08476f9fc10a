"""Workers that die or hang, clusters that the user started, and clusters that do not answer."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import hazards
import pytest
import slow_reading
import stalling
import tardy
from clusters import end, foreign_cluster, networked_cluster
from commands import MGC, Outcome, mgc, mgc_process, tree
from music import write_clip, write_genres

from mgc.pipeline.datasets.tracks import DATASET_SCHEMA, MANIFEST_SCHEMA
from mgc.pipeline.errors import MgcError
from mgc.pipeline.extraction import cluster, dispatcher
from mgc.pipeline.extraction.task import Heartbeat, Target, Task
from mgc.pipeline.store.store import Store

HAZARDS = {"DASK_DISTRIBUTED__WORKER__PRELOAD": hazards.__file__}
FEATURE = "stft:n_fft=512"


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips, and for workers with the hazards loaded two files that kill and one that hangs them."""
    folder = tmp_path_factory.mktemp("music") / "songs"
    write_genres(folder, tracks=6, seconds=0.6)
    write_clip(folder / "blues" / "deadly.wav", seed=1000)
    write_clip(folder / "blues" / "faulty.wav", seed=1001)
    write_clip(folder / "disco" / "endless.wav", seed=1002)
    return folder


def arguments(songs: Path, data: Path, *options: object) -> tuple:
    where = ("--dataset", songs, "--data-dir", data)
    return ("extract", *where, "--json", "--feature", FEATURE, "--slice", "0.4", *options)


@pytest.fixture(scope="module")
def harmless(songs: Path, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the clips, extracted by workers without hazards on a running cluster."""
    data = tmp_path_factory.mktemp("harmless")
    report = mgc(*arguments(songs, data, "--scheduler", scheduler)).json["stores"][0]
    assert report["ok"] == 15
    return Path(report["store"])


def frames(path: Path) -> dict[str, bytes]:
    """Stored frames of each track in use, by track id."""
    store = Store.open(path)
    shards = {shard: store.read(shard) for shard in store.fragments()}
    rows = [row for row in store.tracks.to_pylist() if row["status"] == "ok"]
    return {
        row["track_id"]: shards[row["shard"]][row["first_frame"] : row["first_frame"] + row["n_frames"]].tobytes()
        for row in rows
    }


@contextlib.contextmanager
def occupied(port: int) -> Iterator[None]:
    """Make sure that some process, this one or another, listens on a port."""
    with socket.socket() as listener:
        with contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            listener.listen()
        yield


def test_tasks_are_made_as_they_are_sent(harmless, scheduler):
    """No more tasks exist at once than the workers have in hand, whatever the size of the dataset."""
    task = Task("", MANIFEST_SCHEMA.empty_table(), [Target(Store.open(harmless), [(0, 0, 0)])])
    n_tasks = 0

    def tasks() -> Iterator[Task]:
        nonlocal n_tasks
        for _ in range(40):
            n_tasks += 1
            yield task

    with cluster.connect(1, scheduler) as client:
        window = dispatcher.TASKS_PER_WORKER * len(client.scheduler_info(n_workers=-1)["workers"])
        results = dispatcher.Dispatcher(client, str, 10).run(tasks(), 40)
        ahead = [n_tasks - n_results for n_results, _ in enumerate(results, 1)]
    assert len(ahead) == 40
    assert 0 < max(ahead) <= window


def test_the_last_tasks_go_to_whoever_is_free(harmless, scheduler):
    """None of them waits for a worker that is busy while another one is idle."""
    n_tasks = 0

    def work(task: Task) -> int:
        time.sleep(task.max_duration)
        return os.getpid()

    def tasks() -> Iterator[Task]:
        nonlocal n_tasks
        target = Target(Store.open(harmless), [(0, 0, 0)])
        for seconds in (2, 0.1, 0.1, 0.1):
            n_tasks += 1
            yield Task("", MANIFEST_SCHEMA.empty_table(), [target], max_duration=seconds)

    with cluster.connect(2, scheduler) as client:
        assert len(client.scheduler_info(n_workers=-1)["workers"]) == 2
        results = [(pid, n_tasks) for _, pid in dispatcher.Dispatcher(client, work, 10).run(tasks(), 4)]
    assert results[0][1] == 2  # two tasks existed when the first result came
    assert results[0][0] == results[1][0] == results[2][0] != results[3][0]


@pytest.mark.parametrize(
    ("bokeh", "show", "is_shown"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_the_dashboard_is_named_where_it_works_and_the_work_is_long(bokeh, show, is_shown, scheduler, monkeypatch):
    """Dask's dashboard needs bokeh; without it, the address answers with an error."""
    find_spec = importlib.util.find_spec
    found = object() if bokeh else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "bokeh" else find_spec(name))
    lines: list[str] = []
    with cluster.connect(None, scheduler, lines.append, show_dashboard=show) as client:
        shown = [f"extract: Dask's dashboard is at {client.dashboard_link}"] if is_shown else []
    assert lines == shown


@pytest.mark.slow
class TestCountOfFinishedTracks:
    """Tracks are counted while their task runs; a task that is sent again counts none of them twice."""

    @pytest.mark.parametrize("killed", [False, True])
    def test_increments_come_before_the_first_task_ends_and_sum_to_the_total(
        self, killed, songs, harmless, tmp_path, scheduler
    ):
        store = Store.open(harmless)
        tracks = store.tracks.select(DATASET_SCHEMA.names)
        steps: list[int] = []
        flag = tmp_path / "killed"

        def work(task: Task) -> int:
            with Heartbeat(task.heartbeat_path) as heartbeat:
                for row in range(len(task.tracks)):
                    heartbeat.record(row)
                    time.sleep(0.1)
                    if killed and row == 10 and task.max_duration == 0 and not flag.exists():
                        flag.touch()
                        os.kill(os.getpid(), signal.SIGKILL)
            return len(task.tracks)

        tasks = [
            Task("", tracks, [Target(store, [(shard, 0, 0)])], max_duration=shard, heartbeat_folder=str(tmp_path))
            for shard in range(2)
        ]
        running = foreign_cluster(tmp_path) if killed else contextlib.nullcontext(scheduler)
        with running as address, cluster.connect(2, address) as client:
            results = dispatcher.Dispatcher(client, work, 10).run(tasks, 2, steps.append)
            when_done = [len(steps) for _ in results]
        assert flag.exists() == killed
        assert when_done[0] > 3
        assert min(steps) > 0
        assert sum(steps) == 2 * len(tracks) == 30


class TestHazards:
    """A file that kills or hangs its worker is dropped; all others are extracted."""

    def check(self, outcome: Outcome, harmless: Path) -> None:
        assert outcome.code == 0, outcome.err
        report: dict[str, Any] = outcome.json["stores"][0]
        reasons = {row["track_id"]: row["reason"] for row in report["dropped_tracks"]}
        assert reasons == {"blues/deadly": "crashed", "blues/faulty": "crashed", "disco/endless": "timeout"}
        manifest = {row["track_id"]: row for row in Store.open(Path(report["store"])).tracks.to_pylist()}
        for track_id, reason in reasons.items():
            row = manifest[track_id]
            assert (row["status"], row["reason"], row["n_frames"], row["duration_s"]) == ("dropped", reason, 0, None)
            assert row["detail"]
        stored, expected = frames(Path(report["store"])), frames(harmless)
        assert stored == {track_id: expected[track_id] for track_id in expected if track_id not in reasons}
        assert mgc("verify", report["store"]).code == 0

    @pytest.mark.slow
    @pytest.mark.parametrize("workers", [1, 2])
    def test_on_workers_of_its_own(self, workers, songs, harmless, tmp_path):
        command = arguments(songs, tmp_path / "data", "--workers", workers, "--timeout", 3)
        with occupied(8787):  # Dask's default port for its dashboard: it would print a warning
            outcome = mgc_process(*command, **HAZARDS)
        self.check(outcome, harmless)
        assert all(line.startswith(("extract: ", "stft-")) for line in outcome.err.splitlines()), outcome.err
        again = mgc(*arguments(songs, tmp_path / "data", "--scheduler", "tcp://127.0.0.1:1"))
        assert again.json["stores"][0]["decoded"] == 0

    @pytest.mark.slow
    def test_a_worker_that_is_long_in_coming_back_is_replaced(self, tmp_path):
        """Its nanny is closed while it is still starting the worker: a new nanny replaces it."""
        (starts := tmp_path / "starts").mkdir()
        preload = {"DASK_DISTRIBUTED__WORKER__PRELOAD": str([tardy.__file__, hazards.__file__]), "TARDY": str(starts)}
        write_genres(tmp_path / "few", tracks=2, seconds=0.6)
        write_clip(tmp_path / "few" / "disco" / "endless.wav", seed=1000)
        command = arguments(tmp_path / "few", tmp_path / "data", "--workers", 1, "--timeout", 3)
        outcome = mgc_process(*command, **preload)
        assert outcome.code == 0, outcome.err
        assert [row["reason"] for row in outcome.json["stores"][0]["dropped_tracks"]] == ["timeout"]
        assert len(list(starts.iterdir())) >= 3

    @pytest.mark.slow
    def test_on_a_foreign_cluster(self, songs, harmless, tmp_path):
        """Its scheduler sends a deadly file to several workers before it gives up: four by default, here two."""
        settings = HAZARDS | {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
        with foreign_cluster(tmp_path, nannies=True, environment=settings) as address:
            self.check(mgc(*arguments(songs, tmp_path / "data", "--scheduler", address, "--timeout", 3)), harmless)


class TestForeignCluster:
    def test_a_relative_path_means_the_same_to_its_workers(self, songs, harmless, scheduler, tmp_path, monkeypatch):
        """Its workers run in other folders."""
        monkeypatch.chdir(tmp_path)
        outcome = mgc(*arguments(songs, Path("here"), "--scheduler", scheduler))
        assert outcome.code == 0, outcome.err
        assert outcome.json["stores"][0]["store"] == f"here/features/songs/{harmless.name}"
        assert tree(tmp_path / "here" / "features" / "songs" / harmless.name) == tree(harmless)

    @pytest.mark.slow
    def test_a_host_that_is_lost_in_the_middle_costs_nothing(self, songs, harmless, tmp_path):
        """Two hosts, each in its own network; one dies while it is decoding."""
        flag = tmp_path / "held"
        stall = {
            "process": "worker",
            "at": "mgc.pipeline.extraction.reading:inspect",
            "call": 2,
            "after": True,
            "flag": str(flag),
        }
        stalled = {"STALL": json.dumps(stall), "DASK_DISTRIBUTED__WORKER__PRELOAD": stalling.__file__}
        with networked_cluster(tmp_path, [{}, stalled]) as (address, (_, lost)):
            command = [MGC, *map(str, arguments(songs, tmp_path / "data", "--scheduler", address))]
            running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            while not flag.exists():
                assert running.poll() is None, running.communicate()
                time.sleep(0.01)
            end(lost)
            out, err = running.communicate(timeout=100)
        assert running.returncode == 0, err
        assert tree(Path(json.loads(out)["stores"][0]["store"])) == tree(harmless)

    @pytest.mark.slow
    def test_workers_whose_lifetime_ends_lose_no_shard(self, scheduler, tmp_path):
        """As batch systems end them: each worker leaves after some seconds, with its task, and another one comes."""
        songs = write_genres(tmp_path / "songs", tracks=60, seconds=0.6)
        expected = mgc(*arguments(songs, tmp_path / "calm", "--scheduler", scheduler)).json["stores"][0]
        slow = {"DASK_DISTRIBUTED__WORKER__PRELOAD": slow_reading.__file__}
        lifetime = ("--lifetime", "9 s", "--lifetime-stagger", "2 s", "--lifetime-restart")
        with foreign_cluster(tmp_path, environment=slow, options=lifetime) as address:
            outcome = mgc(*arguments(songs, tmp_path / "ending", "--scheduler", address))
        assert outcome.code == 0, outcome.err
        [actual] = outcome.json["stores"]
        assert actual["ok"] == expected["ok"] == 120
        assert tree(Path(actual["store"])) == tree(Path(expected["store"]))
        assert (tmp_path / "log").read_text().count("Reason: worker-lifetime-reached") >= 2

    @pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tcp://nobody.invalid:8786", "smoke://signals", "8786"])
    def test_nobody_there(self, address, songs, tmp_path, monkeypatch):
        monkeypatch.setattr(cluster, "CONNECT_WAIT_S", 1)
        outcome = mgc(*arguments(songs, tmp_path / "data", "--scheduler", address))
        assert outcome.code == 1
        assert outcome.err.startswith(f"extract: connecting to {address} (gives up after 1 s)\n")
        assert outcome.error.startswith(f"--scheduler {address}: no Dask scheduler answers (")
        assert outcome.error.endswith("; start one with `dask scheduler` or leave the option out")
        assert tree(tmp_path) == {}

    @pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
    def test_a_port_of_another_service_is_given_up_in_time(self, answer, songs, tmp_path, monkeypatch):
        """One that accepts and says nothing, and a web server."""
        monkeypatch.setattr(cluster, "CONNECT_WAIT_S", 1)
        given_up = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve() -> None:
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    connection.sendall(answer)
                    given_up.wait()  # the connection stays open until the command has ended

            threading.Thread(target=serve, daemon=True).start()
            address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
            outcome = mgc(*arguments(songs, tmp_path / "data", "--scheduler", address))
            given_up.set()
        assert outcome.error.startswith(f"--scheduler {address}: no Dask scheduler answers (")
        assert tree(tmp_path) == {}

    @pytest.mark.parametrize("option", ["--rebuild", "--verify"])
    def test_a_store_stays_as_it_is_if_nobody_is_there(self, option, songs, harmless, tmp_path, monkeypatch):
        """With work to do: a store that would be emptied, and one that has lost a shard."""
        monkeypatch.setattr(cluster, "CONNECT_WAIT_S", 1)
        store = shutil.copytree(harmless, tmp_path / "data" / "features" / "songs" / harmless.name)
        if option == "--verify":
            (store / "shards" / "00000.zarr" / "stft" / "c" / "0" / "0").unlink()
        before = tree(store)
        outcome = mgc(*arguments(songs, tmp_path / "data", "--scheduler", "tcp://127.0.0.1:1", option))
        assert outcome.code == 1
        assert tree(store) == before

    def test_nothing_to_decode_needs_no_scheduler(self, songs, harmless, tmp_path):
        shutil.copytree(harmless, tmp_path / "data" / "features" / "songs" / harmless.name)
        outcome = mgc(*arguments(songs, tmp_path / "data", "--scheduler", "tcp://127.0.0.1:1"))
        assert outcome.json["stores"][0]["decoded"] == 0
        assert "connecting" not in outcome.err

    def test_without_workers(self, songs, tmp_path, monkeypatch):
        monkeypatch.setattr(cluster, "WORKER_WAIT_S", 0.5)
        (tmp_path / "dask").mkdir()
        with foreign_cluster(tmp_path / "dask", workers=0) as address:
            outcome = mgc(*arguments(songs, tmp_path / "data", "--scheduler", address))
        assert outcome.code == 1
        assert f"extract: {address} has no workers yet: waiting 0.5 s for one\n" in outcome.err
        assert outcome.error == f"--scheduler {address}: it has no workers; start some with `dask worker`"
        assert tree(tmp_path / "data") == {}

    @pytest.mark.slow
    def test_without_nannies_a_hanging_file_ends_the_run_with_its_name(self, songs, tmp_path):
        clips = write_genres(tmp_path / "clips", tracks=3)
        write_clip(clips / "disco" / "endless.wav", seed=1000)
        with foreign_cluster(tmp_path, workers=1, nannies=False, environment=HAZARDS) as address:
            outcome = mgc(*arguments(clips, tmp_path / "data", "--scheduler", address, "--timeout", 2))
        assert outcome.code == 1
        assert "1 of 1 workers have no nanny: a file that kills or hangs one of them ends it for good" in outcome.err
        assert outcome.err.splitlines()[-1] == (
            "error: disco/endless.wav: decoding it takes more than 2 s, and its worker has no nanny; "
            "start the workers with nannies, or raise --timeout"
        )

    @pytest.mark.slow
    def test_without_nannies_a_deadly_file_leaves_nobody(self, songs, tmp_path, monkeypatch):
        monkeypatch.setattr(cluster, "WORKER_WAIT_S", 3)
        clips = write_genres(tmp_path / "clips", tracks=3)
        write_clip(clips / "disco" / "deadly.wav", seed=1000)
        with foreign_cluster(tmp_path, workers=1, nannies=False, environment=HAZARDS) as address:
            outcome = mgc(*arguments(clips, tmp_path / "data", "--scheduler", address))
        assert outcome.code == 1
        assert outcome.err.splitlines()[-1] == (
            "error: all workers of the cluster are gone; start new ones and run the same command again: it continues"
        )

    @pytest.mark.slow
    def test_a_result_that_dies_with_its_worker_is_not_waited_for(self, harmless, tmp_path, monkeypatch):
        monkeypatch.setattr(cluster, "WORKER_WAIT_S", 3)
        monkeypatch.setattr(dispatcher, "RESULT_WAIT_S", 1)
        wait = distributed.wait

        task = Task("", MANIFEST_SCHEMA.empty_table(), [Target(Store.open(harmless), [(0, 0, 0)])])
        with foreign_cluster(tmp_path, workers=1, nannies=False) as address, distributed.Client(address) as client:
            (worker,) = client.run(os.getpid).values()

            def wait_and_kill(futures: list[distributed.Future], **how: Any) -> Any:
                done = wait(futures, **how)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
                return done

            monkeypatch.setattr(distributed, "wait", wait_and_kill)
            with pytest.raises(MgcError, match="all workers of the cluster are gone"):
                list(dispatcher.Dispatcher(client, str, 10).run([task], 1))

    @pytest.mark.slow
    def test_a_scheduler_that_goes_away_ends_the_run_in_one_line(self, tmp_path):
        clips = write_genres(tmp_path / "clips", tracks=3)
        write_clip(clips / "disco" / "endless.wav", seed=1000)
        with foreign_cluster(tmp_path, workers=1, environment=HAZARDS) as address:
            with distributed.Client(address) as client:
                scheduler = client.run_on_scheduler(os.getpid)
            command = [MGC, *arguments(clips, tmp_path / "data", "--scheduler", address)]
            running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            while not list(tmp_path.glob("data/features/*/*/shards/.tmp-*.row")):
                assert running.poll() is None
                time.sleep(0.01)
            os.kill(scheduler, signal.SIGKILL)
            _, stderr = running.communicate(timeout=60)
        assert running.returncode == 1
        lines = [line for line in stderr.splitlines() if not line.startswith("extract: ")]
        assert lines == [
            "error: the connection to the Dask scheduler was lost; run the same command again: it continues"
        ]
