"""A SLURM cluster of one node on this machine: Debian's packages `munge` and `slurm-wlm`, as root."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

DAEMONS = ("munged", "slurmctld", "slurmd")

CONFIGURATION = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=batch Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start a cluster with the partition `batch`; it ends with the context.

    The test is skipped where the daemons are not installed or the user is not root.

    Args:
        folder: empty folder for its files; its path is short, since it holds a socket.

    Yields:
        Environment variables of commands that use it.
    """
    if os.geteuid() != 0 or not all(map(shutil.which, DAEMONS)):
        pytest.skip("needs munge and slurm-wlm, and root")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    host, ports = socket.gethostname(), [_free_port(), _free_port()]
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=host, folder=folder, ports=ports))
    environment = {"SLURM_CONF": str(configuration)}
    places = {name: folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
    munge = [
        "munged", "--foreground", "--force", f"--key-file={folder / 'munge.key'}", f"--socket={places['socket']}",
        f"--pid-file={places['pid']}", f"--log-file={places['log']}", f"--seed-file={places['seed']}",
    ]  # fmt: skip
    commands = [munge, ["slurmctld", "-D", "-f", configuration], ["slurmd", "-D", "-f", configuration]]
    processes = []
    try:
        for command in commands:
            log = (folder / f"{command[0]}.out").open("wb")
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment))
            log.close()
            if command is munge:
                _wait(places["socket"].exists, folder)
        _wait(lambda: "idle" in _run("sinfo", "--noheader", "--format=%T", environment=environment), folder)
        yield environment
    finally:
        _run("scancel", "--full", "--user=root", environment=environment)
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(is_done, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not is_done():
        assert time.monotonic() < deadline, "\n".join(path.read_text() for path in folder.glob("*.out"))
        time.sleep(0.2)


def _run(*command: str, environment: dict[str, str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment).stdout


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
