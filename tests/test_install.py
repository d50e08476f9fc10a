"""The wheel, installed into an empty environment, works beside a project with modules of the same names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", out, ROOT], check=True)
    (built,) = out.glob("mgc_music-*.whl")
    return built


def test_the_wheel_holds_code_and_manifests_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info" not in name}
    code = [ROOT / name for name in ("__init__.py", "__main__.py", "cli.py", "py.typed")]
    for package in ("pipeline", "models", "manifests"):
        code += [path for path in (ROOT / package).rglob("*.*") if "__pycache__" not in path.parts and path.is_file()]
    assert names == {f"mgc/{path.relative_to(ROOT).as_posix()}" for path in code}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with mgc and what it needs alone, made by the steps of docs/Dockerfile."""
    folder, source = tmp_path_factory.mktemp("env"), tmp_path_factory.mktemp("source") / "mgc"
    outside = {ROOT / line for line in (ROOT / ".dockerignore").read_text().split()}
    shutil.copytree(ROOT, source, ignore=lambda place, names: {n for n in names if Path(place, n) in outside})
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    steps = re.findall(r"^RUN (.+)$", (ROOT / "docs" / "Dockerfile").read_text(), re.MULTILINE)
    assert steps
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for step in steps:
        subprocess.run(step, shell=True, check=True, cwd=source, env=os.environ | {"PATH": path, "EXTRAS": ""})
    subprocess.run([folder / "bin" / "python", "-m", "pip", "check"], check=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the user's with modules whose names mgc's parts have, too; importing one of them is an error."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "models").mkdir()
    for name in ("models/__init__.py", "pipeline.py", "cli.py", "manifests.py"):
        (folder / name).write_text("raise SystemExit('a module of the project was imported')\n")
    return folder


def run(command: Sequence[object], project: Path) -> str:
    """Standard output of a command that is run in the project; it must exit with 0."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MGC_", "PYTHON"))}
    done = subprocess.run(list(map(str, command)), cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def test_every_command_works_beside_a_project_of_the_user(python: Path, project: Path) -> None:
    mgc, module = [python.with_name("mgc")], [python, "-m", "mgc"]
    assert "synthetic" in run([*mgc, "demo", "--epochs", 1], project)
    (metrics,) = project.glob("data/runs/*/metrics.json")
    assert json.loads(metrics.read_text())["n_tracks"] == 12
    for command in (
        ("info",),
        ("models", "--json"),
        ("verify",),
        ("slice", "--slice", 3),
        ("split",),
        ("extract", "--feature", "mel", "--workers", 1),
        ("train", "--epochs", 1),
        ("evaluate", "--by-genre"),
        ("new", "model", "acme"),
        ("--version",),
    ):
        assert run([*module, *command], project)
    (store,) = project.glob("data/features/*/*")
    script = f"import mgc; store = mgc.open_store({str(store)!r}); print(len(store.dataset('training')[0]))"
    assert run([python, "-c", script], project) == "2\n"
    assert sorted(path.name for path in project.iterdir()) == [
        "acme", "cli.py", "data", "manifests.py", "models", "pipeline.py",
    ]  # fmt: skip


def test_two_processes_train_beside_it(python: Path, project: Path) -> None:
    torchrun = [python, "-m", "torch.distributed.run", "--nproc-per-node", 2, "--standalone", "-m", "mgc"]
    options = ["train", "--epochs", 1, "--device", "cpu"]
    for command in ([*torchrun, *options], [python.with_name("mgc"), *options, "--nproc", 2]):
        assert "run: " in run(command, project)
