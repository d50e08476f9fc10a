"""Genres, titles, artists, files and folders whose names a terminal would obey: they are shown escaped everywhere."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import Outcome, mgc
from matplotlib.figure import Figure
from music import write_clip

from mgc.pipeline import escaping, pictures

#: Characters that must not reach a terminal; newlines only between lines.
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: Escape sequence, C1 control, delete, carriage return, tab, newline, bidi override and isolate, line separator.
EVIL = "\x1b[2J\x9b31m\x7f\r\t\n\u202e\u2066\u2028!"
SHOWN = r"\x1b[2J\x9b31m\x7f\r\t\n\u202e\u2066\u2028!"
GENRES = (f"R{EVIL}ock", f"F{EVIL}olk")


def assert_safe(outcome: Outcome) -> None:
    for text in (outcome.out, outcome.err):
        assert not UNSAFE.search(text), ascii(text)
        assert "\nolk" not in text, text
        assert "\nock" not in text, text


def test_escapes() -> None:
    assert escaping.visible(f"a{EVIL}b") == f"a{SHOWN}b"
    assert escaping.visible("Größe – 音楽 \N{NO-BREAK SPACE}שלום") == "Größe – 音楽 \N{NO-BREAK SPACE}שלום"
    assert escaping.visible("\udce9\ud800") == r"\xe9\ud800"  # a byte of a file name that is not UTF-8
    assert escaping.visible_lines("a\r\nb\x1b\n") == "a\\r\nb\\x1b\n"
    value = {"a\x1b": [f"{EVIL}\\x1b", 1, None]}
    text = escaping.visible_json(json.dumps(value, indent=2, ensure_ascii=False))
    assert not UNSAFE.search(text)
    assert json.loads(text) == value
    assert escaping.visible_fields({"a\n": ("b\t", 1.5)}) == {r"a\n": (r"b\t", 1.5)}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 16 clips and a damaged file; what can have a hostile name has one."""
    folder = tmp_path_factory.mktemp("library")
    rows = [("path", "genre", "artist", "title", "split")]
    for i in range(16):
        write_clip(folder / f"{i}{EVIL}.wav", seed=i)
        split = ("training", "training", "validation", "test")[i // 4]
        rows.append((f"{i}{EVIL}.wav", GENRES[i % 2], f"artist{i}{EVIL}", f"title{EVIL}", split))
    (folder / f"damaged{EVIL}.wav").write_bytes(b"RIFF")
    rows += [(f"{name}{EVIL}.wav", GENRES[0], "a", "t", "training") for name in ("damaged", "missing")]
    with (folder / f"list{EVIL}.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.mark.slow
def test_names_of_a_dataset(library: Path, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    encode = pictures.encode
    monkeypatch.setattr(pictures, "encode", lambda figure, *form: (drawn.append(figure), encode(figure, *form))[1])
    data = tmp_path / f"data{EVIL}"

    def done(*words: object) -> Outcome:
        outcome = mgc(*words, "--data-dir", data)
        assert_safe(outcome)
        assert outcome.code == 0, outcome.err
        return outcome

    extracted = done(
        "extract", "--dataset", library / f"list{EVIL}.csv", "--feature", "mfcc", "--slice", "0.5",
        "--scheduler", scheduler,
    )  # fmt: skip
    assert rf"R{SHOWN}ock" in extracted.out
    assert rf"missing{SHOWN}.wav" in extracted.out
    (store,) = data.glob("features/*/mfcc-*")
    assert json.loads(done("info", store, "--json").out)["genres"] == dict.fromkeys(GENRES, 8)
    for words in (("info", store), ("verify", store), ("slice", store, "--slice", "0.4")):
        done(*words)
    done("train", "--model", "moments/knn", "--seeds", "0,1")
    assert SHOWN in done("train", "--model", "moments/logreg", "--evaluate").out
    runs = sorted((data / "runs").iterdir())
    for run in runs:
        assert rf"F{SHOWN}olk" in done("info", run).out
    assert SHOWN in done("evaluate", *runs, "--by-genre").out
    for form in ((), ("--markdown",), ("--latex",), ("--csv",), ("--json",)):
        done("compare", *runs, *form)
    (path,) = (Path(file) for file in done("evaluate", runs[0], "--json").json["files"] if file.endswith("csv"))
    assert not UNSAFE.search(path.read_text(encoding="utf-8"))
    tracks = pq.read_table(path.with_suffix(".parquet"))
    assert tracks["title"][0].as_py() == f"title{EVIL}"
    assert {f"p_{genre}" for genre in GENRES} <= set(tracks.column_names)
    assert drawn
    for figure in drawn:
        texts = figure.findobj(lambda artist: hasattr(artist, "get_text"))
        assert not any(UNSAFE.search(text.get_text()) or "\n" in text.get_text() for text in texts)


@pytest.mark.parametrize(
    "words",
    [
        ("extract", "--dataset", "{evil}", "--feature", "mel"),
        ("extract", "--dataset", "{evil}", "--feature", "mel", "--debug"),
        ("extract", "--feature", "{evil}"),
        ("extract", "--feature", "mel:{evil}=1"),
        ("extract", "{evil}", "{evil}"),
        ("train", "--model", "{evil}"),
        ("train", "--epochs", "{evil}"),
        ("train", "--residency", "{evil}"),
        ("train", "--store", "{evil}"),
        ("compare", "{evil}"),
        ("evaluate", "{evil}"),
        ("evaluate", "--split", "{evil}"),
        ("info", "{evil}"),
        ("info", "s3://{evil}"),
        ("verify", "{evil}"),
        ("slice", "{evil}", "--slice", "1"),
        ("slice", "--place", "{evil}"),
        ("split", "{evil}", "--redo"),
        ("new", "{evil}"),
        ("new", "model", "{evil}"),
        ("models", "--{evil}"),
        ("{evil}",),
    ],
    ids=lambda words: " ".join(words),
)
def test_errors(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["mgc", *words])
    outcome = mgc(*(word.replace("{evil}", f"x{EVIL}y") for word in words))
    assert_safe(outcome)
    assert outcome.code in (1, 2)
    assert "bug in mgc" not in outcome.err
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "\\x1b" in last
