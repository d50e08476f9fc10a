"""The launcher: runs one command as several processes on this machine that train one network together.

It does what torchrun does, but without an agent: processes find each other by a file in a temporary folder instead of a
port, an error is reported in one line, and no process is left behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mgc.pipeline.errors import RunError, UsageError

#: Environment variable with the `file://` URL of the rendezvous of the launcher's processes; those of torchrun have
#: MASTER_ADDR and MASTER_PORT instead.
RENDEZVOUS_VARIABLE = "MGC_RENDEZVOUS"
#: Exit code of a process that stops only because another one did.
PEER_LOST_CODE = 75
#: Exit code of a process that Ctrl-C interrupted.
INTERRUPTED_CODE = 130
#: Seconds that the other processes have to end after one has failed.
GRACE_SECONDS = 20.0


def is_launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process was started by `launch` or torchrun."""
    return "RANK" in environment and "WORLD_SIZE" in environment


def launch(command: Sequence[str], n: int) -> int:
    """Run a command as `n` processes until all have ended; only rank 0 prints.

    Ctrl-C is passed on to the processes; a second one kills them. They also end if the launcher is killed. Each gets an
    equal share of the processors as its threads, unless OMP_NUM_THREADS is set.

    Returns:
        The exit code of rank 0. If it is not 0, rank 0 has printed the reason.

    Raises:
        MgcError: another rank failed for a reason that rank 0 cannot have reported.
        KeyboardInterrupt: a process was interrupted before rank 0 could say so.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shared = {"OMP_NUM_THREADS": str(max(1, processors // n))} | os.environ
    shared |= {"WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n)}
    with tempfile.TemporaryDirectory(prefix="mgc-") as name:
        folder = Path(name)
        shared[RENDEZVOUS_VARIABLE] = (folder / "rendezvous").as_uri()
        processes: list[subprocess.Popen] = []
        try:
            for rank in range(n):
                environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                with (folder / f"{rank}.txt").open("wb") as log:
                    output = log if rank and "--debug" not in command else None
                    # The process reads this pipe to notice that the launcher is gone.
                    pipe = subprocess.PIPE
                    processes.append(
                        subprocess.Popen(command, env=environment, stdin=pipe, stdout=output, stderr=output)
                    )
            order = _wait(processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
                if process.stdin:
                    process.stdin.close()
        return _exit_code(processes, order, folder)


def _wait(processes: Sequence[subprocess.Popen]) -> list[int]:
    """Wait until all processes have ended, or the grace period after a failure is over.

    Returns:
        Ranks of the processes that ended by themselves, in this order.
    """
    order: list[int] = []
    deadline, interrupts = float("inf"), 0
    while len(order) < len(processes) and time.monotonic() < deadline:
        try:
            for rank, process in enumerate(processes):
                if rank not in order and process.poll() is not None:
                    order.append(rank)
                    if process.returncode:
                        deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
            time.sleep(0.05)
        except KeyboardInterrupt:
            interrupts += 1
            if interrupts > 1:
                raise
            for process in processes:
                process.send_signal(signal.SIGINT)
    return order


def _exit_code(processes: Sequence[subprocess.Popen], order: Sequence[int], folder: Path) -> int:
    """Return the exit code of rank 0, or raise the error of the rank that failed first.

    Args:
        processes: ended processes, by rank.
        order: ranks of those that ended by themselves, in this order; the others were killed.
        folder: folder with the output of each rank but 0, `<rank>.txt`.
    """
    failed = [rank for rank in order if processes[rank].returncode not in (0, PEER_LOST_CODE)]
    main_code = processes[0].returncode
    if 0 in order and ((main_code > 0 and main_code != PEER_LOST_CODE) or (main_code == 0 and not failed)):
        return main_code
    rank = failed[0] if failed else 0
    code = processes[rank].returncode
    if code in (INTERRUPTED_CODE, -signal.SIGINT):  # not -SIGINT by Python's handler: interrupted while it started
        raise KeyboardInterrupt
    lines = (folder / f"{rank}.txt").read_text(errors="replace").splitlines() if rank else []
    if lines and lines[-1].startswith("error: "):
        problem, _, remedy = lines[-1].removeprefix("error: ").partition("; ")
        raise (UsageError if code == UsageError.exit_code else RunError)(problem, remedy)
    cause = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    problem = f"process {rank + 1} of {len(processes)} {cause}" + (f" ({lines[-1]})" if lines else "")
    raise RunError(problem, "`mgc train --resume` goes on from the last checkpoint")
