"""Dispatch of tasks to Dask workers: a file that kills or hangs its worker is dropped, all other files are decoded."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from mgc.pipeline.errors import MgcError
from mgc.pipeline.extraction import cluster
from mgc.pipeline.extraction.task import Task, read_heartbeat
from mgc.pipeline.storage.remote import RemotePath

if TYPE_CHECKING:
    from distributed import Client, Future

#: Tasks sent ahead per worker: one that it executes and one that waits, so Dask's graph does not grow with the dataset.
#: The last tasks, as many as this window holds, are sent only when a worker is free: a waiting task is tied to one
#: worker.
TASKS_PER_WORKER = 2
#: Worker deaths while decoding a track after which the track is tried again. It may not be the track's fault: another
#: process can have killed the worker.
DEATHS_ALLOWED = 1
#: Seconds between two requests to a local cluster to replace the workers that it lacks.
REPLACE_INTERVAL_S = 3
#: Seconds between two looks at the heartbeats, if they are objects: each look is one request per task.
REMOTE_POLL_S = 5
#: Seconds to wait for a worker to restart. It may take longer, but then the other workers' tasks are served first.
RESTART_WAIT_S = 10
#: Seconds to wait for the result of a finished task, a small table.
RESULT_WAIT_S = 10
#: Times that a task is sent, for whatever reason, before the run gives up: the machine is at fault then, not a file.
MAX_ATTEMPTS = 150


class Dispatcher:
    """Sends tasks to Dask workers in a rolling window, and sends a task again if its worker dies or hangs.

    A track that was being decoded when its worker died is tried once more; if the worker dies again, the track is
    dropped as `crashed`. A track that takes longer than the time limit is dropped as `timeout` at once.

    Args:
        client: client of the cluster.
        function: function that a worker calls with a task; returns a small table.
        timeout_s: time limit for one track in seconds.
    """

    def __init__(self, client: Client, function: Callable[[Task], pa.Table], timeout_s: float) -> None:
        self._client = client
        self._function = function
        self._timeout_s = timeout_s
        self._tasks: Iterator[tuple[int, Task]] = iter(())  # tasks that were never sent, with their numbers
        self._n_unsent = 0
        self._resend: deque[tuple[int, Task]] = deque()  # tasks to be sent again, before those that were never sent
        self._running: dict[Future, tuple[int, Task]] = {}
        # By task number: the last heartbeat (row and worker), and when it was first seen.
        self._heartbeats: dict[int, tuple[tuple[int, str], float]] = {}
        self._deaths: Counter[tuple[int, int]] = Counter()  # by task number and row
        self._attempts: Counter[int] = Counter()  # by task number
        self._advance: Callable[[int], object] = lambda n_tracks: None
        self._counted: Counter[int] = Counter()  # tracks of each task that `_advance` was called for, by task number
        # Times on this process's monotonic clock:
        self._last_worker_at = time.monotonic()  # there was at least one worker
        self._last_poll_at = self._last_worker_at  # the heartbeats were read
        self._last_replacement_at = self._last_worker_at  # the cluster was asked to replace lost workers

    def run(
        self, tasks: Iterable[Task], count: int, advance: Callable[[int], object] = lambda n_tracks: None
    ) -> Iterator[tuple[Task, pa.Table]]:
        """Execute tasks and yield each with its result as they finish.

        Args:
            tasks: the tasks; the next one is taken when there is room in the window.
            count: number of tasks.
            advance: function that is called with the number of tracks that were finished since the last call, while
                tasks run. The numbers are positive, and their sum is the number of tracks of all tasks.

        Raises:
            MgcError: the connection to the scheduler is lost, no worker is left, or tasks keep killing their workers.
            Exception: an exception that the function raised, other than the death of its worker.
        """
        import distributed

        connection_lost = (distributed.CancelledError, distributed.comm.CommClosedError)
        self._tasks, self._n_unsent, self._advance = enumerate(tasks), count, advance
        try:
            self._fill_window()
            while self._running:
                with contextlib.suppress(TimeoutError):
                    distributed.wait(list(self._running), timeout=0.5, return_when="FIRST_COMPLETED")
                for future in [future for future in self._running if future.done()]:
                    number, task = self._running[future]
                    error = future.exception() if future.status == "error" else None
                    if future.status == "finished":
                        try:
                            result = future.result(timeout=RESULT_WAIT_S)
                        except TimeoutError:  # the worker died with the result: the scheduler runs the task elsewhere
                            continue
                        self._remove(future, number)
                        self._report(number, len(task.tracks))
                        del self._counted[number]
                        yield task, result
                    elif error is None or isinstance(error, distributed.scheduler.KilledWorker):
                        self._remove(future, number)
                        self._handle_death(number, task)
                    else:
                        raise error
                self._restart_hung_workers()
                self._fill_window()
        except connection_lost:
            problem = "the connection to the Dask scheduler was lost"
            raise MgcError(problem, "run the same command again: it continues") from None
        finally:
            with contextlib.suppress(*connection_lost):
                self._client.cancel(list(self._running), force=True)

    def _remove(self, future: Future, number: int) -> None:
        del self._running[future]
        self._heartbeats.pop(number, None)

    def _report(self, number: int, n_tracks: int) -> None:
        """Report that the first tracks of a task are finished, unless that was reported before.

        A task that was sent again starts at its first track; nothing is reported until it exceeds what it had reached.
        """
        step = n_tracks - self._counted[number]
        if step > 0:
            self._counted[number] = n_tracks
            self._advance(step)

    def _fill_window(self) -> None:
        """Send tasks until the window is full.

        Raises:
            MgcError: there has been no worker for `cluster.WORKER_WAIT_S` seconds.
        """
        n_workers = len(self._client.scheduler_info(n_workers=-1)["workers"])
        self._replace_lost_workers(n_workers)
        if n_workers:
            self._last_worker_at = time.monotonic()
        elif time.monotonic() - self._last_worker_at > cluster.WORKER_WAIT_S:
            raise MgcError(
                "all workers of the cluster are gone", "start new ones and run the same command again: it continues"
            )
        at_once = max(1, n_workers)
        window = TASKS_PER_WORKER * at_once
        while self._n_unsent and len(self._running) < (window if self._n_unsent > window else at_once):
            number, task = self._resend.popleft() if self._resend else next(self._tasks)
            self._n_unsent -= 1
            self._running[self._client.submit(self._function, task, pure=False, retries=0)] = number, task

    def _replace_lost_workers(self, n_workers: int) -> None:
        """Ask a local cluster to start new workers for those that have left it for good.

        A worker leaves if its nanny ends: a cluster considers it lost after `distributed.deploy.lost-worker-timeout`,
        but does not replace it by itself.
        """
        local_cluster, now = self._client.cluster, time.monotonic()
        if local_cluster is None or n_workers >= len(local_cluster.worker_spec):
            return
        if now - self._last_replacement_at > REPLACE_INTERVAL_S:
            self._last_replacement_at = now
            local_cluster.scale(len(local_cluster.worker_spec))

    def _handle_death(self, number: int, task: Task) -> None:
        """Send a task again whose worker died; drop the track that it was decoding if that has happened before."""
        heartbeat = read_heartbeat(task)
        if heartbeat is not None:
            row, _ = heartbeat
            self._deaths[number, row] += 1
            if self._deaths[number, row] > DEATHS_ALLOWED:
                task = _with_failure(task, row, "crashed")
        self._send_again(number, task)

    def _send_again(self, number: int, task: Task) -> None:
        """Queue a task to be sent again.

        Raises:
            MgcError: it has been sent `MAX_ATTEMPTS` times.
        """
        self._attempts[number] += 1
        if self._attempts[number] > MAX_ATTEMPTS:
            raise MgcError("workers keep dying", "check the memory of the machine, or use fewer --workers")
        task.heartbeat_path.unlink(missing_ok=True)
        self._resend.appendleft((number, task))
        self._n_unsent += 1

    def _restart_hung_workers(self) -> None:
        """Restart workers that exceed the time limit for one track, and send their tasks again without that track.

        The time is that of this process's clock, since the clocks of other machines may differ.

        Raises:
            MgcError: a hung worker has no nanny and so cannot be restarted.
        """
        now = time.monotonic()
        remote = any(isinstance(task.heartbeat_path, RemotePath) for _, task in self._running.values())
        if remote and now - self._last_poll_at < REMOTE_POLL_S:
            return
        self._last_poll_at = now
        for future, (number, task) in list(self._running.items()):
            heartbeat = read_heartbeat(task)
            if heartbeat is None:
                continue
            self._report(number, min(heartbeat[0], len(task.tracks)))
            previous, since = self._heartbeats.get(number, (None, now))
            if previous != heartbeat:
                self._heartbeats[number] = heartbeat, now
            elif now - since > self._timeout_s:
                row, worker = heartbeat
                # The scheduler of a running cluster may have sent the task of a dead worker to another one, which has
                # not written a heartbeat yet: this one is the dead worker's.
                if future.key not in self._client.processing().get(worker, ()):
                    self._heartbeats[number] = heartbeat, now
                    continue
                self._remove(future, number)
                self._client.cancel([future], force=True)
                # A worker that holds the GIL does not react to Dask's messages: only ending its process helps.
                try:
                    self._client.restart_workers([worker], timeout=RESTART_WAIT_S, raise_for_error=False)
                except ValueError:
                    path = task.tracks["path"][row].as_py()
                    problem = f"{path}: decoding it takes more than {self._timeout_s:g} s, and its worker has no nanny"
                    raise MgcError(problem, "start the workers with nannies, or raise --timeout") from None
                self._last_worker_at = time.monotonic()  # a slow restart does not count as time without workers
                self._send_again(number, _with_failure(task, row, "timeout"))


def _with_failure(task: Task, row: int, reason: str) -> Task:
    """Return the task with a track that is not to be decoded again."""
    return dataclasses.replace(task, failures=task.failures | {row: reason})
