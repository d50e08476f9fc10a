"""Lines for the user that are printed while a progress bar is shown."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios

WORK = """
from mgc.pipeline import console
with console.progress_bar("extract", "track")(4) as advance:
    advance(1)
    console.echo("a note")
    console.echo("a warning", err=True)
    advance(3)
"""


def test_on_a_terminal_lines_stand_above_the_bar():
    parent, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    with subprocess.Popen([sys.executable, "-c", WORK], stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        try:
            while data := os.read(parent, 4096):
                shown += data
        except OSError:  # Linux raises it at the end of a pseudo-terminal
            pass
        assert process.wait() == 0
    os.close(parent)
    # What a carriage return leaves of each line.
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in shown.decode().split("\n")]
    assert lines[:2] == ["a note", "a warning"]
    assert lines[2].startswith("extract: 100%|")
