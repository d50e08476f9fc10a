"""Dask clusters as users start them: a scheduler and workers, each in its own process."""

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
    folder: Path,
    *,
    workers: int = 2,
    nannies: bool = True,
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Iterator[str]:
    """Start a scheduler and workers on this machine; they end with the context.

    Args:
        folder: working directory and log of the processes.
        workers: number of worker processes.
        nannies: give each worker a nanny, a process that restarts it.
        environment: environment variables of the processes, besides those of this process.
        options: further options of the workers.

    Yields:
        The scheduler's address.
    """
    import distributed

    file = folder / "scheduler.json"
    contact = ["--scheduler-file", str(file)]
    commands = [
        [DASK, "scheduler", *contact, "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
    ]
    if workers:
        commands += [[DASK, "worker", *contact, *WORKER, "--nanny" if nannies else "--no-nanny", *options]] * workers
    processes = [start(command, folder, environment or {}) for command in commands]
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
        for process in processes:
            end(process)


def start(command: list[str], folder: Path, environment: Mapping[str, str]) -> subprocess.Popen:
    """Start a command in its own process group; its output is appended to `folder/log`."""
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env=os.environ | dict(environment), start_new_session=True
        )


def end(process: subprocess.Popen) -> None:
    """Kill a process and its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def networked_cluster(
    folder: Path, environments: Sequence[Mapping[str, str]]
) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """Start a cluster of several hosts: each worker has its own network namespace, with a route to the scheduler only.

    The test is skipped if the system does not allow network namespaces. The hosts share the files of this machine.

    Args:
        folder: working directory and log of the processes.
        environments: environment variables of each host's worker, besides those of this process.

    Yields:
        The scheduler's address, and the worker process of each host.
    """
    import distributed

    with contextlib.ExitStack() as stack:
        namespaces = [stack.enter_context(_namespace(i)) for i in range(len(environments))]
        gateway = namespaces[0][1]
        address = f"tcp://{gateway}:{free_port(gateway)}"
        options = ["--host", gateway, "--port", address.rpartition(":")[2], "--dashboard-address", "127.0.0.1:0"]
        stack.callback(end, start([DASK, "scheduler", *options], folder, {}))
        hosts = []
        for (name, _, host), environment in zip(namespaces, environments, strict=True):
            command = ["ip", "netns", "exec", name, DASK, "worker", address, *WORKER, "--nanny", "--host", host]
            hosts.append(start(command, folder, environment))
            stack.callback(end, hosts[-1])
        with distributed.Client(address, timeout=60) as client:
            client.wait_for_workers(len(hosts), timeout=60)
        yield address, hosts


@contextlib.contextmanager
def _namespace(i: int) -> Iterator[tuple[str, str, str]]:
    """Create a network namespace with a virtual Ethernet link to the current one.

    Yields:
        Name of the namespace, address of this end of the link, address of the other end.
    """
    name, link = f"mgc-{os.getpid()}-{i}", f"mgc{os.getpid() % 10**6}-{i}"
    subnet = f"10.{os.getpid() % 200 + 50}.{i}"
    with contextlib.ExitStack() as stack:
        try:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)  # deletes the link, too
            _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("addr", "add", f"{subnet}.1/24", "dev", link)
            _ip("link", "set", link, "up")
            _ip("-n", name, "addr", "add", f"{subnet}.2/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "route", "add", "default", "via", f"{subnet}.1")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"cannot create a network namespace: {error}")
        yield name, f"{subnet}.1", f"{subnet}.2"


def _ip(*command: str) -> None:
    subprocess.run(["ip", *command], check=True, capture_output=True)


def free_port(address: str) -> int:
    """A port of an address of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind((address, 0))
        return listener.getsockname()[1]
