"""The machine: what the device is, and the CUDA tests of mgc on it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import torch
from common import REPOSITORY

from gpu_parts.measurement import Row, Setup
from mgc.models.parallel.device import free_memory


def describe(setup: Setup) -> Iterator[Row]:
    """Name, memory and software of the device."""
    memory = free_memory(setup.device)
    if not setup.is_cuda:
        text = f"{torch.get_num_threads()} threads, {memory / 1e9:.1f} GB free"
        yield Row(str(setup.device), text, figures={"free_bytes": memory})
        return
    properties = torch.cuda.get_device_properties(setup.device)
    capability = f"{properties.major}.{properties.minor}"
    text = f"{memory / 1e9:.1f} of {properties.total_memory / 1e9:.1f} GB free, compute capability {capability}"
    yield Row(properties.name, text, figures={"free_bytes": memory, "total_bytes": properties.total_memory})
    software = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, driver {_driver()}"
    yield Row("software", software)


def _driver() -> str:
    """Version of the driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    if not shutil.which(command[0]):
        return "unknown"
    return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip().partition("\n")[0]


def run_tests(setup: Setup) -> Iterator[Row]:
    """Run the tests with the mark `cuda`; elsewhere than on a GPU they are collected and skipped."""
    name = "tests with the mark cuda"
    paths = sorted((REPOSITORY / "tests").rglob("test_*.py"))
    files = [str(path) for path in paths if "pytest.mark.cuda" in path.read_text(encoding="utf-8")]
    assert files, "no test has the mark cuda"
    record = setup.folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", f"--junitxml={record}"]
    done = subprocess.run([*command, *files], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        yield Row(name, f"pytest ended with exit code {done.returncode}", status="failed", details=_output(done))
        return
    suite = ET.parse(record).getroot().find("testsuite")
    assert suite is not None
    counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    text = f"{passed} passed, {failed} failed, {counts['skipped']} skipped"
    figures = {"passed": passed, "failed": failed, "skipped": counts["skipped"]}
    if not setup.is_cuda and not failed:
        yield Row(name, f"{text}: needs CUDA", "all pass", None, figures, "absent")
        return
    met = bool(passed) and not failed and not counts["skipped"]
    yield Row(name, text, "all pass", met, figures, "failed" if failed else "measured", _output(done) if failed else "")


def _output(done: subprocess.CompletedProcess[str]) -> str:
    """The end of what a command printed."""
    return (done.stdout + done.stderr)[-4000:]
