"""Packages as pip installs them: modules, and metadata that names their entry points."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mgc.pipeline import plugins
from mgc.pipeline.scaffold import package_files

PAGE = Path(__file__).parents[2] / "docs" / "own_system.md"
GROUPS = {"model": plugins.MODELS, "feature": plugins.FEATURES, "dataset": plugins.DATASETS}


def install(folder: Path, name: str, files: Mapping[str, str], entry_points: Mapping[str, str]) -> None:
    """Write version 1.0 of a distribution into a folder of `sys.path`.

    Args:
        folder: where it goes.
        name: of the distribution.
        files: text of each file by its path in the folder.
        entry_points: object of each entry point, by `group:name`.
    """
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "RECORD").write_text("".join(f"{path},,\n" for path in files))
    lines = []
    for point, value in entry_points.items():
        group, _, entry = point.partition(":")
        lines += [f"[{group}]", f"{entry} = {value}"]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")


def files_of(kind: str, name: str) -> tuple[dict[str, str], dict[str, str]]:
    """Files of the package that `mgc new` writes, without its tests, and its entry point."""
    files = package_files(kind, name)
    value = re.findall(rf'^{name} = "(\S+)"$', files["pyproject.toml"], re.MULTILINE)[0]
    modules = {path: text for path, text in files.items() if path.startswith(f"{name}/")}
    return modules, {f"{GROUPS[kind]}:{name}": value}


def documented_package() -> dict[str, str]:
    """The files that docs/own_system.md shows, by path: the line before each block names it."""
    text = PAGE.read_text(encoding="utf-8")
    return dict(re.findall(r"`([\w./]+)`[^\n]*\n\n```\w+\n(.*?)```", text, re.DOTALL))
