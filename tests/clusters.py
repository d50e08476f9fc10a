"""Dask clusters as users start them: a scheduler and workers, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def foreign_cluster(
    folder: Path, *, workers: int = 2, nannies: bool = True, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The address of a scheduler on this machine; it and its workers end with the context.

    Args:
        folder: for what they write.
        workers: worker processes.
        nannies: whether each worker is watched by another process that restarts it.
        environment: variables the workers have besides ours.
    """
    import distributed

    dask = str(Path(sys.executable).with_name("dask"))
    file = folder / "scheduler.json"
    here = ["--scheduler-file", str(file)]
    commands = [[dask, "scheduler", *here, "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]]
    if workers:
        how = ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--nanny" if nannies else "--no-nanny"]
        commands += [[dask, "worker", *here, *how]] * workers
    with (folder / "log").open("wb") as log:
        started = [
            subprocess.Popen(
                command,
                cwd=folder,
                stdout=log,
                stderr=log,
                env=os.environ | dict(environment or {}),
                start_new_session=True,
            )
            for command in commands
        ]
    try:
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        with distributed.Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(workers, timeout=60) if workers else None
            address = client.scheduler.address
        yield address
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
