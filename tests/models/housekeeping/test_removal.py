"""`mgc remove`: what goes, what is refused, and what a kill leaves. The workspace was made by mgc 0.1.0."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import MGC, Outcome, mgc, tree

from mgc.pipeline.store.lock import write_lock
from mgc.pipeline.workspace import Workspace

FIXTURE = Path(__file__).parents[2] / "fixtures" / "v0.1" / "workspace"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A copy of a workspace with a dataset, three stores and six runs; what changed last is an hour old."""
    data = shutil.copytree(FIXTURE, tmp_path / "data")
    for path in data.rglob("*"):
        os.utime(path, (time.time() - 3600,) * 2)
    return data


def remove(data: Path, *words: object) -> Outcome:
    return mgc("remove", *words, "--data-dir", data)


def answer(data: Path, text: str, *words: str) -> tuple[int, str]:
    """Run `mgc remove` on a terminal, and type an answer; return exit code and what the screen shows."""
    main, side = pty.openpty()
    command = [str(MGC), "remove", *words, "--data-dir", str(data)]
    with subprocess.Popen(command, stdin=side, stdout=side, stderr=side, start_new_session=True) as process:
        os.close(side)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(main, 1000)
        os.write(main, text.encode() + b"\n")
        while True:
            try:
                shown += os.read(main, 1000)
            except OSError:  # the terminal is closed
                break
        code = process.wait(60)
    os.close(main)
    return code, shown.decode()


def test_a_store_goes_and_what_needs_it_is_named(data: Path):
    before = tree(data)
    dry = remove(data, "features/songs/mel-0bc65c", "--dry-run")
    assert dry.code == 0
    head, needs = dry.out.splitlines()
    assert head == f"would remove store {data}/features/songs/mel-0bc65c: 210 kB in 16 files"
    assert needs.startswith("  4 runs need it and cannot be evaluated again or resumed: runs/classical, runs/ens")
    assert tree(data) == before
    outcome = remove(data, "mel-0bc65c", "--yes")
    assert (outcome.code, outcome.out) == (0, dry.out.replace("would remove", "remove"))
    gone = {name for name in before if name.startswith("features/songs/mel-0bc65c/")}
    assert tree(data) == {name: content for name, content in before.items() if name not in gone}


def test_without_a_terminal_nothing_goes_unless_yes_is_given(data: Path):
    before = tree(data)
    outcome = remove(data, "runs/stats")
    assert outcome.code == 2
    assert outcome.out.startswith(f"remove run {data}/runs/stats: 55 kB in ")
    assert (
        outcome.error == "nothing was removed: nobody can be asked here; add --yes, or --dry-run to see what would go"
    )
    assert tree(data) == before


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_terminal_is_asked(data: Path):
    code, screen = answer(data, "n", "stats")
    assert code == 1
    assert f"{data}/runs/stats: 55" in " ".join(screen.split())  # the line may be wrapped
    assert "error: nothing was removed" in screen
    assert (data / "runs/stats").is_dir()
    code, screen = answer(data, "y", "stats")
    assert code == 0, screen
    assert not (data / "runs/stats").exists()


def test_several_go_at_once_and_none_is_said_to_need_another(data: Path):
    outcome = remove(data, "ensemble", "runs/neural", data / "runs" / "classical", "ensemble/", "--yes", "--json")
    assert outcome.code == 0, outcome.err
    assert [row["name"] for row in outcome.json["removed"]] == ["runs/ensemble", "runs/neural", "runs/classical"]
    assert [row["needed_by"] for row in outcome.json["removed"]] == [[], [], []]
    assert sorted(path.name for path in (data / "runs").iterdir()) == ["fold", "stats", "unfinished"]


def test_a_member_of_an_ensemble_and_a_dataset_are_needed(data: Path):
    head, needs = remove(data, "neural", "--dry-run").out.splitlines()
    assert needs == "  1 run needs it and cannot be evaluated again or resumed: runs/ensemble"
    for store in data.glob("features/songs/*/store.json"):
        head = json.loads(store.read_bytes())
        store.write_text(json.dumps(head | {"dataset": head["dataset"] | {"root": str(data / "songs")}}))
    needs = remove(data, "songs", "--dry-run").out.splitlines()[1]
    assert needs.startswith("  3 stores of it and cannot be extended or extracted again without the dataset: features/")


def test_the_latest_are_the_newest_of_the_others_then(data: Path):
    latest = json.loads((data / "latest.json").read_bytes())
    assert remove(data, latest["run"], latest["store"], "--yes").code == 0
    assert not {"run", "store"} & json.loads((data / "latest.json").read_bytes()).keys()
    os.utime(data / "runs" / "fold" / "config.json")
    assert Workspace(data).latest_run() == data / "runs" / "fold"
    assert Workspace(data).latest_store().name in ("mel-0bc65c", "mel-0bc65c-21a2b9")


class TestRefusals:
    """Nothing is removed, and one line says why."""

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("..", ".. lies outside of the workspace {data}; remove it yourself, or set --data-dir"),
            ("/", "/ lies outside of the workspace {data}; "),
            ("{data}/../music", "{data}/../music lies outside of the workspace {data}; "),
            ("runs", "runs is no dataset, store, run or weights of {data}; "),
            (".", "{data}"),
            ("runs/../..", "runs/../.."),
            ("runs/neurl", "runs/neurl is no dataset, store, run or weights of {data}; did you mean runs/neural"),
            ("runs/neural/best.pt", "runs/neural/best.pt is no dataset, store, run or weights of {data}; "),
            ("latest.json", "latest.json is no dataset, store, run or weights of {data}; "),
            ("", " is no dataset, store, run or weights of {data}; "),
            ("link", "{data}/link is a link, or lies behind one; remove the link yourself: rm removes no target"),
            ("runs/link", "{data}/runs/link is a link, or lies behind one; "),
        ],
    )
    def test_of_names(self, name: str, error: str, data: Path, monkeypatch: pytest.MonkeyPatch):
        shutil.copytree(data / "runs" / "fold", data.parent / "music")
        (data / "link").symlink_to(data.parent / "music")
        (data / "runs" / "link").symlink_to(data.parent / "music")
        before = tree(data.parent)
        monkeypatch.chdir(data)
        outcome = remove(data, name.format(data=data), "--yes")
        assert outcome.code == 1
        if name not in (".", "runs/../.."):
            assert outcome.error.startswith(error.format(data=data))
        assert tree(data.parent) == before

    def test_a_link_inside_loses_no_target(self, data: Path):
        (data.parent / "music").mkdir()
        (data.parent / "music" / "song.wav").write_bytes(b"mine")
        (data / "runs" / "stats" / "music").symlink_to(data.parent / "music")
        assert remove(data, "stats", "--yes").code == 0
        assert not (data / "runs" / "stats").exists()
        assert (data.parent / "music" / "song.wav").read_bytes() == b"mine"

    def test_a_name_of_two(self, data: Path):
        shutil.copytree(data / "features" / "songs", data / "features" / "others")
        outcome = remove(data, "mel-0bc65c", "--yes")
        names = "features/others/mel-0bc65c or features/songs/mel-0bc65c"
        assert (outcome.code, outcome.error) == (2, f"mel-0bc65c is the name of 2 folders; name {names}")

    def test_a_store_that_is_written_to(self, data: Path):
        store = data / "features" / "songs" / "mel-0bc65c"
        with write_lock(store):
            outcome = remove(data, "runs/stats", store, "--yes")
        assert outcome.code == 1
        assert f"{store}: process {os.getpid()} on " in outcome.error
        assert (data / "runs" / "stats").is_dir()  # nothing goes if not all can

    def test_a_run_that_may_be_in_training(self, data: Path):
        os.utime(data / "runs" / "unfinished" / "last.pt")
        assert (
            " is unfinished and was changed 0 s ago: it may be in training; stop"
            in remove(data, "unfinished", "--yes").error
        )
        os.utime(data / "runs" / "unfinished" / "last.pt", (time.time() - 200,) * 2)
        assert remove(data, "unfinished", "--yes").code == 0


def test_a_kill_leaves_remains_that_are_listed_and_removed(data: Path):
    store = data / "features" / "songs" / "mel-0bc65c"
    many = store / "shards" / "many"
    many.mkdir()
    for number in range(20_000):
        (many / str(number)).touch()
    remains = store.with_name(".removing-mel-0bc65c")
    command = [str(MGC), "remove", str(store), "--yes", "--data-dir", str(data)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not remains.exists():
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert remains.is_dir()
    assert not store.exists()
    items = {item["name"]: item["kind"] for item in mgc("list", "--json", "--data-dir", data).json["items"]}
    assert items["features/songs/.removing-mel-0bc65c"] == "remains"
    assert "`mgc remove NAME` finishes the removals that were interrupted" in mgc("list", "--data-dir", data).out
    assert Workspace(data).latest_store().name == "stats-a6309b"
    outcome = remove(data, ".removing-mel-0bc65c", "--yes")
    assert outcome.code == 0
    assert outcome.out.startswith(f"remove remains of a removal {remains}: ")
    assert not remains.exists()
