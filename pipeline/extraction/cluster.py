"""Running tasks on Dask workers, so that a file that kills or hangs its worker costs only itself."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from mgc.pipeline.errors import MgcError
from mgc.pipeline.extraction.task import Task
from mgc.pipeline.storage.remote import RemotePath

if TYPE_CHECKING:
    from distributed import Client, Future

#: Tasks handed out per worker: one at work, one waiting. Scheduler and graph do not grow with the library. Of the last
#: so many none waits, since it would wait for one worker: they go to whoever is free.
TASKS_PER_WORKER = 2
#: A row that was being decoded when its worker died is tried once more: somebody else may have killed the worker.
DEATHS_ALLOWED = 1
#: Seconds without any worker after which nobody is expected to come.
WORKER_WAIT_S = 60
#: A cluster of our own that lacks workers is asked to replace them every so many seconds.
REPLACE_S = 3
#: Seconds between two looks at what workers are doing where each look is a request to an object store.
LOOK_S = 5
#: Seconds to wait for a worker that is started anew; it may take longer, but the others are not kept waiting for it.
RESTART_WAIT_S = 10
#: Seconds to wait for the result of a task that is done: a small table.
RESULT_WAIT_S = 10
#: Times a task is sent again for whatever reason before something is wrong with the machine rather than with a file.
MOST_ATTEMPTS = 150


@contextlib.contextmanager
def connect(workers: int, scheduler: str | None, echo: Callable[[str], None] = lambda line: None) -> Iterator[Client]:
    """A Dask client: of a scheduler that runs already, or of worker processes that end with the context.

    Args:
        workers: worker processes to start; a scheduler that runs already has its own.
        scheduler: its address.
        echo: gets lines for the user.

    Raises:
        MgcError: no scheduler answers at that address, or it has no workers.
    """
    import dask
    import distributed

    settings = {
        # Retries are ours: Dask would send a file that kills its worker to four of them.
        "distributed.scheduler.allowed-failures": 0,
        # One thread per library and worker, or processes multiply threads. Set before a worker's first import.
        "distributed.nanny.pre-spawn-environ.NUMBA_NUM_THREADS": 1,
        # Dask has glibc hand freed memory back at once, and so fetch and zero it again for every block of audio: 17,000
        # page faults a clip. What a worker holds is bounded anyway.
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 1 << 28,
        "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 1 << 28,
        "distributed.admin.system-monitor.disk": False,
        # Dask's clocks and samplers, which nobody looks at here, take 6 % of a processor as they come; so set, 1 %.
        "distributed.worker.profile.enabled": False,
        "distributed.worker.memory.monitor-interval": "1s",
        "distributed.admin.system-monitor.interval": "5s",
        "distributed.admin.tick.interval": "1s",
    }
    with dask.config.set(settings), contextlib.ExitStack() as stack:
        for name in ("distributed", "distributed.client", "distributed.utils", "distributed.comm"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is raised, and told in one line
        if scheduler is None:
            cluster = distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                # On any free port, or two runs at once quarrel aloud over 8787.
                dashboard_address="127.0.0.1:0",
                memory_limit=0,
                silence_logs=logging.CRITICAL,
            )
            stack.enter_context(cluster)
            client = stack.enter_context(distributed.Client(cluster))
            client.run(_quiet)
        else:
            try:
                asyncio.run(_greet(scheduler))
                client = stack.enter_context(distributed.Client(scheduler))
            except (OSError, ValueError) as error:
                problem = f"--scheduler {scheduler}: no Dask scheduler answers ({type(error).__name__})"
                raise MgcError(problem, "start one with `dask scheduler` or leave the option out") from None
            _inspect(client, scheduler, echo)
        if client.dashboard_link:
            echo(f"extract: Dask's dashboard is at {client.dashboard_link}")
        yield client


async def _greet(scheduler: str) -> None:
    """See that somebody answers. A client that finds nobody leaves a half-made one behind, whose end can deadlock."""
    from distributed.comm import connect

    comm = await connect(scheduler)
    await comm.close()


def _inspect(client: Client, scheduler: str, echo: Callable[[str], None]) -> None:
    """See that a foreign cluster can do the work, and say what it cannot do.

    Raises:
        MgcError: it has no workers.
    """
    try:
        client.wait_for_workers(1, timeout=WORKER_WAIT_S)
    except TimeoutError:
        raise MgcError(f"--scheduler {scheduler}: it has no workers", "start some with `dask worker`") from None
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if bare := sum(not worker["nanny"] for worker in workers):
        echo(f"{bare} of {len(workers)} workers have no nanny: a file that kills or hangs one of them ends it for good")


def _quiet() -> None:
    """Send what C libraries write to the worker's stderr (mpg123's notes on damaged files) nowhere."""
    import os

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


class Dispatcher:
    """Sends tasks out in a rolling window, and takes a task apart when its worker dies or hangs.

    Args:
        client: of the cluster.
        function: what a worker does with a task.
        timeout_s: seconds that one file may take.
    """

    def __init__(self, client: Client, function: Callable[[Task], pa.Table], timeout_s: float) -> None:
        self._client = client
        self._function = function
        self._timeout_s = timeout_s
        self._coming: Iterator[tuple[int, Task]] = iter(())
        self._unsent = 0
        self._waiting: deque[tuple[int, Task]] = deque()  # to be sent again, before those that are coming
        self._running: dict[Future, tuple[int, Task]] = {}
        self._seen: dict[int, tuple[tuple[int, str], float]] = {}  # row and worker at work and since when, by task
        self._deaths: Counter[tuple[int, int]] = Counter()
        self._attempts: Counter[int] = Counter()
        self._manned = time.monotonic()  # when there was a worker last
        self._looked = self._manned  # when it was seen last what workers are doing
        self._replaced = self._manned  # when the cluster was asked last to replace those that are lost

    def run(self, tasks: Iterable[Task], count: int) -> Iterator[tuple[Task, pa.Table]]:
        """Yield each task with its result, as they finish. Tasks are asked for when there is room for them.

        Args:
            tasks: what to do.
            count: how many they are.

        Raises:
            MgcError: the scheduler is gone, or all workers are.
            Exception: what a task raised, other than the death of its worker.
        """
        import distributed

        lost = (distributed.CancelledError, distributed.comm.CommClosedError)
        self._coming, self._unsent = enumerate(tasks), count
        try:
            self._fill()
            while self._running:
                with contextlib.suppress(TimeoutError):
                    distributed.wait(list(self._running), timeout=0.5, return_when="FIRST_COMPLETED")
                for future in [future for future in self._running if future.done()]:
                    number, task = self._running[future]
                    error = future.exception() if future.status == "error" else None
                    if future.status == "finished":
                        try:
                            made = future.result(timeout=RESULT_WAIT_S)
                        except TimeoutError:  # its worker died with it: the scheduler has it made again by the next one
                            continue
                        self._forget(future, number)
                        yield task, made
                    elif error is None or isinstance(error, distributed.scheduler.KilledWorker):
                        self._forget(future, number)
                        self._bury(number, task)
                    else:
                        raise error
                self._watch()
                self._fill()
        except lost:
            raise MgcError("the connection to the Dask scheduler was lost", "the same command continues") from None
        finally:
            with contextlib.suppress(*lost):
                self._client.cancel(list(self._running), force=True)

    def _forget(self, future: Future, number: int) -> None:
        del self._running[future]
        self._seen.pop(number, None)

    def _fill(self) -> None:
        workers = len(self._client.scheduler_info(n_workers=-1)["workers"])
        self._replace(workers)
        if workers:
            self._manned = time.monotonic()
        elif time.monotonic() - self._manned > WORKER_WAIT_S:
            raise MgcError("all workers of the cluster are gone", "start new ones; the same command continues")
        at_once = max(1, workers)
        ahead = TASKS_PER_WORKER * at_once
        while self._unsent and len(self._running) < (ahead if self._unsent > ahead else at_once):
            number, task = self._waiting.popleft() if self._waiting else next(self._coming)
            self._unsent -= 1
            self._running[self._client.submit(self._function, task, pure=False, retries=0)] = number, task

    def _replace(self, workers: int) -> None:
        """Have a cluster of our own start anew what has left it for good, as a nanny does that is told to end itself.

        It takes a worker for lost after `distributed.deploy.lost-worker-timeout`, and does nothing about it unasked.
        """
        cluster, now = self._client.cluster, time.monotonic()
        if cluster is not None and workers < len(cluster.worker_spec) and now - self._replaced > REPLACE_S:
            self._replaced = now
            cluster.scale(len(cluster.worker_spec))

    def _bury(self, number: int, task: Task) -> None:
        """The worker died: what it was decoding is suspect, and condemned the second time."""
        at_work = _at_work(task)
        if at_work is not None:
            row, _ = at_work
            self._deaths[number, row] += 1
            if self._deaths[number, row] > DEATHS_ALLOWED:
                task = _condemn(task, row, "crashed")
        self._again(number, task)

    def _again(self, number: int, task: Task) -> None:
        self._attempts[number] += 1
        if self._attempts[number] > MOST_ATTEMPTS:
            raise MgcError("workers keep dying", "check the memory of the machine, or use fewer --workers")
        task.heartbeat_path.unlink(missing_ok=True)
        self._waiting.appendleft((number, task))
        self._unsent += 1

    def _watch(self) -> None:
        """Restart workers whose file has taken too long; by our own clock, since theirs may differ."""
        now = time.monotonic()
        far = any(isinstance(task.heartbeat_path, RemotePath) for _, task in self._running.values())
        if far and now - self._looked < LOOK_S:
            return
        self._looked = now
        for future, (number, task) in list(self._running.items()):
            at_work = _at_work(task)
            if at_work is None:
                continue
            stage, since = self._seen.get(number, (None, now))
            if stage != at_work:
                self._seen[number] = at_work, now
            elif now - since > self._timeout_s:
                row, worker = at_work
                # A dead one has not: a foreign scheduler sends its task to another, which has not begun with it yet.
                if future.key not in self._client.processing().get(worker, ()):
                    self._seen[number] = at_work, now
                    continue
                self._forget(future, number)
                self._client.cancel([future], force=True)
                # A worker that holds the GIL hears nothing: only ending its process helps.
                try:
                    self._client.restart_workers([worker], timeout=RESTART_WAIT_S, raise_for_error=False)
                except ValueError:
                    path = task.tracks["path"][row].as_py()
                    problem = f"{path}: decoding it takes more than {self._timeout_s:g} s, and its worker has no nanny"
                    raise MgcError(problem, "start the workers with nannies, or raise --timeout") from None
                self._manned = time.monotonic()  # a restart that takes its time is no time without workers
                self._again(number, _condemn(task, row, "timeout"))


def _at_work(task: Task) -> tuple[int, str] | None:
    """The row that is being decoded, or was when its worker died, and the worker's address."""
    try:
        row, worker = task.heartbeat_path.read_bytes().decode().split()
        return int(row), worker
    except (OSError, ValueError):
        return None


def _condemn(task: Task, row: int, verdict: str) -> Task:
    return dataclasses.replace(task, failures=task.failures | {row: verdict})
