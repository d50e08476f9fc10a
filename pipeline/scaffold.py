"""`mgc new`: a package of the user's own that adds a system, a feature or a dataset layout, with a test."""

from __future__ import annotations

import importlib.util
import keyword
import re
from importlib import resources
from pathlib import Path
from string import Template

import click

from mgc.pipeline import console, help_groups
from mgc.pipeline.console import LOCAL_PATH
from mgc.pipeline.errors import MgcError, SpecError

#: What can be added, and the command that uses it.
KINDS = {
    "model": "mgc train --model {name}/cnn",
    "feature": "mgc extract --feature {name}",
    "dataset": "mgc extract --format {name} --dataset FOLDER --feature mel",
}


def package_files(kind: str, name: str) -> dict[str, str]:
    """The files of a new package, by their path in it.

    Args:
        kind: one of `KINDS`.
        name: name of the distribution, its package and its entry point.
    """
    words = {"name": name, "class_name": "".join(part.capitalize() for part in name.split("_"))}
    paths = {"module.py": f"{name}/__init__.py", "test.py": f"tests/test_{name}.py", "pyproject.toml": "pyproject.toml"}
    files = {}
    for template in (resources.files("mgc.manifests") / "templates" / kind).iterdir():
        file = template.name.removesuffix(".in")
        text = Template(template.read_text(encoding="utf-8")).substitute(words)
        files[paths.get(file, f"{name}/{file}")] = text
    return dict(sorted(files.items()))


def write_package(kind: str, name: str, folder: Path) -> Path:
    """Write a new package into a folder of its name.

    Args:
        kind: one of `KINDS`.
        name: name of the distribution, its package and its entry point.
        folder: the folder that gets it; made if it does not exist.

    Returns:
        The package's folder.

    Raises:
        SpecError: the name cannot be used.
        MgcError: the name is taken, or the folder cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise SpecError(f"{name!r} cannot be the name of a package", "use lower-case letters, digits and _")
    if importlib.util.find_spec(name) is not None:
        raise MgcError(f"a module called {name} is installed already", "choose another name")
    root = folder / name
    if root.exists():
        raise MgcError(f"{root} exists already", "choose another name, or another folder with --out")
    try:
        for path, text in package_files(kind, name).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise MgcError(f"{root}: {error.strerror}", "choose another folder with --out") from error
    return root


@help_groups.command()
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.argument("name")
@click.option("--out", type=LOCAL_PATH, default=".", show_default=True, help="Folder that gets the package.")
@console.common_options
def new(kind: str, name: str, out: Path, data_dir: Path) -> int:
    """Write a package of your own that adds a model, a feature or a dataset layout, with a test."""
    root = write_package(kind, name, out)
    for path in package_files(kind, name):
        console.echo(root / path)
    console.note(f"install and test it: pip install -e {root} && pytest {root}; then: {KINDS[kind].format(name=name)}")
    return 0
