"""`mgc evaluate` says what the last audit found out about the test tracks of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import mgc
from stores import make_store

from mgc.models.evaluation import audited
from mgc.models.runs.run import Run
from mgc.pipeline.features import Mel


@pytest.mark.slow
def test_the_verdict_is_that_of_the_tracks_of_the_run(tmp_path: Path) -> None:
    leaked = {"test-003": "training-artist-0-0", "test-004": "training-artist-0-1"}
    store = make_store(
        tmp_path / "mel", Mel(), relabel=lambda row: {"artist_id": leaked.get(row["track_id"], row["artist_id"])}
    )
    data = ("--data-dir", tmp_path / "data")
    mgc("train", "--model", "moments/logreg", "--store", store.path, *data)
    (path,) = (tmp_path / "data" / "runs").iterdir()
    assert mgc("evaluate", path, *data, "--json").json["audit"] is None
    mgc("audit", store.path, *data)
    outcome = mgc("evaluate", path, *data)
    assert "NOT CLEAN: The last audit" in outcome.out
    assert "found 2 of 6 test tracks that share a recording or an artist" in " ".join(outcome.out.split())
    measured = json.loads((path / "metrics.json").read_bytes())
    assert {key: measured["audit"][key] for key in ("clean", "test_tracks", "leaked")} == {
        "clean": False, "test_tracks": 6, "leaked": 2
    }  # fmt: skip
    assert "run 2 is NOT CLEAN: The last audit" in mgc("evaluate", path, path, *data).out
    assert mgc("evaluate", path, *data, "--split", "validation", "--json").json["audit"] is None
    shutil.move(store.path, tmp_path / "gone")
    assert audited.verdict(Run.open(path), "test") is None
