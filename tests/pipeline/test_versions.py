"""Versions of libraries, as stores and runs record them."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

from mgc.pipeline.versions import versions

ROOT = Path(__file__).parents[2]


def test_versions_are_those_of_the_installed_distributions():
    assert versions(["mgc", "numpy"]) == {"mgc": version("mgc-music"), "numpy": version("numpy")}


def test_a_library_that_is_not_installed_is_unknown():
    assert versions(["no-such-library"]) == {"no-such-library": "unknown"}


def test_messages_name_extras_of_the_distribution():
    """`pip install 'mgc[s3]'` would install another project of that name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    files = [path for folder in ("pipeline", "models", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*files, ROOT / "README.md"])
    extras = re.findall(r"(mgc[\w-]*)\[(\w+)\]['\"]", text)
    assert {name for name, _ in extras} == {project["name"]}
    assert (
        {"s3", "gs", "http", "tensorboard"} <= {extra for _, extra in extras} <= set(project["optional-dependencies"])
    )
