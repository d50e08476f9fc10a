"""Stores on disk: foreign folders, other format versions, a second writer, missing permissions, a full disk."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import stalling
from commands import MGC, mgc, stamps, tree
from music import write_genres

from mgc.pipeline.errors import StoreError
from mgc.pipeline.storage import files
from mgc.pipeline.store.store import Store

FEATURE = "stft:n_fft=512"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_genres(tmp_path_factory.mktemp("music") / "songs", tracks=3, seconds=0.6)


@pytest.fixture(scope="module")
def finished(dataset: Path, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store."""
    out = tmp_path_factory.mktemp("finished")
    options = ("--dataset", dataset, "--out", out, "--data-dir", out / "data", "--scheduler", scheduler)
    assert mgc("extract", *options, "--feature", FEATURE, "--slice", "0.4").code == 0
    return next(out.glob("stft-*"))


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished store."""
    return shutil.copytree(finished, tmp_path / finished.name)


def extract_into(store: Path, dataset: Path, *options: object) -> tuple:
    """Return the arguments of `mgc extract` that write the store."""
    where = ("--dataset", dataset, "--out", store.parent, "--data-dir", store.parent / "data")
    return ("extract", *where, "--feature", FEATURE, "--slice", "0.4", "--workers", 1, *options)


class TestForeign:
    def test_a_store_of_a_later_format_is_refused_by_every_command(self, store, dataset):
        head = json.loads((store / "store.json").read_text())
        files.write_json(store / "store.json", head | {"format": 5, "something": "new"})
        before = stamps(store)
        commands = [(name, store) for name in ("info", "verify", "split")] + [("slice", store, "--slice", 1)]
        for command in (*commands, extract_into(store, dataset)):
            outcome = mgc(*command)
            assert outcome.code == 1
            problem = f"{store}: a store of format 5, this mgc reads formats 3 and 4; use the version"
            assert outcome.error.startswith(problem)
        assert stamps(store) == before

    @pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"format": 3}', b"\xff\xfe", b"[" * 100_000, b"null"])
    def test_garbage_for_a_head(self, content, store, dataset):
        healthy = tree(store)
        (store / "store.json").write_bytes(content)
        before = stamps(store)
        for command in (("info", store), ("verify", store)):
            outcome = mgc(*command)
            assert outcome.code == 1
            assert outcome.error.startswith(f"{store / 'store.json'}: damaged")
            assert outcome.error.endswith("restores it without decoding")
        assert stamps(store) == before
        assert mgc(*extract_into(store, dataset)).code == 0
        assert tree(store) == healthy

    def test_an_edited_head(self, store):
        """The frames were computed with the values before the edit, so the store is refused."""
        text = (store / "store.json").read_text()
        (store / "store.json").write_text(text.replace('"sr": 44100', '"sr": 22050'))
        with pytest.raises(StoreError, match=r"store.json: damaged \(its bytes are not those that were written\)"):
            Store.open(store)

    def test_a_head_that_is_gone_and_the_way_back(self, store, dataset, scheduler):
        healthy = tree(store)
        (store / "store.json").unlink()
        for command in (("info", store), ("verify", store), ("slice", store, "--slice", 1)):
            assert mgc(*command).error.startswith(
                f"{store}: store.json is missing, but the shards of a store are there; `mgc extract"
            )
        assert mgc(*extract_into(store, dataset)).code == 0
        assert tree(store) == healthy
        shutil.rmtree(store)
        assert mgc(*extract_into(store, dataset, "--scheduler", scheduler)).code == 0
        assert tree(store) == healthy

    def test_no_store_at_all(self, tmp_path):
        for path in (tmp_path, tmp_path / "nothing"):
            error = mgc("info", path).error
            assert error == f"{path}: no feature store; make one with `mgc extract`, or name another folder"
        (tmp_path / "file").touch()
        assert mgc("verify", tmp_path / "file").error.startswith(f"{tmp_path / 'file'}")

    def test_a_folder_of_somebody_elses_is_left_alone(self, store, dataset):
        shutil.rmtree(store)
        store.mkdir()
        (store / "thesis.doc").write_text("years of work")
        outcome = mgc(*extract_into(store, dataset))
        assert outcome.code == 1
        assert (
            outcome.error == f"{store}: holds something that is not a feature store; choose another folder with --out"
        )
        assert [path.name for path in store.iterdir()] == ["thesis.doc"]


class TestFileInTheWay:
    @pytest.mark.parametrize("at", ["out", "out/stft-e466e2", "data/features"])
    def test_where_a_folder_is_needed(self, at, dataset, tmp_path):
        (tmp_path / at).parent.mkdir(exist_ok=True)
        (tmp_path / at).write_text("a file")
        out = ("--out", tmp_path / "out") if at.startswith("out") else ()
        words = ("--feature", FEATURE, "--slice", "0.3", "--data-dir", tmp_path / "data")
        outcome = mgc("extract", "--dataset", dataset, *words, *out)
        assert outcome.code == 1
        assert str(tmp_path / at) in outcome.error
        assert "a file exists where a folder is needed; move it away or choose another folder" in outcome.error
        assert (tmp_path / at).read_text() == "a file"

    def test_where_the_workspace_is_needed(self, dataset, tmp_path):
        (tmp_path / "data").write_text("a file")
        words = ("--feature", FEATURE, "--slice", "0.3", "--data-dir", tmp_path / "data")
        outcome = mgc("extract", "--dataset", dataset, *words)
        assert "a file exists where a folder is needed" in outcome.error


class TestSecondWriter:
    @pytest.fixture
    def writer(self, store: Path, dataset: Path, tmp_path: Path):
        """A process that holds the lock of the store."""
        stall = {"process": "client", "at": "mgc.pipeline.store.manifest:join_fragments", "call": 1, "after": False}
        command = [str(word) for word in extract_into(store, dataset, "--slice", "0.3")]
        process = subprocess.Popen(
            [sys.executable, stalling.__file__, *command],
            env=os.environ | {"STALL": json.dumps(stall | {"flag": str(tmp_path / "held")})},
        )
        try:
            while not (tmp_path / "held").exists():
                assert process.poll() is None
                time.sleep(0.01)
            yield process
        finally:
            process.kill()
            process.wait()

    def test_is_told_who_holds_the_store_and_changes_nothing(self, writer, store, dataset):
        before = stamps(store)
        for command in (
            extract_into(store, dataset),
            ("slice", store, "--slice", "0.2"),
            ("split", store, "--redo"),
        ):
            outcome = mgc(*command)
            assert outcome.code == 1
            assert outcome.error.startswith(f"{store}: process {writer.pid} on ")
            assert outcome.error.endswith(" is writing to it; wait for it to end")
        assert stamps(store) == before
        assert mgc("info", store).code == 0
        assert mgc("verify", store).code == 0

    def test_can_go_on_as_soon_as_the_first_is_killed(self, writer, store):
        writer.kill()
        writer.wait()
        assert mgc("slice", store, "--slice", "0.2", "--overlap", "0").code == 0


@pytest.mark.slow
def test_of_two_extractions_at_once_one_works_and_the_other_says_who_it_is(finished, dataset, tmp_path):
    """The second starts while the first is decoding."""
    store, held = tmp_path / "out" / finished.name, tmp_path / "held"
    stall = {
        "process": "worker",
        "at": "mgc.pipeline.extraction.reading:inspect",
        "call": 1,
        "after": False,
        "flag": str(held),
    }
    environment = os.environ | {"STALL": json.dumps(stall), "DASK_DISTRIBUTED__WORKER__PRELOAD": stalling.__file__}
    command = [str(MGC), *map(str, extract_into(store, dataset))]
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        while not held.exists():
            assert first.poll() is None, first.stdout.read()
            time.sleep(0.01)
        for options in ((), ("--rebuild",), ("--verify",)):
            outcome = mgc(*extract_into(store, dataset, *options))
            assert outcome.code == 1
            who = f"process {first.pid} on {socket.gethostname()}"
            assert outcome.error == f"{store}: {who} is writing to it; wait for it to end"
        assert "its extraction is unfinished" in mgc("info", store).error
        Path(f"{held}.go").touch()
        output, _ = first.communicate(timeout=120)
    finally:
        first.kill()
        first.wait()
    assert first.returncode == 0, output
    assert tree(store) == tree(finished)


def in_namespace(script: str, **variables: object) -> subprocess.CompletedProcess:
    """Run a shell script in a mount namespace: its mounts are invisible to other processes and end with the script."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("cannot create a mount namespace")
    environment = os.environ | {key: str(value) for key, value in variables.items()}
    return subprocess.run(
        [*unshare, "bash", "-u", "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_a_full_disk_is_said_in_one_line_and_costs_nothing_but_space(finished, dataset, tmp_path):
    """A disk of 12 kB is too small for the journal, one of 80 kB holds one or two shards, one of 16 MB is enough."""
    (tmp_path / "disk").mkdir()
    run = in_namespace(
        """
        mount -t tmpfs -o size=12k none $DISK
        $EXTRACT > /dev/null; echo $?
        find $DISK/out -name '*.parquet' | wc -l
        mount -o remount,size=80k $DISK
        $EXTRACT > /dev/null; echo $?
        find $DISK/out -name '0*.parquet' | wc -l
        find $DISK/out -name '.tmp*' | wc -l
        mount -o remount,size=16m $DISK
        $EXTRACT > /dev/null; echo $?
        cp -r $DISK/out $COPY
        """,
        DISK=tmp_path / "disk",
        COPY=tmp_path / "copy",
        EXTRACT=" ".join(map(str, (MGC, *extract_into(tmp_path / "disk" / "out" / "store", dataset)))),
    )
    first, plans, second, shards, leftovers, third = map(int, run.stdout.split())
    assert (first, second, third) == (1, 1, 0), run.stderr
    assert (plans, leftovers) == (0, 0)
    assert shards in (1, 2)  # of three
    errors = [line for line in run.stderr.splitlines() if not line.startswith("extract: ")]
    remedy = "the disk is full; free some space and run the same command again: it continues"
    assert errors == [f"error: {tmp_path / 'disk' / 'out'}: {remedy}"] * 2
    assert tree(tmp_path / "copy" / finished.name) == tree(finished)


@pytest.mark.slow
def test_a_store_that_cannot_be_written_can_still_be_read(store, dataset, tmp_path):
    before = stamps(store)
    run = in_namespace(
        """
        mount --bind $STORE $STORE && mount -o remount,ro,bind $STORE
        $MGC info $STORE > /dev/null; echo $?
        $MGC verify $STORE > /dev/null; echo $?
        $MGC slice $STORE --slice 0.3; echo $?
        $EXTRACT --slice 0.3 > /dev/null; echo $?
        mount -o remount,rw,bind $STORE
        $EXTRACT --slice 0.3 > /dev/null; echo $?
        """,
        STORE=store,
        MGC=MGC,
        EXTRACT=" ".join(map(str, (MGC, *extract_into(store, dataset)))),
    )
    assert run.stdout.split() == ["0", "0", "1", "1", "0"]
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    for error in errors:
        assert error.startswith(f"error: {store}")
        assert "cannot be written (Read-only file system); choose another folder or change its permissions" in error
    now = stamps(store)
    rewritten = {name for name in before if now[name] != before[name]}
    assert rewritten == {"slices.parquet", "tracks.parquet", "published.json"}


@pytest.mark.slow
def test_a_folder_that_is_read_only_is_said_in_one_line_and_can_be_used_once_it_is_not(finished, dataset, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    run = in_namespace(
        """
        mount -t tmpfs -o size=64m,ro none $OUT
        $EXTRACT > /dev/null; echo $?
        mount -o remount,rw $OUT
        $EXTRACT > /dev/null; echo $?
        cp -r $OUT $COPY
        """,
        OUT=out,
        COPY=tmp_path / "copy",
        EXTRACT=" ".join(map(str, (MGC, *extract_into(out / "store", dataset), "--data-dir", tmp_path / "data"))),
    )
    assert run.stdout.split() == ["1", "0"], run.stderr
    (error,) = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: {out}")
    assert error.endswith("cannot be written (Read-only file system); choose another folder or change its permissions")
    assert tree(tmp_path / "copy" / finished.name) == tree(finished)
