"""Reports in headless Chromium: no request, no overflow, every figure drawn, scripts work, axe-core finds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, browser
from commands import mgc, mgc_all
from tiny import TINY

from mgc.models.registry import systems

#: Elements that are wider than the window, but for those inside a box that scrolls.
OVERFLOWING = """
const boxes = [...document.body.querySelectorAll("*")].filter((e) => !e.closest("svg svg, .scroll > *, pre"));
return boxes.filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map((e) => e.outerHTML.slice(0, 100));
"""
#: Pictures without anything drawn in them, or of no size.
EMPTY = """
return [...document.querySelectorAll("figure svg, article svg, header svg, .hero svg")].filter((e) => {
  const box = e.getBoundingClientRect();
  return !e.querySelector("rect, circle, path, line, image") || box.width < 5 || box.height < 5;
}).map((e) => e.outerHTML.slice(0, 100));
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(data: Path) -> dict[str, Path]:
    """The report of a run, and a comparison of two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems._systems, TINY.id, TINY)
        runs = sorted((data / "runs").iterdir())
        outcome = mgc("report", *runs, "--out", data / "both.html")
        assert outcome.code == 0, outcome.err
    return {"report": runs[0] / "report.html", "comparison": data / "both.html"}


@pytest.mark.parametrize("scripts", [True, False], ids=["js", "no-js"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_a_page_is_clean(
    name: str, width: int, dark: bool, scripts: bool, pages: dict[str, Path], chromium: Browser
) -> None:
    require_clean(pages[name], width, dark, scripts, chromium)


def require_clean(page: Path, width: int, dark: bool, scripts: bool, chromium: Browser) -> None:
    """Assert that a page requests nothing and fits the window, that no figure is empty, and that axe finds nothing."""
    chromium.open(page, width, scripts=scripts, dark=dark)
    assert chromium.requests() == [page.as_uri()]
    assert chromium.messages() == []
    background = chromium.run("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is not dark
    assert chromium.run("return document.documentElement.scrollWidth") <= width
    assert chromium.run(OVERFLOWING) == []
    assert chromium.run(EMPTY) == []
    assert chromium.run("return document.documentElement.classList.contains('js')") is scripts
    chromium.run("for (const e of document.querySelectorAll('details')) e.open = true")
    assert chromium.run("return document.documentElement.scrollWidth") <= width
    assert chromium.violations() == []


@pytest.fixture(scope="module")
def corpus_pages(corpus: Path, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of a network on real music, and its comparison with a classical system."""
    data = tmp_path_factory.mktemp("corpus") / "data"
    mgc_all(
        data,
        ("extract", "--dataset", corpus / "fma_debian", "--feature", "mel", "--scheduler", scheduler),
        ("train", "--model", "moments/svm"),
        ("evaluate", "--no-report"),
        ("train", "--model", "vit2021/cnn", "--epochs", 2),
        ("evaluate",),
    )
    runs = list((data / "runs").iterdir())
    outcome = mgc("report", *runs, "--out", data / "both.html")
    assert outcome.code == 0, outcome.err
    [network] = (data / "runs").glob("*vit2021-cnn")
    return {"report": network / "report.html", "comparison": data / "both.html"}


@pytest.mark.slow
@pytest.mark.corpus
@pytest.mark.parametrize(("width", "dark", "scripts"), [(360, False, True), (1280, True, True), (1280, False, False)])
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_a_page_of_real_music_is_clean(
    name: str, width: int, dark: bool, scripts: bool, corpus_pages: dict[str, Path], chromium: Browser
) -> None:
    assert corpus_pages[name].stat().st_size < 3e6
    require_clean(corpus_pages[name], width, dark, scripts, chromium)
    if name == "report":
        assert chromium.run("return document.querySelectorAll('audio').length") >= 6


def test_tables_sort(pages: dict[str, Path], chromium: Browser) -> None:
    chromium.open(pages["report"], 1280)
    column = "return [...document.querySelectorAll('#genre-table tbody tr')].map((r) => r.cells[0].textContent.trim())"
    click = "document.querySelectorAll('#genre-table th button')[0].click()"
    before = chromium.run(column)
    chromium.run(click)
    rising = chromium.run(column)
    assert rising == chromium.run("return arguments[0].sort((a, b) => a.localeCompare(b))", before)
    chromium.run(click)
    assert chromium.run(column) == rising[::-1]
    sorts = "return [...document.querySelectorAll('#genre-table th')].map((head) => head.ariaSort)"
    assert chromium.run(sorts)[:2] == ["descending", None]
    values = "return [...document.querySelectorAll('#all-tracks tbody tr')].map((r) => Number(r.cells[4].dataset.v))"
    chromium.run("document.querySelectorAll('#all-tracks th button')[4].click()")
    shares = chromium.run(values)
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) > 1


def test_excerpts_play_one_at_a_time(pages: dict[str, Path], chromium: Browser) -> None:
    chromium.open(pages["report"], 1280)
    played = chromium.run("""
        const [one, two] = document.querySelectorAll("audio");
        await one.play();
        await new Promise((resolve) => one.addEventListener("timeupdate", resolve, { once: true }));
        const moved = one.closest("article").querySelector(".playhead").getAttribute("transform");
        await two.play();
        await new Promise((resolve) => setTimeout(resolve, 50));
        return { duration: one.duration, moved, paused: one.paused, playing: !two.paused,
          marked: document.querySelectorAll(".playing").length };
    """)
    assert 1 < played["duration"] < 5.2
    assert played["moved"].startswith("translate(")
    assert (played["paused"], played["playing"], played["marked"]) == (True, True, 1)
    assert chromium.messages() == []


@pytest.mark.parametrize("width", [360, 1280])
def test_pointing_at_a_track_names_and_plays_it(width: int, pages: dict[str, Path], chromium: Browser) -> None:
    chromium.open(pages["report"], width)
    found = chromium.run("""
        const row = document.querySelector("#all-tracks tr[data-card]");
        const number = [...row.parentNode.rows].indexOf(row);
        const point = document.querySelector(`.map circle[data-row="${number}"]`);
        point.scrollIntoView({ block: "center" });
        const box = point.getBoundingClientRect();
        const at = { bubbles: true, clientX: box.x + box.width / 2, clientY: box.y + box.height / 2 };
        point.dispatchEvent(new PointerEvent("pointermove", at));
        const words = document.querySelector(".about .words").textContent;
        point.dispatchEvent(new MouseEvent("click", at));
        const audio = document.getElementById(row.dataset.card).querySelector("audio");
        await new Promise((resolve) => setTimeout(resolve, 100));
        return { words, title: row.cells[0].textContent, marked: document.querySelectorAll(".map .on").length,
          maps: document.querySelectorAll(".map svg").length,
          thumb: document.querySelectorAll(".about image").length, playing: !audio.paused };
    """)
    assert found["words"].startswith(found["title"])
    assert ", recognised with " in found["words"] or ", taken for " in found["words"]
    assert found["marked"] == found["maps"] > 0
    assert (found["thumb"], found["playing"]) == (1, True)
    assert chromium.messages() == []


def test_a_page_runs_no_script_but_its_own(pages: dict[str, Path], tmp_path: Path, chromium: Browser) -> None:
    """The policy holds: a script and a picture that someone adds are refused."""
    html = pages["report"].read_text(encoding="utf-8")
    added = '<script>document.title = "hacked"</script><img src="http://127.0.0.1:9/x.png" alt="">'
    page = tmp_path / "changed.html"
    page.write_text(html.replace("<main>", f"<main>{added}"), encoding="utf-8")
    chromium.open(page, 1280)
    assert chromium.run("return document.title") != "hacked"
    refused = chromium.messages()
    assert len(refused) == 2
    assert all("Content Security Policy" in message for message in refused)
