"""The seal of a run: damage to any byte is noticed or harmless, and what still works does."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from commands import mgc
from damage import flip
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from stores import make_store
from tiny import TINY

from mgc.models.registry import systems
from mgc.models.runs import seal
from mgc.models.runs.run import Run
from mgc.models.training.train import Options, resume, train
from mgc.pipeline.errors import RunError
from mgc.pipeline.storage import files


@pytest.fixture(scope="module", autouse=True)
def tiny() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems._systems, TINY.id, TINY)
        yield


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of three epochs, evaluated on validation, that was interrupted after its first epoch."""
    folder = tmp_path_factory.mktemp("seal")
    torch.set_num_threads(1)

    def interrupt(text: str) -> None:
        if text.startswith("epoch 1/3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([make_store(folder / "store")], Options(model=TINY.id, epochs=3), folder / "runs", echo=interrupt)
    (path,) = (folder / "runs").iterdir()
    assert mgc("evaluate", path, "--split", "validation", "--device", "cpu").code == 0
    return Run.open(path)


@pytest.fixture
def run(unfinished: Run) -> Run:
    """A copy of it, beside it."""
    copy = unfinished.path.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    return Run.open(Path(shutil.copytree(unfinished.path, copy)))


def test_every_file_of_a_run_is_sealed(run: Run) -> None:
    sealed = seal.read(run.path)
    assert sealed is not None
    assert {*sealed, seal.NAME} == {file.name for file in run.path.iterdir()}
    assert all(len(states) == 1 for states in sealed.values())
    said = mgc("verify", run.path, "--json")
    assert said.json == {"run": str(run.path), "ok": True, "sealed": True, "problems": []}


def test_a_flipped_bit_of_the_weights_is_noticed(run: Run) -> None:
    flip(run.path / "best.pt", -3000)
    outcome = mgc("evaluate", run.path, "--split", "validation", "--device", "cpu")
    assert outcome.code == 1
    assert outcome.error.startswith(f"{run.path / 'best.pt'}: damaged (its bytes are not those that were written); ")
    assert mgc("verify", run.path, "--json").json["problems"][0]["file"] == str(run.path / "best.pt")


def said_of(run: Path) -> dict[str, str]:
    """What each command says of a run, without what differs from call to call."""
    found = {}
    for command in ("info --json", "evaluate --split validation --device cpu --json"):
        name, *options = command.split()
        outcome = mgc(name, run, *options)
        assert "bug in mgc" not in outcome.err
        assert "Traceback" not in outcome.out + outcome.err
        if outcome.code:
            assert outcome.error
            assert "damaged" in outcome.error
        else:
            value = outcome.json
            value.pop("evaluations", None)
            found[name] = json.dumps(value)
    return found


@pytest.mark.slow
@given(st.data())
@examples(15)
def test_a_flipped_or_lost_byte_gives_the_same_result_or_one_line(unfinished: Run, data: st.DataObject) -> None:
    copy = unfinished.path.with_name("damaged")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(unfinished.path, copy)
    if not (expected := _EXPECTED.get(unfinished.path)):
        expected = _EXPECTED[unfinished.path] = said_of(copy)
        shutil.rmtree(copy)
        shutil.copytree(unfinished.path, copy)
    file = data.draw(st.sampled_from(sorted(copy.iterdir())))
    content = bytearray(file.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        file.write_bytes(content[:position])
    else:
        content[position] ^= 1 << data.draw(st.integers(0, 7))
        file.write_bytes(content)
    outcome = mgc("verify", copy, "--json")
    assert outcome.code == 1
    assert file.name in outcome.error
    for name, said in said_of(copy).items():
        assert said == expected[name]


_EXPECTED: dict[Path, dict[str, str]] = {}


def test_damage_leaves_what_does_not_need_the_file(run: Run) -> None:
    """Evaluation without history or last.pt, resumption without history and best weights."""
    flip(run.path / "history.jsonl", -20)
    last = (run.path / "last.pt").read_bytes()
    flip(run.path / "last.pt", -3000)
    assert "`mgc evaluate` and `mgc train --resume` work without it" in mgc("info", run.path).error
    assert mgc("evaluate", run.path, "--split", "validation", "--device", "cpu").code == 0
    with pytest.raises(RunError, match=r"last.pt: damaged .*`mgc evaluate` works without it"):
        resume(Run.open(run.path), echo=lambda text: None)
    (run.path / "last.pt").write_bytes(last)
    flip(run.path / "best.pt", -3000)
    lines: list[str] = []
    resume(Run.open(run.path), echo=lines.append)
    assert f"{run.path / 'best.pt'} is damaged: the best epoch is chosen among those to come" in lines
    resumed = Run.open(run.path)
    assert resumed.summary["best_epoch"] in (2, 3)
    assert len(resumed.history) == 3
    assert not list(seal.problems(run.path))


@pytest.mark.parametrize("name", ["config.json", "tracks.parquet"])
def test_what_no_command_can_do_without_is_said(name: str, run: Run) -> None:
    commands = (("info",), ("verify",), ("evaluate", "--split", "validation", "--device", "cpu"))
    for damage in (partial(flip, position=-20), Path.unlink):
        damage(run.path / name)
        for command, *options in commands:
            outcome = mgc(command, run.path, *options)
            assert outcome.code == 1
            assert outcome.error.startswith(f"{run.path / name}: ")
            assert outcome.error.endswith("train a new run: no command can use the run without it")


def test_a_kill_while_a_file_is_replaced_damages_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write = files.write_bytes
    for stop in (1, 2, 3):
        calls: list[Path] = []

        def killed(path: Path, data: bytes, calls: list[Path] = calls, stop: int = stop) -> None:
            calls.append(path)
            if len(calls) == stop:
                raise SystemExit
            write(path, data)

        with monkeypatch.context() as patch:
            patch.setattr(files, "write_bytes", killed)
            with pytest.raises(SystemExit):
                run.write_files({"history.jsonl": b"{}\n"})
        assert not list(seal.problems(run.path))
        assert run.history in ([{}], Run.open(run.path).history)


def test_a_run_without_a_seal_works_and_says_so(run: Run) -> None:
    (run.path / "sealed.json").unlink()
    lost = mgc("verify", run.path)
    assert (lost.code, lost.error.split(";")[0]) == (1, f"{run.path / 'sealed.json'}: damaged (missing)")
    config = json.loads((run.path / "config.json").read_bytes())
    del config["sealed"]  # as 0.1.0 wrote it
    (run.path / "config.json").write_text(json.dumps(config))
    outcome = mgc("verify", run.path)
    assert outcome.code == 0
    assert outcome.out == f"{run.path}: has no seal, as mgc 0.1.0 wrote none: its files cannot be checked\n"
    resume(Run.open(run.path), echo=lambda text: None)
    assert mgc("evaluate", run.path, "--device", "cpu").code == 0
    assert not (run.path / "sealed.json").exists()
    for name, content in (("history.jsonl", "{}\n["), ("summary.json", "{")):
        (run.path / name).write_text(content)
        assert f"{name}: damaged" in mgc("info", run.path).error
