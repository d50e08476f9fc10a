"""The refit: a second model that learns from training and validation split, and is the one in use."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from commands import tree
from stores import make_store
from tiny import TINY

from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.runs.selection import Selection
from mgc.models.training import preparation
from mgc.models.training.options import Options
from mgc.models.training.predict import predict
from mgc.models.training.train import resume, train
from mgc.pipeline.errors import RunError, SpecError
from mgc.pipeline.features import Mel
from mgc.pipeline.store.store import Store

LAST = {"select": "last", "schedule": "cosine", "ema": 0.9, "crop": True}
NETWORK = Options(TINY.id, epochs=3, loop=LAST)
BASELINE = Options("moments/logreg")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setitem(systems._systems, TINY.id, TINY)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("stores") / "mel")


@pytest.fixture(scope="module")
def runs(store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Of a network and a baseline: a run with a refit, one without, and one of a split with as many training tracks."""
    folder, made = tmp_path_factory.mktemp("runs"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems._systems, TINY.id, TINY)
        torch.set_num_threads(1)
        select = preparation.select_tracks

        def select_merged(*arguments: object, **options: object) -> Selection:
            """Put the validation tracks into the training split, and validate on the test tracks."""
            merged = select(*arguments, **options).merged()  # type: ignore[arg-type]
            splits = merged.tracks["split"]
            column = merged.tracks.schema.get_field_index("split")
            values = pc.if_else(pc.equal(splits, "test"), pa.scalar("validation"), splits)
            return dataclasses.replace(merged, tracks=merged.tracks.set_column(column, "split", values))

        wide = make_store(folder / "wide", Mel(n_mels=40))
        for name, data, options in (("network", store, NETWORK), ("baseline", wide, BASELINE)):
            made[f"{name} with"] = quiet(data, folder, dataclasses.replace(options, refit=True))
            made[f"{name} without"] = quiet(data, folder, dataclasses.replace(options, refit=False))
            patch.setattr(preparation, "select_tracks", select_merged)
            made[f"{name} merged"] = quiet(data, folder, dataclasses.replace(options, refit=False))
            patch.setattr(preparation, "select_tracks", select)
    return made


def quiet(store: Store, folder: Path, options: Options) -> Run:
    return train([store], options, folder, echo=lambda text: None)


def test_each_model_has_the_weights_of_a_run_on_the_same_tracks(runs: dict[str, Run]) -> None:
    """The first one those of a run without refit, the second those of a run that has all these tracks for training."""
    refitted, alone, merged = (runs[f"network {which}"] for which in ("with", "without", "merged"))
    assert (alone.model_file(), merged.model_file()) == ("best.pt", "best.pt")
    for name, twin in (("best.pt", alone), ("refit.pt", merged)):
        state, expected = refitted.load(name), twin.load("best.pt")
        assert state["epoch"] == expected["epoch"] == 3
        assert all(torch.equal(state["model"][key], expected["model"][key]) for key in expected["model"])
    n_tracks = merged.selection.tracks["split"].to_pylist().count("training")
    assert refitted.summary["refit"]["tracks"] == n_tracks


@pytest.mark.parametrize("kind", ["network", "baseline"])
def test_each_split_is_scored_by_a_model_that_did_not_learn_from_it(runs: dict[str, Run], kind: str) -> None:
    refitted, alone, merged = (runs[f"{kind} {which}"] for which in ("with", "without", "merged"))
    for split in ("training", "validation"):
        assert predict(refitted, split=split, device="cpu") == predict(alone, split=split, device="cpu")
    tested = predict(refitted, device="cpu")["probabilities"]
    assert tested == predict(merged, split="validation", device="cpu")["probabilities"]
    assert tested != predict(alone, device="cpu")["probabilities"]
    assert refitted.summary["best"]["validation_accuracy"] == alone.summary["best"]["validation_accuracy"]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
sys.path.insert(0, {here!r})
from tiny import TINY
from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.training.train import Options, train
from mgc.pipeline.store.store import Store

torch.set_num_threads(1)
systems._systems[TINY.id] = TINY
whole = Run.save
def save(self, name, state):
    whole(self, name, state)
    epoch = state["progress"]["epoch"] if "progress" in state else state["epoch"]
    if (name, epoch) == ({name!r}, 2):
        os.kill(os.getpid(), signal.SIGKILL)

Run.save = save
options = Options(TINY.id, epochs=3, loop={loop!r}, refit=True)
train([Store.open(Path({store!r}))], options, Path({runs!r}), echo=lambda text: None)
"""


@pytest.mark.parametrize("name", ["refit.pt", pytest.param("refit-last.pt", marks=pytest.mark.slow)])
def test_a_refit_that_was_killed_continues_to_the_same_weights(
    store: Store, runs: dict[str, Run], tmp_path: Path, name: str
) -> None:
    here = str(Path(__file__).parents[2] / "support")
    program = KILLED.format(here=here, name=name, loop=LAST, store=str(store.path), runs=str(tmp_path))
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    (path,) = tmp_path.iterdir()
    run, lines = Run.open(path), [""]
    assert not run.finished
    with pytest.raises(RunError, match="its training is unfinished"):
        predict(run, device="cpu")
    before = run.read("best.pt"), run.read("history.jsonl")
    resume(run, echo=lines.append)
    epoch = 2 if name == "refit.pt" else 3  # killed before or after the checkpoint of the second one
    assert any(line.startswith(f"continues in refit, epoch {epoch}, after 0 of") for line in lines)
    assert (run.read("best.pt"), run.read("history.jsonl")) == before  # the first model is not trained again
    expected = runs["network with"]
    for file in ("best.pt", "refit.pt"):
        state, wanted = run.load(file)["model"], expected.load(file)["model"]
        assert all(torch.equal(state[key], wanted[key]) for key in wanted)
    assert tree(run.path).keys() == tree(expected.path).keys()  # no checkpoint is left


#: Options that do not go with `--refit`, and why.
REFUSED = [
    ({"fold": (1, 3)}, "the tracks of a fold are there to be scored"),
    (
        {"split_unit": "slice", "loop": LAST | {"crop": False}},
        "--split-unit slice validates on tracks that were learnt already",
    ),
    ({"loop": LAST | {"select": "best"}}, "no split is left to choose the epoch by"),
    ({"loop": LAST | {"schedule": "plateau"}}, "no split is left to lower the learning rate by"),
]


@pytest.mark.parametrize(("changes", "problem"), REFUSED)
def test_where_it_makes_no_sense_it_is_refused_or_left_out(
    store: Store, tmp_path: Path, changes: dict, problem: str
) -> None:
    """Refused if the user asked for it, left out if the recipe does."""
    with pytest.raises(SpecError, match=f"--refit: {problem}"):
        preparation.prepare([store], dataclasses.replace(NETWORK, refit=True, **changes), tmp_path)
    assert not list(tmp_path.iterdir())
    own = systems.get("mgc/cnn")
    for options, expected in ((NETWORK, True), (dataclasses.replace(NETWORK, **changes), False)):
        recipe, _, _ = preparation.resolve(own, options, [store.spec])
        assert preparation.refits(own, recipe, options) is expected
