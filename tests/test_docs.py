"""The pages that describe the code name modules and functions that exist, and the rooms in their order."""

from __future__ import annotations

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest
from test_rooms import ORDER

ROOT = Path(__file__).parents[1]
DESIGN = ROOT / "docs" / "design.md"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "tests" / "fixtures" / "README.md")
#: `folder/`, `path.py`, or `path.py:name` and `path.py:Class.name`, in backticks; paths start at the repository.
REFERENCE = re.compile(r"`((?:[\w.-]+/)*(?:[\w-]+\.(?:py|md|toml)|[\w-]+/))(?::([\w.]+))?`")
#: Folders of the repository; others, such as `events/`, belong to stores and runs.
FOLDERS = ("benchmarks", "docs", "manifests", "models", "pipeline", "tests")


def references(page: Path) -> list[tuple[str, str]]:
    """Paths, and names in them, that a page mentions; the README's section on a user's own package names its files."""
    before, _, section = page.read_text(encoding="utf-8").partition("### Adding one\n")
    matches = REFERENCE.findall(before + section.partition("\n## ")[2])
    return [(path, name) for path, name in matches if "/" not in path or path.partition("/")[0] in FOLDERS]


def dotted(path: str) -> str:
    """Name of the module or package at a path in the repository."""
    parts = ["mgc", *path.removesuffix(".py").rstrip("/").split("/")]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_and_functions_exist(page: Path) -> None:
    for path, name in references(page):
        assert (ROOT / path).exists(), path
        if name:
            reduce(getattr, name.split("."), importlib.import_module(dotted(path)))


def test_the_design_page_follows_a_track_and_a_slice() -> None:
    """The check above finds the references at all."""
    assert len([name for _, name in references(DESIGN) if name]) > 30


def test_the_design_page_lists_the_rooms_in_their_order() -> None:
    section = DESIGN.read_text(encoding="utf-8").partition("## Rooms\n")[2].partition("\n## ")[0]
    assert tuple(dotted(path) for path in re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)) == ORDER
