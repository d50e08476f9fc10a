"""Run the command line in tests, and compare folders before and after."""

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

#: The installed command.
MGC = Path(sys.executable).with_name("mgc")


@dataclass(frozen=True)
class Outcome:
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The error message: the last line on stderr. All others must be progress, or name what was taken."""
        *others, last = self.err.splitlines()
        assert last.startswith("error: "), self.err
        heads = ("dataset: ", "store: ", "run: ", "model: ", "extract: ", "verify: ")
        assert all(line.startswith(heads) for line in others), self.err
        assert "Traceback" not in self.out
        return last.removeprefix("error: ")


def mgc(*arguments: object) -> Outcome:
    """Run a command in this process: a new process takes a second to import the libraries."""
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments], prog_name="mgc")
    return Outcome(result.exit_code, result.stdout, result.stderr)


def mgc_all(workspace: Path, *commands: tuple[object, ...]) -> None:
    """Run commands that must succeed, one after the other, in this process, in a workspace."""
    for words in commands:
        outcome = mgc(*words, "--data-dir", workspace)
        assert outcome.code == 0, outcome.err


def mgc_process(*arguments: object, timeout: float | None = 120, **environment: str) -> Outcome:
    """Run a command in its own process; None leaves the time limit to pytest."""
    command = [str(MGC), *map(str, arguments)]
    run = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=timeout)
    return Outcome(run.returncode, run.stdout, run.stderr)


def done_in(workspace: Path, *arguments: object) -> Outcome:
    """Run a command that must succeed, in its own process, in a workspace."""
    outcome = mgc_process(*arguments, timeout=None, MGC_DATA=str(workspace))
    assert outcome.code == 0, outcome.err
    return outcome


def tree(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder but lock files, by its path."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every file below a folder: they change when a file is written again."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    status = {path.relative_to(folder).as_posix(): path.stat() for path in sorted(paths)}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in status.items()}
