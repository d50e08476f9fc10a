"""The wheel, installed into an empty environment, does its main job from any folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
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


def test_the_wheel_holds_code_and_manifests_and_nothing_else(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"mgc"}
    shipped = {f"mgc/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "manifests").rglob("*.toml")}
    assert shipped
    assert shipped <= set(names)


def test_mgc_demo_runs_from_the_installed_wheel(wheel: Path, tmp_path: Path):
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    constraints = ROOT / "constraints.txt"
    # Compiling what nobody imports would take longer than anything else here.
    install = [python, "-m", "pip", "install", "--quiet", "--no-compile", "-c", constraints, wheel]
    subprocess.run(install, check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MGC_", "PYTHON"))}
    run = subprocess.run(
        [python.with_name("mgc"), "demo", "--epochs", "1"],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "synthetic" in run.stdout
    (metrics,) = elsewhere.glob("data/runs/*/metrics.json")
    assert json.loads(metrics.read_text())["n_tracks"] == 12
    assert sorted(path.name for path in elsewhere.iterdir()) == ["data"]
