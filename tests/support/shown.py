"""What pages show in blocks: commands with their output, and Python code."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Programs that a line of a block calls. In a block with lines that begin with `$`, only these are commands.
PROGRAMS = ("cd", "curl", "dask", "docker", "export", "make", "mgc", "openssl", "pip", "python", "torchrun")
#: Two blanks or more, or ` # `, divide a command from what the page says of it.
_REMARK = re.compile(r" {2,}| +# ")
_FENCE = re.compile(r"^ *```(\{?[\w-]*\}?)$")


@dataclass(frozen=True)
class Block:
    """Lines of a page that are indented or fenced.

    Attributes:
        line: number of the first line, from 1.
        language: of a fence, `{toctree}` for a directive; empty for an indented block.
        lines: without indentation.
    """

    line: int
    language: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class ShownCommand:
    """A command as a page shows it.

    Attributes:
        line: number of its line, from 1.
        words: what a reader types.
        output: the lines below it, up to the next command of its block.
    """

    line: int
    words: str
    output: tuple[str, ...]


def blocks(page: Path) -> Iterator[Block]:
    """All blocks of a page, in its order."""
    language: str | None = None  # of the open fence
    first, lines = 0, list[str]()
    before = ""
    for number, line in enumerate([*page.read_text(encoding="utf-8").splitlines(), "end"], start=1):
        fence = _FENCE.match(line)
        if language is not None:
            if fence:
                yield Block(first, language, tuple(lines))
                language, lines = None, []
            else:
                lines.append(line)
        elif line.startswith("    ") and (lines or not before.strip()) and not fence:
            first = first if lines else number
            lines.append(line[4:])
        elif lines and not line.strip():
            lines.append("")
        else:
            if lines:
                yield Block(first, "", tuple(lines))
            lines = []
            if fence:
                first, language = number + 1, fence[1]
        before = line


def commands(page: Path) -> list[ShownCommand]:
    """All commands in the blocks of a page, in its order.

    Raises:
        AssertionError: a block begins with a program that is none of PROGRAMS.
    """
    shown = []
    for block in blocks(page):
        if block.language not in ("", "console"):
            continue
        prompts = [line.startswith("$ ") for line in block.lines]
        if not any(prompts):
            prompts = [Path(line.split(" ")[0]).name in PROGRAMS for line in block.lines]
            first = block.lines[0].split(" ")[0]
            assert any(prompts) or not shutil.which(first), f"{page.name}, line {block.line}: is {first} a command?"
        for number, line in enumerate(block.lines):
            if prompts[number]:
                shown.append([block.line + number, _REMARK.split(line.removeprefix("$ "))[0].strip(), []])
            elif any(prompts[:number]):
                shown[-1][2].append(line)
    return [ShownCommand(line, words, tuple(filter(None, output))) for line, words, output in shown]


def python_blocks(page: Path) -> list[Block]:
    """All blocks of Python code of a page."""
    return [block for block in blocks(page) if block.language == "python"]
