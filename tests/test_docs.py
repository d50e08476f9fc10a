"""The pages that describe the code name modules and functions that exist, and the rooms in their order."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from functools import reduce
from pathlib import Path

import click
import pytest
from commands import mgc
from test_rooms import ORDER

from mgc.cli import COMMANDS, main
from mgc.pipeline.troubleshooting import anchor

ROOT = Path(__file__).parents[1]
DESIGN = ROOT / "docs" / "design.md"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "tests" / "fixtures" / "README.md")
#: Names files of a package that its reader writes.
OWN_PACKAGE = ROOT / "docs" / "own_system.md"
#: `folder/`, `path.py`, or `path.py:name` and `path.py:Class.name`, in backticks; paths start at the repository.
REFERENCE = re.compile(r"`((?:[\w.-]+/)*(?:[\w-]+\.(?:py|md|toml)|[\w-]+/))(?::([\w.]+))?`")
#: Files of a user, not of the repository.
USERS = {"mgc.toml"}
#: Folders of the repository; others, such as `events/`, belong to stores and runs.
FOLDERS = ("benchmarks", "docs", "manifests", "models", "pipeline", "tests")


def references(page: Path) -> list[tuple[str, str]]:
    """Paths, and names in them, that a page mentions."""
    found = REFERENCE.findall(page.read_text(encoding="utf-8"))
    matches = [(path, name) for path, name in found if path not in USERS]
    return [(path, name) for path, name in matches if "/" not in path or path.partition("/")[0] in FOLDERS]


def dotted(path: str) -> str:
    """Name of the module or package at a path in the repository."""
    parts = ["mgc", *path.removesuffix(".py").rstrip("/").split("/")]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("page", sorted({*PAGES} - {OWN_PACKAGE}), ids=lambda page: page.relative_to(ROOT).as_posix())
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


#: A command in a line of a block, or within backticks, where it may be wrapped.
COMMAND = re.compile(r"^ {4}(?:\$ )?mgc ([a-z]+)(.*)$|`mgc ([a-z]+)([^`]*)`", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_their_options_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for in_block, line, inline, words in COMMAND.findall(text):
        name = in_block or inline
        if f"mgc {name}: " in text:  # a line of output
            continue
        assert name in COMMANDS, name
        command = main.get_command(click.Context(main), name)
        known = {word for option in command.params for word in (*option.opts, *option.secondary_opts)}
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", (line.partition("   ")[0] if in_block else words)))
        assert used - known - {"--help", "--debug"} == set(), f"mgc {name}"


@pytest.mark.slow
def test_the_site_is_built_without_warnings(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
        ROOT / "docs",
        tmp_path / "site",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "site" / "commands.html").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f'id="mgc-{name}"' not in page] == []
    assert ".. option::" not in page


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^([a-z_]+)$", index, re.MULTILINE)
    assert sorted(listed) == sorted({path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"})


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).is_file(), (page.name, target)


def texts(module: str) -> list[str]:
    """The constant parts of all strings in a module; those that stand side by side are one, `{}` is a value."""
    nodes = list(ast.walk(ast.parse(module)))
    joined = [
        "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        for node in nodes
        if isinstance(node, ast.JoinedStr)
    ]
    return joined + [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_messages_that_are_explained_are_said_by_the_code() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    modules = [path for room in ("pipeline", "models") for path in (ROOT / room).rglob("*.py")]
    code = [text for path in modules for text in texts(path.read_text(encoding="utf-8"))]
    explained = re.findall(r"^### `([^`]+)`$", page, re.MULTILINE)
    assert len(explained) > 40
    assert [message for message in explained if not any(message in text for text in code)] == []
    listed = (ROOT / "manifests" / "troubleshooting.txt").read_text(encoding="utf-8").splitlines()
    assert listed == explained, "manifests/troubleshooting.txt lists the headings of the page, in their order"


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def test_links_to_headings_lead_somewhere() -> None:
    links = [
        (page, target, heading)
        for page in PAGES
        for target, heading in re.findall(r"\]\(([^):#]*)#([^)]*)\)", page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 10
    wrong = [(page.name, t, h) for page, t, h in links if h not in anchors(page.parent / t if t else page)]
    assert wrong == []


def test_an_error_names_its_explanation_with_verbose(tmp_path: Path) -> None:
    words = ("evaluate", "--data-dir", tmp_path / "empty")
    usual, verbose = mgc(*words), mgc(*words, "--verbose")
    assert usual.error.startswith("no run in ")
    assert "more: " not in usual.err
    *_, error, more = verbose.err.splitlines()
    assert (error, more) == (usual.err.strip(), "more: docs/troubleshooting.md#no-run-in")
    assert "more: " not in mgc("info", tmp_path / "no", "--nonsense", "--verbose").err  # it needs no explanation
