"""The command line as tests call it, and what a folder looks like before and after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from mgc import cli

#: The installed command, as users call it.
MGC = Path(sys.executable).with_name("mgc")


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The error it ended with: one line on stderr, the last one; all others are progress or say what is used."""
        *others, last = self.err.splitlines()
        assert last.startswith("error: "), self.err
        assert all(line.startswith(("dataset: ", "store: ", "extract: ", "verify: ")) for line in others), self.err
        assert "Traceback" not in self.out
        return last.removeprefix("error: ")


def mgc(*arguments: object) -> Outcome:
    """Run a command in this process, which saves it the second that Python takes to import the libraries."""
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments], prog_name="mgc")
    return Outcome(result.exit_code, result.stdout, result.stderr)


def mgc_process(*arguments: object, **environment: str) -> Outcome:
    """Run a command in a process of its own."""
    command = [str(MGC), *map(str, arguments)]
    run = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
    return Outcome(run.returncode, run.stdout, run.stderr)


def tree(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, lock files aside."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file below a folder: another one was written anew, with the same content or not."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    found = {path.relative_to(folder).as_posix(): path.stat() for path in sorted(paths)}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}
