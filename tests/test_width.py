"""No line of a command is wider than a terminal of 80 columns, with 16 genres of 60 characters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import Outcome, mgc
from genres import LONG_GENRES
from music import write_genres
from tiny import TINY

from mgc.models.registry import systems
from mgc.pipeline import console

MEL = ("--feature", "mel:n_mels=8,n_fft=512", "--slice", "1.6")
#: A path, with a label before it or not; a command to copy. Neither can be broken. An error is one line by contract.
UNBREAKABLE = re.compile(r"\s*([a-z]+: )?\S+|\$? ?mgc .*|error: .*")


def too_wide(outcome: Outcome) -> list[str]:
    lines = (*outcome.out.splitlines(), *outcome.err.splitlines())
    return [line for line in lines if len(line) > 80 and not UNBREAKABLE.fullmatch(line)]


@pytest.mark.slow
def test_no_line_is_wider_than_a_terminal(scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of the commands, in an order in which each finds what it needs."""
    monkeypatch.setitem(systems._systems, TINY.id, TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MGC_DATA")
    monkeypatch.delenv("COLUMNS", raising=False)
    songs = write_genres(Path("data/songs"), genres=LONG_GENRES, tracks=4, seconds=1.7)
    first, second, *_ = sorted(songs.rglob("*.wav"))
    first.write_bytes(b"")
    (songs / LONG_GENRES[3] / "a copy of another file.wav").write_bytes(second.read_bytes())
    train = ("train", "--model", TINY.id, "--epochs", 1)

    monkeypatch.setattr(console, "_is_terminal", lambda err: True)

    def done(*words: object, code: int = 0) -> None:
        outcome = mgc(*words)
        assert outcome.code == code, outcome.err
        assert not too_wide(outcome), words

    done("extract", *MEL, "--dry-run")
    done("extract", *MEL, "--scheduler", scheduler)
    done("slice", "--slice", 1.5)
    done("split")
    done("split", "--redo", "--seed", 1)
    done("audit", code=1)
    for words in (("info",), ("verify",), ("models",), ("models", TINY.id), ("models", "kth2020/cnn")):
        done(*words)
    for words in (("list",), ("config",), ("config", "train"), ("remove", Path("data/songs"), "--dry-run")):
        done(*words)
    done(*train, "--seeds", "0,1")
    done(*train, "--find-lr")
    done("train", "--model", "moments/knn", "--folds", 2)
    for run in sorted(Path("data/runs").iterdir())[1:3]:
        done("info", run)
        done("verify", run)
    done("evaluate", "--by-genre")
    done("train", "--resume")
    done("plot", "--out", "picture.png")
    done("download")
    done("download", "fma-small", "--dry-run")
    done("new", "model", "acme")
