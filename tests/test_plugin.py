"""Packages that add systems, features and dataset layouts: installed as pip would, used through the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import mgc
from music import write_genres
from packages import documented_package, files_of, install

from mgc.models.registry import systems
from mgc.pipeline import datasets, features, plugins
from mgc.pipeline.datasets import layouts
from mgc.pipeline.errors import ModelError, SpecError
from mgc.pipeline.features import Mel, feature_names, from_dict, parse_feature
from mgc.pipeline.scaffold import KINDS, package_files


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
        with pytest.raises(ModelError, match="acme/cnn, the model of the run, is not in this version of mgc"):
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
            1,
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


def test_the_readme_shows_what_mgc_new_writes() -> None:
    assert documented_package() == package_files("model", "acme")
