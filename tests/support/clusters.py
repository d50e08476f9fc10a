"""Dask clusters as users start them: a scheduler and workers, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

DASK = str(Path(sys.executable).with_name("dask"))
WORKER = ("--nthreads", "1", "--memory-limit", "0", "--no-dashboard")


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

    file = folder / "scheduler.json"
    here = ["--scheduler-file", str(file)]
    commands = [[DASK, "scheduler", *here, "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]]
    if workers:
        commands += [[DASK, "worker", *here, *WORKER, "--nanny" if nannies else "--no-nanny"]] * workers
    started = [_start(command, folder, environment or {}) for command in commands]
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
            end(process)


def _start(command: list[str], folder: Path, environment: Mapping[str, str]) -> subprocess.Popen:
    """Start a command in a process group of its own."""
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env=os.environ | dict(environment), start_new_session=True
        )


def end(process: subprocess.Popen) -> None:
    """Kill a process and those it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def networked_cluster(
    folder: Path, environments: Sequence[Mapping[str, str]]
) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """A cluster of several hosts: each worker is in a network namespace, whose only way out leads to the scheduler.

    Skips the test where the system does not let us make one.

    Args:
        folder: for what scheduler and workers write; they share the files of this machine.
        environments: variables besides ours, for the one worker of each host.

    Yields:
        The scheduler's address; the processes of the hosts.
    """
    import distributed

    with contextlib.ExitStack() as stack:
        nets = [stack.enter_context(_namespace(i)) for i in range(len(environments))]
        gateway = nets[0][1]
        address = f"tcp://{gateway}:{_free_port(gateway)}"
        where = ["--host", gateway, "--port", address.rpartition(":")[2], "--dashboard-address", "127.0.0.1:0"]
        stack.callback(end, _start([DASK, "scheduler", *where], folder, {}))
        hosts = []
        for (name, _, own), environment in zip(nets, environments, strict=True):
            command = ["ip", "netns", "exec", name, DASK, "worker", address, *WORKER, "--nanny", "--host", own]
            hosts.append(_start(command, folder, environment))
            stack.callback(end, hosts[-1])
        with distributed.Client(address, timeout=60) as client:
            client.wait_for_workers(len(hosts), timeout=60)
        yield address, hosts


@contextlib.contextmanager
def _namespace(i: int) -> Iterator[tuple[str, str, str]]:
    """A network namespace with a cable to this one: its name, our address and its own."""
    name, plug = f"mgc-{os.getpid()}-{i}", f"mgc{os.getpid() % 10**6}-{i}"
    net = f"10.{os.getpid() % 200 + 50}.{i}"
    with contextlib.ExitStack() as stack:
        try:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)  # which ends the cable, too
            _ip("link", "add", plug, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("addr", "add", f"{net}.1/24", "dev", plug)
            _ip("link", "set", plug, "up")
            _ip("-n", name, "addr", "add", f"{net}.2/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "route", "add", "default", "via", f"{net}.1")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespace can be made here: {error}")
        yield name, f"{net}.1", f"{net}.2"


def _ip(*command: str) -> None:
    subprocess.run(["ip", *command], check=True, capture_output=True)


def _free_port(address: str) -> int:
    with socket.socket() as listener:
        listener.bind((address, 0))
        return listener.getsockname()[1]
