"""docs/python.md, the notebook and the docstrings of the public names, run as they stand; and their types."""

from __future__ import annotations

import doctest
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from commands import MGC
from music import write_genres
from nbclient import NotebookClient
from stand_ins import write_gtzan

import mgc
from mgc.pipeline.demo.dataset import make_demo

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "python.md"
NOTEBOOKS = ROOT / "docs" / "notebooks"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of all examples: the demo at its smallest, a folder of music, its store and a run."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MGC_DATA", "data")
        make_demo(Path("data/demo"), tracks_per_artist=1, seconds=4)
        write_genres(Path("music"), genres=("blues", "techno"), seconds=4)
        [mel] = mgc.extract("music", out="features", seconds=3, workers=1)
        Path("features/mel").symlink_to(mel.path.name)
        run = mgc.train(mel, "kth2020/cnn", out="runs", epochs=1, device="cpu")
        Path("runs/cnn").symlink_to(run.path.name)
        yield folder


@pytest.mark.parametrize("name", [name for name in mgc.__all__ if not name.startswith("_")])
def test_examples_of_docstrings(name: str, folder: Path) -> None:
    scope = {"mgc": mgc, "store": mgc.open_store("features/mel"), "run": mgc.Run("runs/cnn")}
    value = getattr(mgc, name)
    module = sys.modules[value.__module__]
    failures = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for example in doctest.DocTestFinder(exclude_empty=True).find(value, name, module, globs=scope):
        failures.run(example)
    own = value.__module__.startswith("mgc.models.interface")
    assert failures.tries > 0 or not own, "it has no example"
    assert not failures.failures


def test_the_blocks_of_the_page(folder: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 8
    scope: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        if "import lightning" in block and importlib.util.find_spec("lightning") is None:
            continue
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, PAGE.name, "exec"), scope)
    run = scope["run"]
    assert isinstance(run, mgc.Run)
    assert (run.path / "metrics-validation.json").exists()


def test_the_page_lists_every_public_name() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in mgc.__all__ if f"`mgc.{name}" not in page] == []


def run_notebook(name: str, folder: Path) -> tuple[int, str]:
    """Run a notebook in a folder; return how many pictures it has drawn, and its text."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    stored = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in stored), "store it without outputs"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not any(output.output_type == "error" for output in outputs)
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    return pictures, "\n".join(output.get("text") or output.data.get("text/plain", "") for output in outputs)


def test_the_notebook_runs_and_draws(folder: Path) -> None:
    assert run_notebook("first_steps.ipynb", folder)[0] == 4


def test_the_notebook_on_gtzan(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On other music under GTZAN's names: three clips of each genre for training, one to validate with, two to test."""
    music = sorted(path for path in Path("data/demo").rglob("*.mp3") if path.stem[-2:] != "99")
    write_gtzan(Path("data/datasets/gtzan/genres"), music, {"training": 3, "validation": 1, "test": 2, None: 1})
    monkeypatch.setenv("PATH", f"{MGC.parent}:{os.environ['PATH']}")
    pictures, said = run_notebook("gtzan.ipynb", folder)
    assert pictures == 4
    assert re.search(r"^All +20 +30 +10 +60$", said, re.MULTILINE)  # test, training, validation
    assert re.search(r"^[\d.]+% of 20 clips \[[\d.]+% to [\d.]+%\]\nguessing gets 10.0%$", said, re.MULTILINE)
    assert re.search(r"^random by slice +60 ", said, re.MULTILINE)
    assert re.search(r"^LEAKY: slices of (\d+) of \1 tracks", said, re.MULTILINE)
    assert re.search(r"^Row [12]: LEAKY, ", said, re.MULTILINE)


def test_a_script_without_a_guard_is_told_so(folder: Path) -> None:
    script = folder / "unguarded.py"
    script.write_text("import mgc\nmgc.extract('music', 'mfcc', out='unguarded', workers=1)\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    remedy = 'in a script, call this below `if __name__ == "__main__":`'
    assert done.stderr.splitlines()[-1].startswith("mgc.pipeline.errors.MgcError: the worker processes do not start")
    assert done.stderr.endswith(f"{remedy}\n")


_TYPED = """
import numpy as np
from torch import Tensor

import mgc


def levels(path: str) -> np.ndarray:
    store = mgc.open_store(path)
    genres: tuple[str, ...] = store.genres
    for batch in store.torch("training", batch_size=8, device="cpu"):
        labels: Tensor = batch.labels
    item: tuple[Tensor, int] = store.dataset("test")[0]
    return store.read("1")


def name(path: str) -> list[str | None]:
    try:
        run = mgc.Run(path)
    except mgc.MgcError as error:
        raise SystemExit(error.problem) from None
    score: float = run.evaluate().by_track.accuracy
    stores: list[mgc.FeatureStore] = mgc.extract("music", ["mel", "stft"], seconds=3)
    again: mgc.Run = mgc.train(stores[0], epochs=1)
    return [prediction.genre for prediction in run.predict(["a.mp3"])] + [mgc.__version__]
"""
_WRONG = """
import mgc

store = mgc.open_store(3)
store.read(1)
mgc.open_stroe("mel")
answer: str = mgc.Run("run").predict("a.mp3")
"""


def test_the_types_hold_in_strict_scripts(tmp_path: Path) -> None:
    (tmp_path / "typed").mkdir()
    (tmp_path / "typed" / "mgc").symlink_to(ROOT)  # mypy does not follow editable installs
    (tmp_path / "right.py").write_text(_TYPED)
    (tmp_path / "wrong.py").write_text(_WRONG)
    environment = os.environ | {"MYPYPATH": str(tmp_path / "typed")}
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=", "--output=json"]
    done = subprocess.run(
        [*command, "right.py", "wrong.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    errors = [json.loads(line) for line in done.stdout.splitlines()]
    assert {error["file"] for error in errors} == {"wrong.py"}, done.stdout + done.stderr
    assert [error["line"] for error in errors] == [4, 5, 6, 7], done.stdout
