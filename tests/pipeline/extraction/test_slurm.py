"""The recipe for SLURM, on a real SLURM of one node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import slow_reading
from commands import MGC, mgc, tree
from music import write_genres
from slurm import slurm

RECIPE = Path(__file__).parents[3] / "docs" / "examples" / "slurm.py"


@pytest.mark.slow
def test_jobs_that_end_are_replaced_and_lose_no_shard(scheduler: str, tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    songs = write_genres(tmp_path / "songs", tracks=60, seconds=0.6)
    extract = ("--dataset", songs, "--feature", "stft:n_fft=512", "--slice", "0.4", "--json")
    expected = mgc("extract", *extract, "--data-dir", tmp_path / "calm", "--scheduler", scheduler).json["stores"][0]
    jobs = ("--queue", "batch", "--jobs", 2, "--minutes", 2, "--memory", "1GB", "--lifetime", "10s")
    slow = {"DASK_DISTRIBUTED__WORKER__PRELOAD": slow_reading.__file__}
    with tempfile.TemporaryDirectory(prefix="mgc-slurm-") as folder, slurm(Path(folder)) as environment:
        command = [
            sys.executable,
            RECIPE,
            *jobs,
            "--host",
            "127.0.0.1",
            "--",
            *extract,
            "--data-dir",
            tmp_path / "jobs",
        ]
        path = f"{Path(MGC).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [*map(str, command)], cwd=tmp_path, env=os.environ | environment | slow | {"PATH": path},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [actual] = json.loads(done.stdout)["stores"]
    assert actual["ok"] == 120
    assert tree(Path(actual["store"])) == tree(Path(expected["store"]))
    logs = [path.read_text() for path in tmp_path.glob("slurm-*.out")]
    assert len(logs) > 2  # jobs took the place of others
    assert sum("Reason: worker-lifetime-reached" in log for log in logs) >= 2
