"""`mgc list`: what is in a workspace. The workspace of the tests was made by mgc 0.1.0."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import mgc

FIXTURE = Path(__file__).parents[2] / "fixtures" / "v0.1" / "workspace"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A copy of a workspace with a dataset, three stores and six runs."""
    return shutil.copytree(FIXTURE, tmp_path / "data")


def listed(data: Path) -> dict[str, dict]:
    outcome = mgc("list", "--json", "--data-dir", data)
    assert outcome.code == 0, outcome.err
    return {item["name"]: item for item in outcome.json["items"]}


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_datasets_stores_and_runs_with_sizes_and_results(data: Path):
    items = listed(data)
    folders = (
        "songs",
        *(f"{parent}/{path.name}" for parent in ("features/songs", "runs") for path in (data / parent).iterdir()),
    )
    assert items.keys() == set(folders)
    for name, item in items.items():
        assert item["bytes"] == size(data / name)
        assert item["path"] == str(data / name)
    assert items["songs"]["tracks"] == sum(path.suffix in (".mp3", ".opus") for path in (data / "songs").rglob("*"))
    store = items["features/songs/mel-0bc65c"]
    report = mgc("info", data / store["name"], "--json").json
    assert (store["tracks"], store["feature"], store["finished"]) == (report["ok"], "mel", True)
    run, metrics = items["runs/neural"], json.loads((data / "runs/neural/metrics.json").read_bytes())
    assert (run["model"], run["accuracy"]) == ("vit2021/cnn", metrics["by_track"]["accuracy"])
    assert (run["leaky"], run["finished"]) == (False, True)
    assert (items["runs/unfinished"]["finished"], items["runs/unfinished"]["accuracy"]) == (False, None)
    latest = json.loads((data / "latest.json").read_bytes())
    assert {name for name, item in items.items() if item["latest"]} == {latest["store"], latest["run"]}


def test_the_text_has_a_line_for_each(data: Path):
    config = json.loads((data / "runs/neural/config.json").read_bytes())
    (data / "runs/neural/config.json").write_text(json.dumps(config | {"leaky": True}))
    (data / "runs" / "damaged").mkdir()
    (data / "runs" / "damaged" / "config.json").write_text("{")
    (data / "runs" / "damaged" / "sealed.json").write_text("{")
    (data / "runs" / "stats" / "config.json").write_text('{"store": {"path": "\\u0000"}, "members": [3, {"run": 4}]}')
    (data / "features" / "songs" / "mel-0bc65c-21a2b9" / "store.json").write_text('{"dataset": [], "spec": "mel"}')
    (data / "features" / "songs" / "stats-a6309b" / "tracks.parquet").write_bytes(b"damaged")
    text = mgc("list", "--data-dir", data).out
    rows = {words[0]: words for words in map(str.split, text.splitlines()) if words}
    assert rows["neural"] == ["neural", "vit2021/cnn", "66.7", "%", "120", "kB", "leaky"]
    assert rows["unfinished"][-1] == "unfinished"
    assert rows["damaged"][1:3] == ["?", "-"]
    assert rows["songs/mel-0bc65c"] == ["songs/mel-0bc65c", "mel", "19", "tracks", "210", "kB"]
    assert rows["songs/stats-a6309b"] == ["songs/stats-a6309b", "stats", "130", "kB", "latest"]
    assert max(len(line) for line in text.splitlines() if str(data) not in line) <= 80
    only = mgc("list", "runs", "--data-dir", data).out
    assert "vit2021/cnn" in only
    assert "stores" not in only


def test_links_are_shown_and_not_followed(data: Path, tmp_path: Path):
    shutil.move(data / "songs", tmp_path / "music")
    (data / "songs").symlink_to(tmp_path / "music")
    (data / "runs" / "neural" / "loop").symlink_to(data)
    before = size(FIXTURE / "runs" / "neural")
    items = listed(data)
    assert (items["songs"]["link"], items["songs"]["bytes"]) == (True, 0)
    assert items["runs/neural"]["bytes"] == before


def test_an_empty_workspace_and_none(tmp_path: Path):
    assert mgc("list", "--data-dir", tmp_path / "none").out == f"{tmp_path / 'none'}: nothing\n"
    (tmp_path / "file").touch()
    outcome = mgc("list", "--data-dir", tmp_path / "file")
    assert (outcome.code, outcome.error) == (1, f"{tmp_path / 'file'} is no folder; name the workspace with --data-dir")


def test_a_hundred_entries_are_listed_without_pytorch(data: Path):
    """Imports are checked instead of times, which depend on the load of the machine."""
    for number in range(45):
        shutil.copytree(data / "runs" / "fold", data / "runs" / f"fold-{number}")
        shutil.copytree(data / "features/songs/stats-a6309b", data / "features/songs" / f"stats-{number}")
    words = [sys.executable, "-X", "importtime", "-m", "mgc", "list", "--json", "--data-dir", str(data)]
    run = subprocess.run(words, capture_output=True, text=True)
    assert len(json.loads(run.stdout)["items"]) == 100
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in run.stderr.splitlines() if "|" in line}
    assert "pyarrow" in imported
    assert not imported & {"torch", "sklearn", "scipy", "librosa", "zarr", "dask", "distributed", "matplotlib"}
