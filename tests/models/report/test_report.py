"""Reports as files: what they say, what they leave out and why, and that foreign names stay text."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commands import mgc

from mgc.models.report import page, results, track_map
from mgc.models.runs import seal
from mgc.models.runs.run import Run
from mgc.pipeline.escaping import visible
from mgc.pipeline.storage import files


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).replace("\N{NO-BREAK SPACE}", " ").split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def runs_of(data: Path) -> list[Path]:
    return sorted((data / "runs").iterdir())


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_evaluate_writes_a_report_into_the_sealed_run(data: Path) -> None:
    first, second = runs_of(data)
    html = (first / "report.html").read_text(encoding="utf-8")
    assert not (second / "report.html").exists()
    assert "report.html" in (seal.read(first) or {})
    assert mgc("verify", first).code == 0
    shown = Page(html)
    assert shown.count("script") == shown.count("style") == 1
    assert shown.count("audio") == shown.count("image") >= 3
    urls = [value for _, attributes in shown.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(re.match("#|data:", url or "") for url in urls)
    assert not re.search(r"url\(|@import|https?://", html.replace("data:", ""))
    (policy,) = (a["content"] for tag, a in shown.tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; media-src data:;")
    text = shown.text
    assert "the layer before the last" in text
    assert "None of these artists" not in text  # a dataset of folders knows no artists
    assert "One training, one seed" in text
    assert f"mgc evaluate {first}" in text
    for genre in Run.open(first).classes:
        assert visible(genre) in text


def test_a_damaged_report_is_named_with_its_remedy(data: Path, tmp_path: Path) -> None:
    shutil.copytree(runs_of(data)[0], tmp_path / "run")
    (tmp_path / "run" / "report.html").write_bytes(b"")
    assert mgc("verify", tmp_path / "run").error.endswith("; `mgc report` writes it anew")


@pytest.mark.usefixtures("tiny")
def test_the_command_writes_elsewhere_and_without_audio(data: Path, tmp_path: Path) -> None:
    run = runs_of(data)[0]
    outcome = mgc("report", run, "--no-audio", "--out", tmp_path / "a.html", "--json")
    size = (tmp_path / "a.html").stat().st_size
    assert outcome.json == {"report": str(tmp_path / "a.html"), "bytes": size, "runs": [str(run)]}
    shown = read(tmp_path / "a.html")
    assert shown.count("audio") == 0
    assert shown.count("image") >= 3
    assert "listen" not in shown.text
    assert mgc("report", run, "--split", "validation").error.startswith(
        f"{run} has not been evaluated on its validation"
    )
    assert mgc("evaluate", run, "--split", "validation").code == 0
    assert "No test: a network keeps the epoch" in read(run / "report-validation.html").text


@pytest.mark.usefixtures("tiny")
def test_what_is_gone_is_said(data: Path, tmp_path: Path) -> None:
    """Without audio files there are spectrograms, without a store neither; the scores are always there."""
    shutil.copytree(data, tmp_path / "data")
    (run, _) = runs_of(tmp_path / "data")
    (data / "songs").rename(data / "hidden")
    try:
        without_files = page.render(results.read_results(Run.open(run), "test")).decode()
    finally:
        (data / "hidden").rename(data / "songs")
    shown = Page(without_files)
    assert (shown.count("audio"), shown.count("image") > 0) == (0, True)
    assert "Some excerpts are missing: the file of track" in shown.text
    shutil.rmtree(tmp_path / "data" / "features")
    config = Run.open(run).config
    config["store"]["path"] = str(tmp_path / "nowhere")
    shown = Page(page.render(results.read_results(Run(run, config), "test")).decode())
    assert shown.count("image") == 0
    assert "Without spectrograms and excerpts, as the store cannot be read" in shown.text
    assert "the logarithms of the probabilities" in shown.text
    assert "Genre by genre" in shown.text


@pytest.mark.usefixtures("tiny")
def test_the_comparison_of_runs(data: Path, tmp_path: Path) -> None:
    one, two = runs_of(data)
    outcome = mgc("report", one, two, "--data-dir", data)
    assert outcome.code == 0, outcome.err
    shown = read(data / "comparison.html")
    assert "2 seeds" in shown.text
    assert "test/tiny is right on" in shown.text
    assert shown.count("table") >= 2
    (data / "comparison.html").unlink()


def test_runs_that_cannot_be_reported(data: Path, tmp_path: Path) -> None:
    one, two = runs_of(data)
    shutil.copytree(two, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    assert mgc("report", tmp_path / "run").error == (
        f"{tmp_path / 'run'} has not been evaluated on its test tracks; `mgc evaluate {tmp_path / 'run'}` does it"
    )
    seal.write_files(tmp_path / "run", {"metrics.json": b"{}"})
    assert "damaged (no scores)" in mgc("report", tmp_path / "run").error
    assert mgc("report", one, "--out", tmp_path / "no" / "such" / "folder.html").code == 1


@pytest.mark.parametrize(
    ("genres", "per_genre"),
    [(["a", "b"], 1), pytest.param([f"<b>{k}</b>\u202e" for k in range(161)], 1, marks=pytest.mark.slow)],
)
def test_any_number_of_genres(genres: list[str], per_genre: int, make_run: Callable[..., Run]) -> None:
    run = make_run(genres, per_genre)
    shown = Page(page.render(results.read_results(run, "test")).decode())
    assert sum(tag == "b" and not attributes for tag, attributes in shown.tags) == shown.count("article")
    assert visible(genres[0]) in shown.text
    assert "\u202e" not in shown.text
    assert (len(genres) * per_genre >= 8) == ("t-SNE" in shown.text)


@pytest.mark.slow
def test_a_run_on_fma_small_has_a_page_below_3_mb(make_run: Callable[..., Run]) -> None:
    """800 test tracks; what is missing here are pictures and excerpts of 12 tracks, 0.7 MB in the test of Chromium."""
    html = page.render(results.read_results(make_run([f"genre {k}" for k in range(8)], 100), "test"))
    assert 0.2e6 < len(html) < 1.5e6


def test_one_artist(make_run: Callable[..., Run]) -> None:
    run = make_run(["a", "b"], 4, artists=["<i>only one</i>"])
    shown = Page(page.render(results.read_results(run, "test")).decode())
    assert shown.count("i") == 0
    assert "1 artist of these tracks also stand in another split" in shown.text
    assert "There are too few artists to tell any result from guessing" in shown.text
    no_artists = make_run(["a", "b"], 4, artists=[None])
    shown = Page(page.render(results.read_results(no_artists, "test")).decode())
    assert "by unknown artists" in shown.text
    assert "By artist" not in shown.text


def test_scores_of_an_earlier_version(make_run: Callable[..., Run]) -> None:
    """Without the scores, joins and records that later versions added."""
    run = make_run(["a", "b"])
    old = results.read_results(run, "test").metrics
    for name in ("join", "joins", "other_seeds", "audit"):
        del old[name]
    for scores in (old["by_track"], old["by_slice"]):
        for name in ("reliability", "ece", "top_k", "roc_auc", "average_precision", "balanced_accuracy", "mcc"):
            del scores[name]
        for row in scores["by_genre"].values():
            del row["roc_auc"], row["average_precision"]
    run.write_files({"metrics.json": files.encode_json(old)})
    shown = Page(page.render(results.read_results(run, "test")).decode())
    assert "An earlier version of mgc evaluated this run" in shown.text
    assert "ROC-AUC" not in shown.text


@pytest.mark.usefixtures("tiny")
def test_the_map_is_of_the_last_layer_but_one(data: Path) -> None:
    run = Run.open(runs_of(data)[0])
    found = results.read_results(run, "test")
    ids = [track.id for track in found.tracks]
    vectors = track_map.penultimate(run, "test", ids, "cpu")
    assert vectors is not None
    assert vectors.shape == (len(ids), 8 * 8 * 8)
    plane = track_map.make(found, "cpu")
    again = track_map.make(found, "cpu")
    assert plane is not None
    assert again is not None
    for name, points in plane.layouts.items():
        assert points.min() == 0
        assert points.max() == 1
        assert (points == again.layouts[name]).all()
