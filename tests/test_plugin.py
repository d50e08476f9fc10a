"""A system from outside the package, exactly as the README adds one."""

import json
import re
from pathlib import Path

import pytest
from commands import mgc_process
from music import write_genres

README = Path(__file__).parents[1] / "README.md"


def blocks() -> list[str]:
    """The code blocks of the README's section: entry point, module, recipe."""
    section = README.read_text(encoding="utf-8").partition("### Adding one\n")[2].partition("\n## ")[0]
    return re.findall(r"```\w+\n(.*?)```", section, re.DOTALL)


def test_it_takes_less_than_25_lines() -> None:
    assert len(blocks()) == 3
    assert sum(len(block.splitlines()) for block in blocks()) < 25


@pytest.mark.slow
def test_once_installed_it_is_listed_trained_and_evaluated(scheduler: str, tmp_path: Path) -> None:
    """Installed as pip would: a module and the metadata that names its entry point."""
    entry_point, module, recipe = blocks()
    packages = tmp_path / "packages"
    metadata = packages / "acme-1.0.dist-info"
    metadata.mkdir(parents=True)
    (packages / "acme.py").write_text(module)
    (packages / "small.toml").write_text(recipe)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    name, value = re.findall(r'\[project.entry-points."mgc.models"\]\n(\w+) = "(\w+)"', entry_point)[0]
    (metadata / "entry_points.txt").write_text(f"[mgc.models]\n{name} = {value}\n")

    def mgc(*arguments: object) -> str:
        done = mgc_process(*arguments, PYTHONPATH=str(packages), MGC_DATA=str(tmp_path / "data"))
        assert done.code == 0, done.err
        return done.out

    (row,) = (row for row in json.loads(mgc("models", "--json")) if row["id"] == "acme/small")
    assert row["params"] == 16 * 25 + 16 + 16 * 8 + 8
    write_genres(tmp_path / "songs", tracks=10, seconds=5)
    mgc("extract", "--dataset", tmp_path / "songs", "--feature", "mel", "--slice", 4, "--scheduler", scheduler)
    assert "acme/small: 450 parameters, 2 genres" in mgc("train", "--model", "acme/small", "--epochs", 1)
    assert "acme/small on the test split of songs: 2 tracks" in mgc("evaluate", "--by-genre")
