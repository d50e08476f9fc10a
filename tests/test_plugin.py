"""Packages that add systems, features and dataset layouts: installed as pip would, used through the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import Outcome, mgc, mgc_process
from music import write_genres
from packages import install

from mgc.models.registry import systems
from mgc.pipeline import datasets, features, plugins
from mgc.pipeline.datasets import layouts
from mgc.pipeline.errors import ModelError, SpecError
from mgc.pipeline.features import Mel, feature_names, from_dict, parse_feature
from mgc.pipeline.scaffold import KINDS, package_files

README = Path(__file__).parents[1] / "README.md"

GROUPS = {"model": plugins.MODELS, "feature": plugins.FEATURES, "dataset": plugins.DATASETS}


def files_of(kind: str, name: str) -> tuple[dict[str, str], dict[str, str]]:
    """Files of the package that `mgc new` writes, without its tests, and its entry point."""
    files = package_files(kind, name)
    value = re.findall(rf'^{name} = "(\S+)"$', files["pyproject.toml"], re.MULTILINE)[0]
    modules = {path: text for path, text in files.items() if path.startswith(f"{name}/")}
    return modules, {f"{GROUPS[kind]}:{name}": value}


def forget() -> None:
    """Have the next look-up read the installed entry points again."""
    caches = (
        plugins._entry_points,
        systems._load_plugins,
        features._plugin_features,
        layouts.plugin_layouts,
    )
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages for this process."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(systems, "_systems", dict(systems._systems))
    modules = set(sys.modules)
    forget()
    yield folder
    forget()
    for name in set(sys.modules) - modules:
        if name.startswith("acme"):
            del sys.modules[name]


class TestWorking:
    def test_a_system_is_listed_beside_those_of_mgc(self, site: Path) -> None:
        install(site, "acme-models", *files_of("model", "acme"))
        assert "acme/cnn" in systems.ids()
        system = systems.get("acme/cnn")
        assert (system.study, system.package, system.recipe.model) == ("acme", "acme-models 1.0", "acme/cnn")
        assert system.params(8) == 2 + 16 * 25 + 16 + 16 * 8 + 8
        assert systems.get("kth2020/cnn").package is None

    def test_a_feature_is_parsed_and_stored_like_one_of_mgc(self, site: Path) -> None:
        install(site, "acme-features", *files_of("feature", "acme"))
        spec = parse_feature("acme:hop_length=256", {"sr": 16000})
        assert (spec.name, spec.sr, spec.hop_length, spec.bins) == ("acme", 16000, 256, 1)
        assert spec.as_dict()["package"] == "acme"
        assert from_dict(json.loads(json.dumps(spec.as_dict()))) == spec
        assert feature_names()[-1] == "acme"
        with pytest.raises(SpecError, match=r"unknown feature 'acne'.*stats, acme"):
            parse_feature("acne")
        assert "package" not in Mel().as_dict()

    def test_a_layout_is_recognised_before_plain_folders(self, site: Path, tmp_path: Path) -> None:
        install(site, "acme-datasets", *files_of("dataset", "acme"))
        folder = tmp_path / "songs"
        folder.mkdir()
        for name in ("rock-Ann-One.wav", "folk-Bob-Two.wav"):
            (folder / name).touch()
        found = datasets.open_dataset(folder)
        assert (found.format, found.genres) == ("acme", ("folk", "rock"))
        assert found.tracks["artist_id"].to_pylist() == ["Bob", "Ann"]
        assert datasets.reopen({"source": str(folder), "format": "acme"}).tracks == found.tracks
        write_genres(tmp_path / "plain", tracks=1)
        assert datasets.open_dataset(tmp_path / "plain").format == "folder"


MODEL_WITHOUT_RECIPE = files_of("model", "acme")[0]["acme/__init__.py"].replace("cnn.toml", "gone.toml")

#: Group, source of the module, and the reason in the warning.
BROKEN = {
    "missing import": (
        plugins.MODELS,
        "import no_such_module",
        "(ModuleNotFoundError: No module named",
    ),
    "any exception": (plugins.MODELS, "1 / 0", "(ZeroDivisionError: division by zero)"),
    "missing recipe": (plugins.MODELS, MODEL_WITHOUT_RECIPE, "gone.toml"),
    "no feature": (plugins.FEATURES, "", "(TypeError: not a dataclass that is derived from FeatureSpec)"),
    "no layout": (plugins.DATASETS, "", "(TypeError: it has no functions find_root and read)"),
}


class TestBroken:
    @pytest.mark.parametrize("case", BROKEN)
    def test_one_line_names_the_package_and_everything_else_works(
        self, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
    ) -> None:
        group, source, reason = BROKEN[case]
        install(site, "acme", {"acme.py": source}, {f"{group}:acme": "acme"})
        install(site, "acme-good", *files_of("model", "acme_good"))
        write_genres(tmp_path / "songs", tracks=1)
        assert {"acme_good/cnn", "kth2020/cnn"} <= set(systems.ids())
        assert feature_names() == list(features.FEATURES)
        assert datasets.open_dataset(tmp_path / "songs").format == "folder"
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("warning: plug-in acme = acme of acme 1.0 is left out (")
        assert reason in line
        assert line.endswith("; repair or uninstall it")

    def test_a_layout_that_fails_is_not_recognised(
        self, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = "def find_root(folder):\n    return 1 / 0\n\n\ndef read(root):\n    pass\n"
        install(site, "acme", {"acme.py": source}, {f"{plugins.DATASETS}:acme": "acme"})
        write_genres(tmp_path / "songs", tracks=1)
        assert datasets.open_dataset(tmp_path / "songs").format == "folder"
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("warning: the dataset layout acme fails on ")
        assert "ZeroDivisionError" in line

    def test_names_of_mgc_cannot_be_taken(self, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = files_of("feature", "mel")[0]["mel/__init__.py"]
        install(site, "acme", {"acme.py": source}, {f"{plugins.FEATURES}:mel": "acme:Mel"})
        assert feature_names() == list(features.FEATURES)
        assert parse_feature("mel") == Mel()
        assert "mgc has a feature mel itself" in capsys.readouterr().err


class TestGone:
    def test_a_feature_says_which_package_it_comes_from(self) -> None:
        with pytest.raises(SpecError, match=r"the feature 'flux' comes from the package acme, .*; install it"):
            from_dict({"feature": "flux", "package": "acme", "sr": 22050})

    def test_a_system_says_which_package_it_comes_from(self) -> None:
        with pytest.raises(ModelError, match=r"acme/cnn comes from the package acme 1.0, .*pip install acme==1.0"):
            systems.of_run({"model": "acme/cnn", "package": "acme 1.0"})
        with pytest.raises(ModelError, match="there is no model 'acme/cnn'"):
            systems.of_run({"model": "acme/cnn"})


class TestNew:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_package_is_written_once(self, kind: str, tmp_path: Path) -> None:
        outcome = mgc("new", kind, "acme", "--out", tmp_path)
        assert outcome.code == 0, outcome.err
        *paths, advice = outcome.out.splitlines()
        assert {str(path) for path in (tmp_path / "acme").rglob("*") if path.is_file()} == set(paths)
        assert advice.startswith(
            f"install and test it: pip install -e {tmp_path}/acme && pytest {tmp_path}/acme; then: mgc "
        )
        again = mgc("new", kind, "acme", "--out", tmp_path)
        assert (again.code, again.error) == (
            2,
            f"{tmp_path}/acme exists already; choose another name, or another folder with --out",
        )

    @pytest.mark.parametrize("name", ["Acme", "1st", "a-b", "a.b", "..", "class", ""])
    def test_a_name_must_be_that_of_a_module(self, name: str, tmp_path: Path) -> None:
        outcome = mgc("new", "model", name, "--out", tmp_path)
        assert outcome.code == 2
        assert outcome.error == f"{name!r} cannot be the name of a package; use lower-case letters, digits and _"

    def test_an_installed_module_is_not_hidden(self, tmp_path: Path) -> None:
        outcome = mgc("new", "model", "numpy", "--out", tmp_path)
        assert outcome.error == "a module called numpy is installed already; choose another name"
        assert not list(tmp_path.iterdir())


def readme_package() -> dict[str, str]:
    """The files that the README's section shows, by path: the line before each block names it."""
    section = README.read_text(encoding="utf-8").partition("### Adding one\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"`([\w./]+)`[^\n]*\n\n```\w+\n(.*?)```", section, re.DOTALL))


def test_the_readme_shows_what_mgc_new_writes() -> None:
    assert readme_package() == package_files("model", "acme")


@pytest.mark.slow
def test_the_package_in_the_readme_is_trained_and_evaluated(scheduler: str, tmp_path: Path) -> None:
    """Written down, built and installed by pip, and passing its own test."""
    for path, text in readme_package().items():
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


@pytest.mark.slow
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
