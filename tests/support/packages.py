"""Packages as pip installs them: modules, and metadata that names their entry points."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


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
