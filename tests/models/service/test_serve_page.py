"""The page of `mgc serve` in headless Chromium: a file is chosen, dropped or recorded, and its genres are seen."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, browser
from music import write_clip
from serving import TOKEN, ServerProcess, server

pytestmark = pytest.mark.slow

_MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
#: Elements that are wider than the window, but for those inside a box that scrolls.
OVERFLOWING = """
const boxes = [...document.body.querySelectorAll("*")].filter((e) => !e.closest("svg svg, .scroll > *, .hidden"));
return boxes.filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map((e) => e.outerHTML.slice(0, 100));
"""
STATE = """return {
  status: document.querySelector("#status").textContent, error: document.querySelector("#error").textContent,
  verdict: document.querySelector("#verdict").textContent, name: document.querySelector("#name").textContent,
  genres: [...document.querySelectorAll("#genres th")].map((e) => e.textContent),
  seconds: document.querySelectorAll("#seconds tr").length,
  cells: document.querySelectorAll("#chart rect.p").length, pictures: document.querySelectorAll("#chart image").length,
};"""


@pytest.fixture(scope="module")
def running(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with server(tmp_path_factory.mktemp("server"), run, "--workers", 1, token=TOKEN) as started:
        yield started


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile"), *_MICROPHONE) as opened:
        yield opened


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("songs") / "a <b>song.mp3", 8.2)


def result(chromium: Browser, seconds: float = 60) -> dict:
    """What the page shows once it has an answer or an error."""
    deadline = time.monotonic() + seconds
    while True:
        state = chromium.run(STATE)
        if state["error"] or state["status"].startswith("Done"):
            return state
        assert time.monotonic() < deadline, state
        time.sleep(0.05)


def check_clean(chromium: Browser, running: ServerProcess, width: int) -> None:
    urls = chromium.requests()
    assert urls
    assert all(url.startswith((running.url, f"blob:{running.url}")) for url in urls), urls
    assert chromium.messages() == []
    assert chromium.run("return document.documentElement.scrollWidth") <= width
    assert chromium.run(OVERFLOWING) == []
    assert chromium.violations() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_a_chosen_file_shows_its_genres(width, dark, running, chromium, song) -> None:
    chromium.open(running.url, width, dark=dark)
    background = chromium.run("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is not dark
    check_clean(chromium, running, width)
    chromium.type("#token", TOKEN)
    chromium.type("#file", song)
    state = result(chromium)
    answer = running.predict(song.read_bytes(), song.name, timeline="true").json()
    shares = answer["probabilities"]
    assert state["error"] == ""
    assert state["name"] == song.name
    assert state["verdict"].startswith(answer["genre"])
    assert state["genres"] == sorted(shares, key=shares.get, reverse=True)
    assert state["seconds"] == len(answer["timeline"]) == 9
    assert (state["cells"], state["pictures"]) == (27, 1)
    chromium.run("for (const e of document.querySelectorAll('details')) e.open = true")
    chromium.requests()
    chromium.run("await fetch('healthz')")  # so that there is a request to check
    check_clean(chromium, running, width)


def test_the_spectrogram_shows_the_tone_where_it_is(running, chromium, tmp_path) -> None:
    """A tone of 1 kHz: the brightest row of the picture is at 1 kHz on its axis."""
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 1000 * np.arange(4 * 44100) / 44100), 44100)
    chromium.open(running.url, 1280)
    chromium.type("#token", TOKEN)
    chromium.type("#file", tmp_path / "tone.wav")
    result(chromium)
    found = chromium.run("""
        const shown = document.querySelector("#chart image"), picture = new Image();
        picture.src = shown.getAttribute("href");
        await picture.decode();
        const canvas = document.createElement("canvas");
        canvas.width = picture.width; canvas.height = picture.height;
        const context = canvas.getContext("2d");
        context.drawImage(picture, 0, 0);
        const column = context.getImageData(picture.width >> 1, 0, 1, picture.height).data;
        const light = Array.from({ length: picture.height }, (_, row) => column[4 * row] + column[4 * row + 1]);
        const row = light.indexOf(Math.max(...light)) + 0.5;
        const y = Number(shown.getAttribute("y")) + row / picture.height * Number(shown.getAttribute("height"));
        const label = [...document.querySelectorAll("#chart text")].find((e) => e.textContent === "1 kHz");
        return { y, axis: Number(label.getAttribute("y")) - 4 };
    """)
    assert found["y"] == pytest.approx(found["axis"], abs=2)


def test_a_dropped_file_plays_with_a_moving_line(running, chromium, song) -> None:
    chromium.open(running.url, 1280)
    chromium.type("#token", TOKEN)
    chromium.run(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], "dropped.mp3", { type: "audio/mpeg" }));
        document.getElementById("drop").dispatchEvent(
          new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer }));
        """,
        base64.b64encode(song.read_bytes()).decode(),
    )
    assert result(chromium)["name"] == "dropped.mp3"
    played = chromium.run("""
        const player = document.getElementById("player"), line = document.querySelector(".playhead");
        await player.play();
        player.currentTime = 4;
        await new Promise((resolve) => player.addEventListener("timeupdate", resolve, { once: true }));
        await new Promise((resolve) => setTimeout(resolve, 300));
        player.pause();
        return { moved: line.getAttribute("transform"), duration: player.duration, now: player.currentTime };
    """)
    assert played["moved"] != "translate(0 0)"
    assert played["duration"] == pytest.approx(8.2, abs=0.2)
    assert played["now"] > 4
    assert chromium.messages() == []


def test_a_recording_is_named(running, chromium) -> None:
    """Of Chromium's false microphone, which beeps."""
    chromium.open(running.url, 360)
    chromium.type("#token", TOKEN)
    chromium.run("document.getElementById('record').click()")
    time.sleep(4)
    assert chromium.run("return document.getElementById('record').getAttribute('aria-pressed')") == "true"
    chromium.run("document.getElementById('record').click()")
    state = result(chromium)
    assert (state["error"], state["name"], state["pictures"]) == ("", "Recording", 1)
    assert 2 <= state["seconds"] <= 6
    assert chromium.messages() == []


def test_what_the_server_refuses_is_said(running, chromium, song, tmp_path) -> None:
    (tmp_path / "notes.mp3").write_text("no music")
    chromium.open(running.url, 360)
    chromium.type("#file", song)
    assert result(chromium)["error"].startswith("the token is missing or wrong; ")
    chromium.type("#token", TOKEN)
    chromium.type("#file", tmp_path / "notes.mp3")
    time.sleep(0.3)
    assert result(chromium)["error"].startswith("the file cannot be used: not-audio")
    (tmp_path / "large.wav").write_bytes(bytes(100_100_000))
    chromium.type("#file", tmp_path / "large.wav")
    assert result(chromium)["error"] == "large.wav has 100.1 MB; at most 100 MB are taken"


def test_a_song_of_no_genre_is_none_of_these(run, chromium, song, tmp_path) -> None:
    with server(tmp_path / "server", run, "--workers", 1, "--unknown", 0.99999) as unsure:
        chromium.open(unsure.url, 360)
        assert "less than 99.999 %" in chromium.run("return document.querySelector('header').textContent")
        chromium.type("#file", song)
        state = result(chromium)
        answer = unsure.predict(song.read_bytes(), song.name).json()
        best = answer["top"][0]["genre"]
        assert answer["genre"] is None
        assert state["verdict"].startswith(f"none of these (most probable: {best} ")
        assert state["status"].startswith(f"Done: none of these (most probable: {best} ")
        assert state["genres"][0] == best
        check_clean(chromium, unsure, 360)


def test_the_keyboard_is_enough(running, chromium) -> None:
    """Everything that can be done is reached by Tab, and shows that it has the focus."""
    chromium.open(running.url, 1280)
    found = chromium.run("""
        const reached = [...document.querySelectorAll("input, button, audio, summary, [tabindex]")]
          .filter((e) => !e.closest("[hidden]"));
        return reached.map((e) => { e.focus(); return [e.id, document.activeElement === e]; });
    """)
    assert found == [["token", True], ["file", True], ["record", True]]
