"""What commands print: lines above a progress bar, less with --quiet, more with --verbose, and no colours."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from commands import MGC, mgc

FIXTURE = Path(__file__).parents[1] / "fixtures" / "v0.1" / "workspace"

WORK = """
from mgc.pipeline import console
with console.progress_bar("extract", "track")(4) as advance:
    advance(1)
    console.echo("a note")
    console.echo("a warning", err=True)
    advance(3)
"""


def on_a_terminal(command: list[str], **environment: str) -> str:
    """What a command prints on a terminal of 80 columns; it must succeed."""
    parent, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    variables = os.environ | environment
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=variables) as process:
        os.close(terminal)
        shown = b""
        try:
            while data := os.read(parent, 4096):
                shown += data
        except OSError:  # Linux raises it at the end of a pseudo-terminal
            pass
        assert process.wait() == 0
    os.close(parent)
    return shown.decode()


def test_on_a_terminal_lines_stand_above_the_bar():
    shown = on_a_terminal([sys.executable, "-c", WORK])
    # What a carriage return leaves of each line.
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in shown.split("\n")]
    assert lines[:2] == ["a note", "a warning"]
    assert lines[2].startswith("extract: 100%|")


@pytest.mark.parametrize("words", ["--help", "list", "verify"])
def test_nothing_is_coloured(words: str):
    """So there is nothing for NO_COLOR to turn off."""
    terminal = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "FORCE_COLOR": "1", "MGC_DATA": str(FIXTURE)}
    shown = on_a_terminal([str(MGC), words], **terminal)
    assert len(shown) > 50
    assert re.findall(r"\x1b\[[\d;:]*m", shown) == []


class TestQuietAndVerbose:
    @pytest.fixture(autouse=True)
    def data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A copy of a workspace, as the one of the working folder."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("MGC_DATA")
        return shutil.copytree(FIXTURE, tmp_path / "data")

    def test_quiet_leaves_results_and_errors(self):
        for words in (("info",), ("verify",), ("slice", "--slice", 4), ("info", "--json")):
            usual, quiet = mgc(*words), mgc(*words, "--quiet")
            assert (quiet.code, quiet.err) == (0, "")
            assert usual.err
            assert quiet.out
            assert set(quiet.out.splitlines()) <= set(usual.out.splitlines())
        quiet = mgc("info", "nowhere", "--quiet")
        assert (quiet.code, quiet.out) == (1, "")
        assert quiet.error.startswith("nowhere: no feature store")

    def test_verbose_adds_settings_and_times(self):
        Path("mgc.toml").write_text("[verify]\njson = true\n")
        usual, verbose = mgc("verify"), mgc("verify", "--verbose")
        assert verbose.out == usual.out
        first, second, *others, time, processor = verbose.err.splitlines()
        assert (first, second) == ("json: yes (mgc.toml, line 2)", "verbose: yes (command line)")
        assert others == usual.err.splitlines()
        assert re.fullmatch(r"mgc verify: \d+\.\d\d s", time)
        assert re.fullmatch(r"processor time of this process: \d+\.\d\d s", processor)

    def test_the_stronger_source_decides_between_them(self, monkeypatch: pytest.MonkeyPatch):
        error = "--quiet and --verbose contradict each other; leave one of them out"
        assert mgc("info", "--quiet", "--verbose").error.partition(" (")[0] == error
        Path("mgc.toml").write_text("[all]\nquiet = true\n")
        assert mgc("info").err == ""
        assert "mgc info: " in mgc("info", "--verbose").err
        monkeypatch.setenv("MGC_INFO_VERBOSE", "1")
        assert "mgc info: " in mgc("info").err
        assert mgc("info", "--quiet").err == ""

    def test_of_a_training(self):
        words = ("train", "--model", "moments/knn", "--store", "data/features/songs/mel-0bc65c")
        quiet, verbose = mgc(*words, "--quiet"), mgc(*words, "--verbose")
        assert quiet.code == verbose.code == 0, quiet.err + verbose.err
        assert quiet.err == ""
        (line,) = quiet.out.splitlines()
        assert line.startswith("run: data/runs/")
        assert "training of moments/knn: " in verbose.err
        assert "not as published: " in verbose.out
