"""The launcher: how its processes end, which errors it reports, and that no process is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mgc.models.parallel import launcher
from mgc.pipeline.errors import RunError, UsageError

#: Writes its process id and environment to a file, then runs the code for its rank.
SCRIPT = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS")
with open(f"{sys.argv[1]}/{rank}", "w") as file:
    print(os.getpid(), *(os.environ[name] for name in names), file=file)
exec(sys.argv[2 + rank])
"""
WAIT = "time.sleep(60)"
SAVE = """
try:
    with open(f"{sys.argv[1]}/{rank}", "a") as file:
        file.write("ready")
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(130)
"""


def launch(folder: Path, *codes: str) -> int:
    """Launch one process for each piece of Python code."""
    return launcher.launch([sys.executable, "-c", SCRIPT, str(folder), *codes], len(codes))


def assert_gone(folder: Path) -> None:
    for file in folder.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text().split()[0]), 0)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "GRACE_SECONDS", 0.2)


def test_each_process_has_its_rank_and_its_share_of_the_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(7), raising=False)
    assert launch(tmp_path, "pass", "pass", "pass") == 0
    environments = [(tmp_path / str(rank)).read_text().split()[1:] for rank in range(3)]
    assert environments == [[str(rank), str(rank), "3", "3", "2"] for rank in range(3)]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert launch(tmp_path, "pass") == 0
    assert (tmp_path / "0").read_text().split()[-1] == "5"


def test_the_exit_code_is_that_of_rank_0(tmp_path: Path) -> None:
    others = f"sys.exit({launcher.PEER_LOST_CODE})"
    assert launch(tmp_path, "time.sleep(0.2); sys.exit(130)", others) == 130
    assert launch(tmp_path, "time.sleep(0.2); sys.exit(2)", "sys.exit('error: the same')") == 2


@pytest.mark.parametrize(
    ("first", "second", "problem", "remedy"),
    [
        (f"time.sleep(0.2); sys.exit({launcher.PEER_LOST_CODE})", "sys.exit('error: no memory; fewer slices')",
         "no memory", "fewer slices"),
        (WAIT, "sys.exit('error: no memory; fewer slices')", "no memory", "fewer slices"),
        (WAIT, "os.kill(os.getpid(), signal.SIGKILL)", "process 2 of 2 was ended by SIGKILL", "`mgc train --resume` "),
        ("os.kill(os.getpid(), signal.SIGKILL)", f"sys.exit({launcher.PEER_LOST_CODE})",
         "process 1 of 2 was ended by SIGKILL", "`mgc train --resume` "),
        ("pass", "raise ValueError(3)", "process 2 of 2 ended with exit code 1 (ValueError: 3)", "`mgc train"),
    ],
)  # fmt: skip
def test_the_error_of_another_rank_is_raised(
    tmp_path: Path, short_grace: None, first: str, second: str, problem: str, remedy: str
) -> None:
    with pytest.raises(RunError) as caught:
        launch(tmp_path, first, second)
    assert caught.value.problem == problem
    assert caught.value.remedy.startswith(remedy)
    assert_gone(tmp_path)


def test_an_interruption_and_a_usage_error_of_any_rank_keep_their_exit_codes(tmp_path: Path, short_grace: None) -> None:
    for code in ("sys.exit(130)", "signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT)"):
        with pytest.raises(KeyboardInterrupt):
            launch(tmp_path, WAIT, code)
    with pytest.raises(UsageError, match="--lr 0; it must be"):
        launch(tmp_path, WAIT, "print('error: --lr 0; it must be positive', file=sys.stderr); sys.exit(2)")


def test_ctrl_c_is_passed_on(tmp_path: Path) -> None:
    def interrupt() -> None:
        while sum("ready" in file.read_text() for file in tmp_path.iterdir()) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert launch(tmp_path, SAVE, SAVE) == 130
    thread.join()
    assert_gone(tmp_path)


def test_no_process_outlives_the_launcher(tmp_path: Path) -> None:
    code = (
        "import sys; from mgc.models.parallel import launcher; "
        "launcher.launch([sys.executable, '-c', *sys.argv[1:]], 2)"
    )  # fmt: skip
    wait_for_launcher = "os.read(0, 1)"  # as the processes of a training do
    command = [sys.executable, "-c", code, SCRIPT, str(tmp_path), wait_for_launcher, wait_for_launcher]
    with subprocess.Popen(command) as running:
        while len(list(tmp_path.iterdir())) < 2 or not all(file.read_text() for file in tmp_path.iterdir()):
            time.sleep(0.05)
        running.kill()
    for _ in range(100):
        pids = [int(file.read_text().split()[0]) for file in tmp_path.iterdir()]
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            break
        time.sleep(0.1)
    assert_gone(tmp_path)
