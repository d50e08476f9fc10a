"""The Dask cluster of an extraction: worker processes on this machine, or a scheduler that is already running."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import multiprocessing
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mgc.pipeline.errors import MgcError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

#: Seconds without an answer from the scheduler after which the run gives up.
CONNECT_WAIT_S = 10
_GUARD_REMEDY = 'in a script, call this below `if __name__ == "__main__":`'
#: Seconds without any worker after which the run gives up.
WORKER_WAIT_S = 60


@contextlib.contextmanager
def connect(
    workers: int | None,
    scheduler: str | None,
    echo: Callable[[str], None] = lambda line: None,
    *,
    show_dashboard: bool = False,
    preload: str | None = None,
) -> Iterator[Client]:
    """Connect to a running Dask scheduler, or start worker processes that end with the context.

    Args:
        workers: number of worker processes to start; not used if `scheduler` is given.
        scheduler: address of a running scheduler; None starts a local cluster.
        echo: function that prints a line for the user.
        show_dashboard: print the address of Dask's dashboard, if bokeh is installed.
        preload: module that worker processes import, and whose `dask_setup` they call, before they are ready.

    Yields:
        The Dask client.

    Raises:
        MgcError: no scheduler answers at the address, or it has no workers; or worker processes do not start.
    """
    # A worker process imports the script that starts it. Without the usual guard it would start workers in turn.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise MgcError("a worker process runs the script that has started it", _GUARD_REMEDY)
    import dask
    import distributed

    settings: dict[str, Any] = {
        # `Dispatcher` retries tasks. Dask would let a file that kills its worker kill three others, too.
        "distributed.scheduler.allowed-failures": 0,
        # One thread per library and worker, since processes multiply threads. Set before a worker imports Numba.
        "distributed.nanny.pre-spawn-environ.NUMBA_NUM_THREADS": 1,
        # By default Dask makes glibc return freed memory at once, so every block of audio gets fresh, zeroed pages:
        # 17,000 page faults a clip. The memory of a worker is bounded without that.
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 1 << 28,
        "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 1 << 28,
        # Scheduler and client keep their last messages, tasks included: 1,000 of them by default, some 40 kB each.
        "distributed.admin.low-level-log-length": 50,
        "distributed.admin.system-monitor.disk": False,
        # Dask's timers and profiler, which are not needed here, take 6 % of a processor by default; so set, 1 %.
        "distributed.worker.profile.enabled": False,
        "distributed.worker.memory.monitor-interval": "1s",
        "distributed.admin.system-monitor.interval": "5s",
        "distributed.admin.tick.interval": "1s",
    }
    if preload is not None:
        others = dask.config.get("distributed.worker.preload", [])
        settings["distributed.worker.preload"] = [*([others] if isinstance(others, str) else others), preload]
    with dask.config.set(settings), contextlib.ExitStack() as stack:
        _silence_logs()
        if scheduler is None:
            cluster = stack.enter_context(_start(workers))
            client = stack.enter_context(distributed.Client(cluster))
            client.run(silence_stderr)
        else:
            client = stack.enter_context(_connect_running(scheduler))
            _require_workers(client, scheduler, echo)
            _note_missing_nannies(client, echo)
        # Without bokeh, the address answers with an error page.
        if show_dashboard and client.dashboard_link and importlib.util.find_spec("bokeh"):
            echo(f"extract: Dask's dashboard is at {client.dashboard_link}")
        yield client


def _start(workers: int | None) -> LocalCluster:
    """Start worker processes.

    Raises:
        MgcError: they do not start.
    """
    import distributed

    try:
        return distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            # Any free port: of two runs at once, the second would print a warning that 8787 is taken.
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )
    except RuntimeError as error:
        raise MgcError(f"the worker processes do not start ({str(error).rstrip('.')})", _GUARD_REMEDY) from None


def require_scheduler(scheduler: str | None, echo: Callable[[str], None]) -> None:
    """Require that a running scheduler answers and has workers, before there is anything to lose.

    Args:
        scheduler: address of the scheduler; None, and nothing is required.
        echo: function that prints a line for the user; it is told of each wait before it begins.

    Raises:
        MgcError: no scheduler answers within `CONNECT_WAIT_S`, or it has no workers for `WORKER_WAIT_S`.
    """
    if scheduler is None:
        return
    echo(f"extract: connecting to {scheduler} (gives up after {CONNECT_WAIT_S:g} s)")
    _silence_logs()
    with _connect_running(scheduler) as client:
        _require_workers(client, scheduler, echo)


@contextlib.contextmanager
def _connect_running(scheduler: str) -> Iterator[Client]:
    """Connect to a running scheduler; the connection ends with the context.

    Raises:
        MgcError: no scheduler answers within `CONNECT_WAIT_S`.
    """
    import distributed

    try:
        asyncio.run(_require_answer(scheduler))
        client = distributed.Client(scheduler, timeout=CONNECT_WAIT_S)
    except Exception as error:  # Dask takes the answer of a web server for lengths of arrays: MemoryError, for one
        problem = f"--scheduler {scheduler}: no Dask scheduler answers ({type(error).__name__})"
        raise MgcError(problem, "start one with `dask scheduler` or leave the option out") from None
    with client:
        yield client


def _silence_logs() -> None:
    """Silence Dask's logs: errors that matter are raised, and printed in one line."""
    for name in ("distributed", "distributed.client", "distributed.utils", "distributed.comm"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


async def _require_answer(scheduler: str) -> None:
    """Open and close a connection to a scheduler.

    `distributed.Client` does not clean up after itself if no scheduler answers: ending the process can deadlock then.

    Raises:
        OSError: no scheduler answers, or not in time.
        ValueError: the address is malformed.
    """
    from distributed.comm import connect

    # The timeout of `connect` does not include the wait for an answer once the port has accepted the connection.
    async with asyncio.timeout(CONNECT_WAIT_S):
        comm = await connect(scheduler, timeout=CONNECT_WAIT_S)
    await comm.close()


def _require_workers(client: Client, scheduler: str, echo: Callable[[str], None]) -> None:
    """Require that a running cluster has workers; wait `WORKER_WAIT_S` for the first one.

    Raises:
        MgcError: the cluster has no workers.
    """
    if not client.scheduler_info(n_workers=-1)["workers"]:
        echo(f"extract: {scheduler} has no workers yet: waiting {WORKER_WAIT_S:g} s for one")
    try:
        client.wait_for_workers(1, timeout=WORKER_WAIT_S)
    except TimeoutError:
        raise MgcError(f"--scheduler {scheduler}: it has no workers", "start some with `dask worker`") from None


def _note_missing_nannies(client: Client, echo: Callable[[str], None]) -> None:
    """Print a note if some workers of a running cluster have no nanny."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if without_nanny := sum(not worker["nanny"] for worker in workers):
        effect = "a file that kills or hangs one of them ends it for good"
        echo(f"{without_nanny} of {len(workers)} workers have no nanny: {effect}")


def silence_stderr() -> None:
    """Redirect a worker's stderr to the null device: C libraries such as mpg123 print notes on damaged files there."""
    import os

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
