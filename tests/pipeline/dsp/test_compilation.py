"""Only one process at a time runs a first compilation."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mgc.pipeline.dsp.compilation import compilation_lock

#: Holds the lock for the names in argv[2:] for a second; writes the start and stop times to argv[1].
HOLDER = """
import sys, time
from mgc.pipeline.dsp.compilation import compilation_lock
with compilation_lock(sys.argv[2:]):
    start = time.time()
    time.sleep(1)
    open(sys.argv[1], "w").write(f"{start} {time.time()}")
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "cache"


def hold(out: Path, *names: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", HOLDER, str(out), *names])


def spans(tmp_path: Path, *names: tuple[str, ...]) -> list[tuple[float, float]]:
    """Run processes in parallel and return when each was inside the lock: (start, stop), sorted by start."""
    processes = [hold(tmp_path / f"{i}", *group) for i, group in enumerate(names)]
    assert [process.wait(60) for process in processes] == [0] * len(names)
    times = [(tmp_path / f"{i}").read_text().split() for i in range(len(names))]
    return sorted((float(start), float(stop)) for start, stop in times)


@pytest.mark.slow
def test_processes_wait_for_the_first_and_not_for_one_another(tmp_path):
    first, *others = spans(tmp_path, ("mel",), ("mel",), ("mel",))
    assert all(start >= first[1] for start, _ in others)
    assert others[1][0] < others[0][1]
    first, second = spans(tmp_path, ("mel",), ("mel",))
    assert second[0] < first[1]


@pytest.mark.slow
def test_other_names_have_their_own_lock(tmp_path):
    with compilation_lock(["mel"]):
        pass
    first, second = spans(tmp_path, ("mel", "stft"), ("stft", "mel"))
    assert second[0] >= first[1]


@pytest.mark.slow
def test_a_failed_compilation_is_repeated_alone(tmp_path):
    with pytest.raises(RuntimeError, match="no"), compilation_lock(["mel"]):
        raise RuntimeError("no")
    first, second = spans(tmp_path, ("mel",), ("mel",))
    assert second[0] >= first[1]


def test_a_killed_process_releases_the_lock(tmp_path):
    holder = hold(tmp_path / "never", "mel")
    while not list((tmp_path / "cache").rglob("*.lock")):
        time.sleep(0.05)
    holder.kill()
    holder.wait()
    assert len(spans(tmp_path, ("mel",))) == 1


def test_without_a_cache_folder_there_is_no_lock(tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    assert len(spans(tmp_path, ("mel",), ("mel",))) == 2
