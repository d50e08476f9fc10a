"""`mgc compare`: which runs it takes, its formats, and its errors."""

import csv
import io
import re
import shutil
from pathlib import Path

import pytest
from commands import mgc, tree
from scored import GENRES, make_scored_run

from mgc.models.runs.run import Run

TRUTH = [GENRES[k % 3] for k in range(60)]
DAMAGED = "damaged (its bytes are not those that were written)"
#: A name that HTML, Markdown, LaTeX, spreadsheets and terminals would interpret.
EVIL = "=<b>*a*</b>|_&%$#{}\\^~\u202e\n\x1b"


def make(folder: Path, n_right: int, **options) -> Run:
    """A run that has the first so many tracks right."""
    guesses = [true if k < n_right else GENRES[(k + 1) % 3] for k, true in enumerate(TRUTH)]
    return make_scored_run(folder, guesses, TRUTH, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with three evaluated runs on the same tracks, two on others and one that is not evaluated."""
    data = tmp_path_factory.mktemp("compare") / "data"
    make(data / "runs", 54, model="moments/svm", config={"kind": "classical", "params": None})
    make(data / "runs", 25, config={"seed": 1})
    make(data / "runs", 31, config={"seed": 2}, metrics={"leaky": True})
    make_scored_run(data / "runs", TRUTH[:40], TRUTH[:40], model="vit2021/cnn")
    make(data / "runs", 20, model="vit2021/lstm", evaluated=False)
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


def folder(data: Path, model: str) -> Path:
    return next(data.glob(f"runs/*-{model}"))


def test_without_runs_those_on_the_tracks_of_the_newest_one_are_compared(data: Path) -> None:
    before = tree(data)
    outcome = mgc("compare", "--data-dir", data)
    newest = folder(data, "vit2021-cnn")
    line = f"runs: 1 evaluated run on the test tracks of {newest}; 3 with other tracks left out\n"
    assert (outcome.code, outcome.err) == (0, line)
    assert "nothing to compare it with" in outcome.out
    (newest / "metrics.json").write_bytes(b"{}")
    outcome = mgc("compare", "--data-dir", data)
    assert outcome.err.splitlines()[0] == f"left out: {newest / 'metrics.json'}: {DAMAGED}"
    assert "runs: 3 evaluated runs on the test tracks of" in outcome.err
    assert outcome.out.startswith("2 systems on the test split of songs: 60 tracks by 60 artists\n")
    common = mgc("compare", "--data-dir", data, "--common")
    assert common.out == outcome.out
    assert tree(data).keys() == before.keys()


def test_the_table(data: Path) -> None:
    outcome = mgc("compare", folder(data, "moments-svm"), *data.glob("runs/*kth2020*"), "--data-dir", data)
    assert (outcome.code, outcome.err) == (0, "")
    rows = [line.split() for line in outcome.out.splitlines() if line.startswith("  2  kth2020/cnn")]
    assert rows[0][2:5] == ["46.7", "±", "7.1"]
    assert rows[0][-2:] == ["b", "LEAKY"]
    assert rows[1][2] == "-43.3"
    assert rows[2][2:] == ["2", "seeds", "1,000", "12", "s", "4", "kB"]
    assert "Row 2: LEAKY, the system has heard test tracks in training" in outcome.out
    assert "published, by slice" in outcome.out
    assert all(len(line) <= 80 for line in outcome.out.splitlines() if str(data) not in line)


def test_formats_escape_names(tmp_path: Path) -> None:
    config = {"training": {"name": EVIL, "seed": 0}}
    runs = [make(tmp_path / "runs", n, config=config | extra).path for n, extra in ((50, {}), (40, {"frames": 64}))]
    words = ("compare", *runs, "--data-dir", tmp_path)
    other = make(tmp_path / "runs", 30).path
    text, markdown, latex, table = (
        mgc(*words, other, *form).out for form in ((), ("--markdown",), ("--latex",), ("--csv",))
    )
    for out in (text, markdown, latex, table):
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", out)
    cells = next(line for line in markdown.splitlines() if line.startswith("| 1 |"))
    assert r"=&lt;b&gt;\*a\*&lt;/b&gt;\|\_&amp;%\$\#{}\\^\~" in cells
    assert len(re.split(r"(?<!\\)\|", cells)) == 13
    assert r"=\textless{}b\textgreater{}*a*\textless{}/b\textgreater{}\textbar{}\_\&\%\$\#\{\}\textbackslash{}" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {11}
    lines = list(csv.DictReader(io.StringIO(table)))
    assert [line["kind"] for line in lines[:3]] == ["measured"] * 3
    assert float(lines[1]["to_best"]) == pytest.approx(-1 / 6)
    assert lines[-1]["kind"] == "published by slice"
    plain = mgc(*words, "--json").json
    assert plain["rows"][1]["to_best"]["accuracy"]["difference"] == pytest.approx(1 / 6)
    assert [row["letters"] for row in plain["rows"]] == ["a", "b"]


def test_a_csv_cell_is_no_formula(tmp_path: Path) -> None:
    run = make(tmp_path, 30, model="kth2020/cnn").path
    run.rename(tmp_path / "=run")
    (row, *_) = csv.DictReader(io.StringIO(mgc("compare", tmp_path / "=run", "--csv").out))
    assert row["runs"].startswith(str(tmp_path))
    assert row["system"] == "kth2020/cnn"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("none", "{run} has not been evaluated; `mgc evaluate {run}` does it"),
        ("metrics.json", f"{{run}}/metrics.json: {DAMAGED}; delete it and evaluate again"),
        ("track-predictions.parquet", f"{{run}}/track-predictions.parquet: {DAMAGED}; `mgc evaluate`"),
        ("tracks.parquet", "{run}/tracks.parquet: damaged"),
    ],
)
def test_runs_that_cannot_be_compared(damage: str, expected: str, data: Path) -> None:
    run = folder(data, "vit2021-lstm" if damage == "none" else "moments-svm")
    if damage != "none":
        (run / damage).write_bytes(b"damaged")
    outcome = mgc("compare", run, "--data-dir", data)
    assert outcome.code == 1
    assert outcome.error.startswith(expected.format(run=run))


def test_damage_that_no_seal_notices(data: Path) -> None:
    run = folder(data, "moments-svm")
    (run / "sealed.json").unlink()
    for name in ("metrics.json", "track-predictions.parquet"):
        before = (run / name).read_bytes()
        for content in (b"", b"[1]", b'{"a":', before[:50]):
            (run / name).write_bytes(content)
            outcome = mgc("compare", run, "--data-dir", data)
            assert outcome.code == 1
            assert f"{name}: damaged" in outcome.error
        (run / name).write_bytes(before)
    assert mgc("compare", run, "--data-dir", data).code == 0


def test_other_splits_and_tracks(data: Path) -> None:
    run, other = folder(data, "moments-svm"), folder(data, "vit2021-cnn")
    outcome = mgc("compare", run, "--split", "validation", "--data-dir", data)
    remedy = f"`mgc evaluate {run} --split validation` does it"
    assert outcome.error == f"{run} has not been evaluated on its validation tracks; {remedy}"
    outcome = mgc("compare", run, other, "--data-dir", data)
    assert (outcome.code, "40 are the same; --common compares them" in outcome.error) == (1, True)
    outcome = mgc("compare", run, other, "--common", "--data-dir", data)
    assert (outcome.code, "20 tracks that not all runs have are left out." in outcome.out) == (0, True)
    outcome = mgc("compare", "--csv", "--json", "--data-dir", data)
    assert (outcome.code, outcome.error) == (2, "--csv and --json: one format at a time; leave out the others")
    outcome = mgc("compare", "--data-dir", data / "nowhere")
    assert outcome.error.endswith("has been evaluated; name runs, or `mgc evaluate RUN` first")


def test_runs_of_an_earlier_version() -> None:
    runs = Path(__file__).parents[2] / "fixtures" / "v0.1" / "workspace" / "runs"
    outcome = mgc("compare", runs / "classical", runs / "ensemble", "--json")
    assert outcome.code == 0, outcome.err
    for row in outcome.json["rows"]:
        measured = mgc("info", row["runs"][0], "--json").json
        assert row["model"] == measured["model"]
    assert outcome.json["n_tracks"] > 0
