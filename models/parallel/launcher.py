"""The launcher: one command as several processes on this machine, which train one network together.

What torchrun does for several machines, without its agent: processes that find each other by a file in a temporary
folder instead of a port, and an end that is one line and leaves no process behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mgc.pipeline.errors import RunError

#: Where the processes of a launcher find each other, a `file://` URL; those of torchrun have MASTER_ADDR, MASTER_PORT.
RENDEZVOUS_VARIABLE = "MGC_MEETING"
#: Exit code of a process that stops only because another one has.
PEER_LOST_CODE = 75
#: Seconds that the others have to come to an end once one has failed.
GRACE = 20.0


def is_launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is already one of several processes, or of one that torchrun has started."""
    return "RANK" in environment and "WORLD_SIZE" in environment


def launch(command: Sequence[str], n: int) -> int:
    """Run a command as `n` processes, of which the first one speaks, until all have ended.

    Ctrl-C is passed on; at the second one they are ended. They end with the launcher, too, however it ends. Each has
    its share of the processors, unless OMP_NUM_THREADS says something else.

    Returns:
        The exit code of the first process, which has said why where it is not 0.

    Raises:
        RunError: another one has failed, and the first one cannot have known why.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shared = {"OMP_NUM_THREADS": str(max(1, processors // n))} | os.environ
    shared |= {"WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n)}
    with tempfile.TemporaryDirectory(prefix="mgc-") as name:
        folder = Path(name)
        shared[RENDEZVOUS_VARIABLE] = (folder / "meeting").as_uri()
        processes: list[subprocess.Popen] = []
        try:
            for rank in range(n):
                environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                with (folder / f"{rank}.txt").open("wb") as said:
                    output = said if rank and "--debug" not in command else None
                    # The pipe is for the process to see that the launcher is gone.
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
        return _judged(processes, order, folder)


def _wait(processes: Sequence[subprocess.Popen]) -> list[int]:
    """The processes that have ended by themselves, in this order."""
    order: list[int] = []
    deadline, interrupts = float("inf"), 0
    while len(order) < len(processes) and time.monotonic() < deadline:
        try:
            for rank, process in enumerate(processes):
                if rank not in order and process.poll() is not None:
                    order.append(rank)
                    if process.returncode:
                        deadline = min(deadline, time.monotonic() + GRACE)
            time.sleep(0.05)
        except KeyboardInterrupt:
            interrupts += 1
            if interrupts > 1:
                raise
            for process in processes:
                process.send_signal(signal.SIGINT)
    return order


def _judged(processes: Sequence[subprocess.Popen], order: Sequence[int], folder: Path) -> int:
    """The exit code of processes that have ended in this order; the others had to be ended."""
    failed = [rank for rank in order if processes[rank].returncode not in (0, PEER_LOST_CODE)]
    first = processes[0].returncode
    if 0 in order and ((first > 0 and first != PEER_LOST_CODE) or (first == 0 and not failed)):
        return first
    rank = failed[0] if failed else 0
    code = processes[rank].returncode
    lines = (folder / f"{rank}.txt").read_text(errors="replace").splitlines() if rank else []
    if lines and lines[-1].startswith("error: "):
        problem, _, remedy = lines[-1].removeprefix("error: ").partition("; ")
        raise RunError(problem, remedy)
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    problem = f"process {rank + 1} of {len(processes)} {how}" + (f" ({lines[-1]})" if lines else "")
    raise RunError(problem, "`mgc train --resume` goes on from the last checkpoint")
