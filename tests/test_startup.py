"""Modules that commands do not import, as they would cost start-up time. Never seconds: those depend on the load.

`python benchmarks/startup.py --imports COMMAND` says what imports cost; docs/performance.md has figures.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WORKSPACE = Path(__file__).with_name("fixtures") / "v0.1" / "workspace"
#: Runs a command, and prints its exit code and the modules that it has imported.
PROGRAM = """
import sys
from mgc.cli import main
try:
    main(sys.argv[1:], prog_name="mgc")
except SystemExit as end:
    print(end.code, *sys.modules, file=sys.stderr)
"""
#: What no command needs that reads descriptions only.
HEAVY = {
    "torch",
    "sklearn",
    "skops",
    "scipy",
    "librosa",
    "numba",
    "zarr",
    "dask",
    "distributed",
    "matplotlib",
    "soundfile",
}
#: What scores and predictions do not need: `scipy.signal` and librosa came with filter banks, pytest and Dask's arrays
#: with skops, the compiler of PyTorch with optimisers.
NEEDLESS = {"librosa", "scipy.signal", "skops", "dask.array", "pytest", "torch._dynamo", "xarray", "IPython", "pooch"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the workspace, whose runs are evaluated."""
    return Path(shutil.copytree(WORKSPACE, tmp_path_factory.mktemp("startup") / "data"))


def imported(workspace: Path, *words: str) -> set[str]:
    """Run a command on a workspace; return the modules that its process imported."""
    command = [sys.executable, "-c", PROGRAM, *words, "--data-dir", str(workspace)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=workspace)
    code, *modules = run.stderr.splitlines()[-1].split()
    assert code == "0", run.stderr
    assert run.stdout, run.stderr
    return set(modules)


def test_what_reads_descriptions_only_imports_no_library_of_numbers(workspace: Path) -> None:
    assert not imported(workspace, "models") & HEAVY
    assert not imported(workspace, "list") & HEAVY
    assert not imported(workspace, "info", "runs/neural") & HEAVY
    assert not imported(workspace, "info", "runs/classical") & HEAVY
    assert not imported(workspace, "info", "features/songs/mel-0bc65c") & HEAVY


@pytest.mark.parametrize("run", ["neural", "fold"])
def test_scores_need_no_filter_banks_and_not_all_of_scikit_learn(run: str, workspace: Path) -> None:
    modules = imported(workspace, "evaluate", "--no-report", f"runs/{run}")
    assert "torch" in modules
    assert not modules & (NEEDLESS | {"distributed", "numba", "soundfile", "jinja2"})


@pytest.mark.slow
def test_a_prediction_imports_neither_filter_banks_nor_pictures(workspace: Path) -> None:
    clip = workspace / "songs" / "Rock" / "rock-1.mp3"
    modules = imported(workspace, "predict", "runs/neural", str(clip), "--workers", "1")
    assert {"torch", "distributed"} <= modules
    assert not modules & (NEEDLESS | {"sklearn", "matplotlib", "scipy.stats", "scipy.optimize"})
