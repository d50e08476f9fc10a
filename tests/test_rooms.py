"""The order of the rooms: which sub-package may import which, and that no two modules import each other."""

from __future__ import annotations

import ast
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Rooms from top to bottom: a module imports from its own room and from those below, never from one above.
ORDER = (
    "mgc",
    "mgc.__main__",
    "mgc.cli",
    "mgc.models.interface",
    "mgc.models.commands",
    "mgc.models.report",
    "mgc.models.reproduction",
    "mgc.models.compare",
    "mgc.models.audit",
    "mgc.models.service",
    "mgc.models.search",
    "mgc.models.prediction",
    "mgc.models.embedding",
    "mgc.models.export",
    "mgc.models.evaluation",
    "mgc.models.training",
    "mgc.models.network",
    "mgc.models.data",
    "mgc.models.zoo",
    "mgc.models.registry",
    "mgc.models.housekeeping",
    "mgc.models.runs",
    "mgc.models.parallel",
    "mgc.models.classical",
    "mgc.models.skops_reader",
    "mgc.models",
    "mgc.pipeline.plot",
    "mgc.pipeline.commands",
    "mgc.pipeline.configuration",
    "mgc.pipeline.completion",
    "mgc.pipeline.extraction",
    "mgc.pipeline.demo",
    "mgc.pipeline.fingerprints",
    "mgc.pipeline.store",
    "mgc.pipeline.features",
    "mgc.pipeline.audio",
    "mgc.pipeline.dsp",
    "mgc.pipeline.downloads",
    "mgc.pipeline.datasets",
    "mgc.pipeline.scaffold",
    "mgc.pipeline.workspace",
    "mgc.pipeline.console",
    "mgc.pipeline.help_groups",
    "mgc.pipeline.option_types",
    "mgc.pipeline.settings",
    "mgc.pipeline.storage",
    "mgc.pipeline.plugins",
    "mgc.pipeline.pages",
    "mgc.pipeline.pictures",
    "mgc.pipeline.suggestions",
    "mgc.pipeline.units",
    "mgc.pipeline.versions",
    "mgc.pipeline.troubleshooting",
    "mgc.pipeline.wrapping",
    "mgc.pipeline.escaping",
    "mgc.pipeline.errors",
    "mgc.pipeline",
    "mgc.manifests",
)


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    files = [ROOT / "__init__.py", ROOT / "__main__.py", ROOT / "cli.py"]
    for package in ("pipeline", "models", "manifests"):
        files += (ROOT / package).rglob("*.py")
    found = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(("mgc", *(parts[:-1] if parts[-1] == "__init__" else parts)))] = file
    return found


MODULES = modules()


def imported(name: str) -> set[str]:
    """The project's modules that a module imports anywhere: in functions and under TYPE_CHECKING, too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            parent = node.module or ""
            for alias in node.names:
                inner = f"{parent}.{alias.name}"
                found.add(inner if inner in MODULES else parent)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return (found & MODULES.keys()) - {name}


IMPORTS = {name: imported(name) for name in MODULES}


def room(name: str) -> str:
    """The room that a module stands in: the longest name of `ORDER` that it begins with."""
    return max((place for place in ORDER if name == place or name.startswith(f"{place}.")), key=len)


def test_every_module_has_a_room() -> None:
    astray = {name for name in MODULES if room(name) in ("mgc", "mgc.models", "mgc.pipeline") and name not in ORDER}
    assert not astray


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_downwards(name: str) -> None:
    floor = ORDER.index(room(name))
    upwards = {other for other in IMPORTS[name] if ORDER.index(room(other)) < floor}
    assert not upwards


def test_no_two_modules_import_each_other() -> None:
    """Directly or through others; `prepare` raises `CycleError`, which names the circle."""
    TopologicalSorter(IMPORTS).prepare()


def test_every_package_is_installed() -> None:
    """setuptools is given a list of them: one that is not in it would be missing from the wheel."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name for name, file in MODULES.items() if file.name == "__init__.py"}
    assert set(project["tool"]["setuptools"]["packages"]) == packages


def test_only_the_console_prints() -> None:
    """Names from strangers' files hold control characters: `console.echo` escapes them, `print` does not."""
    allowed = {"mgc.pipeline.console", "mgc.pipeline.plugins"}  # the latter stands below the console
    printing = {
        f"{name}:{node.lineno}"
        for name, file in MODULES.items()
        if name not in allowed
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "click.echo", "click.secho", "tqdm.write")
    }
    assert not printing, "use `console.echo`, or `console.echo_text` for several lines"
