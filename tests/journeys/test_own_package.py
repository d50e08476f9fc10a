"""A researcher with a model, a feature and a dataset layout of their own: a package that mgc finds by entry points."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import Outcome, mgc_process
from music import write_genres
from packages import documented_package, files_of, install

from mgc.pipeline import plugins

pytestmark = pytest.mark.slow


def test_the_package_in_the_readme_is_trained_and_evaluated(scheduler: str, tmp_path: Path) -> None:
    """Written down, built and installed by pip, and passing its own test."""
    for path, text in documented_package().items():
        (tmp_path / "acme" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "acme" / path).write_text(text)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, tmp_path / "acme"]
    subprocess.run(pip, check=True)
    environment = {"PYTHONPATH": str(site), "MGC_DATA": str(tmp_path / "data")}
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path / "acme"]
    subprocess.run(test, check=True, env=os.environ | environment)

    def run(*arguments: object) -> Outcome:
        return mgc_process(*arguments, **environment)

    (row,) = (row for row in json.loads(run("models", "--json").out) if row["id"] == "acme/cnn")
    assert row["params"] == 2 + 16 * 25 + 16 + 16 * 8 + 8
    write_genres(tmp_path / "songs", tracks=10, seconds=5)
    extract = ("extract", "--dataset", tmp_path / "songs", "--feature", "mel", "--slice", 4, "--scheduler", scheduler)
    assert run(*extract).code == 0
    assert "acme/cnn: 452 parameters, 2 genres" in run("train", "--model", "acme/cnn", "--epochs", 1).out
    assert "acme/cnn on the test split of songs: 2 tracks" in run("evaluate", "--by-genre").out
    gone = mgc_process("evaluate", MGC_DATA=environment["MGC_DATA"])
    assert gone.code == 1
    assert "error: acme/cnn comes from the package acme 0.1.0, which is not installed or does not load" in gone.err


SYSTEM_ON_FEATURE = """
from pathlib import Path
from mgc.models.registry.systems import InputSpec, system
from torch import nn

@system("acme/level", input=InputSpec("absolute", ("acme",), frames=20), recipe=Path(__file__).with_name("level.toml"))
def level(n_classes):
    return nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(20, n_classes))
"""


def test_a_feature_and_a_layout_from_outside_work_like_those_of_mgc(tmp_path: Path) -> None:
    """From extraction by worker processes to an evaluation; without the package, its name is in the error."""
    site = tmp_path / "site"
    modules, feature = files_of("feature", "acme")
    layouts, layout = files_of("dataset", "acme_layout")
    recipe = files_of("model", "acme")[0]["acme/cnn.toml"]
    recipe = recipe.replace("acme/cnn", "acme/level").replace('"mel"', '"acme"')
    system = {"acme_level/__init__.py": SYSTEM_ON_FEATURE, "acme_level/level.toml": recipe}
    install(site, "acme", modules | layouts | system, feature | layout | {f"{plugins.MODELS}:level": "acme_level"})
    songs = tmp_path / "songs"
    songs.mkdir()
    noise = np.random.default_rng(0)
    for artist in range(10):
        for genre, loudness in (("loud", 0.5), ("soft", 0.01)):
            sound = noise.normal(0, loudness / 3, 22050)
            soundfile.write(songs / f"{genre}-artist{artist}-song.wav", sound, 22050)

    def run(*arguments: object) -> Outcome:
        outcome = mgc_process(*arguments, PYTHONPATH=str(site), MGC_DATA=str(tmp_path / "data"))
        assert outcome.code == 0, outcome.err
        return outcome

    run("extract", "--dataset", songs, "--feature", "acme", "--slice", 0.5, "--workers", 1)
    report = run("info", "--json").json
    assert (report["ok"], report["spec"]["feature"], report["genres"]) == (20, "acme", {"loud": 10, "soft": 10})
    run("verify")
    run("slice", "--slice", 0.6)
    assert "acme/level: " in run("train", "--model", "acme/level", "--epochs", 2).out
    assert "acme/level on the test split of songs: 2 tracks by 1 artist" in run("evaluate").out
    gone = mgc_process("info", report["store"], MGC_DATA=str(tmp_path / "data"))
    assert gone.code == 1
    assert "the feature 'acme' comes from the package acme, which does not load; install it" in gone.err
