"""Workspace: the dataset, store or run that a command uses if none is named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mgc.pipeline.errors import DatasetError, RunError, StoreError
from mgc.pipeline.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "data")


def make_store(workspace: Workspace, name: str, *, age_s: int = 0) -> Path:
    """Create the folder and `store.json` by which a workspace recognises a store."""
    store = workspace.features("songs") / name
    store.mkdir(parents=True)
    (store / "store.json").touch()
    now = (store / "store.json").stat().st_mtime
    os.utime(store / "store.json", (now - age_s, now - age_s))
    return store


class TestDataset:
    def test_the_only_one_is_taken(self, workspace):
        for name in ("songs", "fma_metadata", "features", "runs", "demo", ".cache"):
            (workspace.root / name).mkdir(parents=True)
        (workspace.root / "readme.txt").touch()
        assert workspace.only_dataset() == workspace.root / "songs"

    def test_a_dataset_may_be_a_link(self, workspace, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        workspace.root.mkdir()
        (workspace.root / "songs").symlink_to(tmp_path / "elsewhere")
        assert workspace.only_dataset() == workspace.root / "songs"

    def test_the_demo_is_taken_only_where_there_is_no_other(self, workspace):
        demo = workspace.root / "demo" / "fma_demo"
        demo.mkdir(parents=True)
        assert workspace.only_dataset() == demo
        (workspace.root / "songs").mkdir()
        assert workspace.only_dataset() == workspace.root / "songs"

    def test_a_download_counts_when_it_is_complete(self, workspace):
        for name in ("archives", "gtzan.unfinished", ".hidden"):
            (workspace.datasets / name).mkdir(parents=True)
        with pytest.raises(DatasetError, match="no dataset in"):
            workspace.only_dataset()
        (workspace.datasets / "gtzan").mkdir()
        assert workspace.only_dataset() == workspace.root / "datasets" / "gtzan"
        (workspace.root / "songs").mkdir()
        with pytest.raises(DatasetError, match=r"2 datasets in .*: gtzan, songs"):
            workspace.only_dataset()

    def test_of_several_none_is_guessed(self, workspace):
        for name in ("songs", "chants"):
            (workspace.root / name).mkdir(parents=True)
        with pytest.raises(DatasetError, match=r"2 datasets in .*: chants, songs; name one: --dataset .*/chants"):
            workspace.only_dataset()

    @pytest.mark.parametrize("exists", [False, True])
    def test_none_is_an_error_that_says_what_to_do(self, exists, workspace):
        if exists:
            workspace.root.mkdir()
        advice = "name one with --dataset, get one with `mgc download`, or run `mgc demo`"
        with pytest.raises(DatasetError, match=rf"no dataset in .*data; {advice}"):
            workspace.only_dataset()


class TestLatest:
    def test_is_the_one_named_last_not_the_one_made_last(self, workspace):
        old, new = make_store(workspace, "mel-1", age_s=100), make_store(workspace, "mel-2")
        workspace.remember("store", new)
        assert workspace.latest_store() == new
        workspace.remember("store", old)
        assert workspace.latest_store() == old

    def test_is_the_newest_where_none_was_named_or_it_is_gone(self, workspace):
        make_store(workspace, "mel-1", age_s=100)
        new = make_store(workspace, "mel-2")
        assert workspace.latest_store() == new
        workspace.remember("store", workspace.root / "features" / "songs" / "deleted")
        assert workspace.latest_store() == new

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"store": 3}', "\0"])
    def test_is_found_though_the_note_of_it_is_damaged(self, content, workspace):
        store = make_store(workspace, "mel-1")
        (workspace.root / "latest.json").write_text(content)
        assert workspace.latest_store() == store
        workspace.remember("store", store)
        assert workspace.latest_store() == store

    def fail_after_remembering(self, workspace, store):
        with workspace.restoring_latest():
            workspace.remember("store", store)
            raise KeyboardInterrupt

    def test_is_restored_where_a_demo_fails(self, workspace):
        old, new = make_store(workspace, "mel-1", age_s=100), make_store(workspace, "mel-2")
        for before in (None, old):
            if before:
                workspace.remember("store", before)
            with pytest.raises(KeyboardInterrupt):
                self.fail_after_remembering(workspace, new)
            assert (workspace.root / "latest.json").exists() == (before is not None)
        assert workspace.latest_store() == old

    def test_an_unfinished_store_is_the_latest_only_if_it_is_alone(self, workspace):
        finished, unfinished = make_store(workspace, "mel-1", age_s=100), make_store(workspace, "mel-2")
        assert workspace.latest_store() == unfinished
        (finished / "published.json").touch()
        assert workspace.latest_store() == finished

    def test_store_and_run_are_remembered_side_by_side(self, workspace):
        store = make_store(workspace, "mel-1")
        run = workspace.runs / "today-cnn"
        run.mkdir(parents=True)
        workspace.remember("store", store)
        workspace.remember("run", run)
        assert (workspace.latest_store(), workspace.latest_run()) == (store, run)

    def test_a_relative_name_is_remembered_as_what_it_meant(self, workspace, monkeypatch, tmp_path):
        store = make_store(workspace, "mel-1")
        make_store(workspace, "mel-2")
        monkeypatch.chdir(store.parent)
        workspace.remember("store", Path("mel-1"))
        monkeypatch.chdir(tmp_path)
        assert workspace.latest_store() == store

    def test_a_moved_workspace_remembers_its_own(self, workspace, tmp_path):
        store = make_store(workspace, "mel-1")
        make_store(workspace, "mel-2")
        workspace.remember("store", store)
        shutil.copytree(workspace.root, tmp_path / "copy")
        assert Workspace(tmp_path / "copy").latest_store() == tmp_path / "copy" / store.relative_to(workspace.root)

    def test_a_store_elsewhere_can_be_remembered(self, workspace, tmp_path):
        make_store(workspace, "mel-1")
        (tmp_path / "elsewhere").mkdir()
        workspace.remember("store", tmp_path / "elsewhere")
        assert workspace.latest_store() == tmp_path / "elsewhere"

    def test_none_is_an_error_that_says_what_to_do(self, workspace):
        with pytest.raises(StoreError, match=r"no feature store in .*data; make one with `mgc extract`, or name one"):
            workspace.latest_store()
        with pytest.raises(RunError, match=r"no run in .*data; make one with `mgc train`, or name one"):
            workspace.latest_run()


class TestSuggestions:
    """What a user may have meant is named in the error that there is no store or run."""

    @pytest.fixture
    def named(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
        """Two stores and two runs, in a workspace whose parent the user stands in."""
        for name in ("mel-500399", "stft-1a2b3c"):
            make_store(workspace, name)
        for name in ("20261121-201328-kth2020-cnn", "20261122-090000-moments-svm"):
            (workspace.runs / name).mkdir(parents=True)
            (workspace.runs / name / "config.json").touch()
        monkeypatch.chdir(workspace.root.parent)
        return Workspace(Path("data"))

    @pytest.mark.parametrize(
        ("name", "kinds", "meant"),
        [
            ("mel-500399", ("store",), ["data/features/songs/mel-500399"]),
            ("mel", ("store",), ["data/features/songs/mel-500399"]),
            ("data/features/songs/mel-50039", ("store",), ["data/features/songs/mel-500399"]),
            ("data/features/song/mel-500399", ("store",), ["data/features/songs/mel-500399"]),
            ("data/features/songs/mel-500399/shards", ("store",), ["data/features/songs/mel-500399"]),
            (
                "data/features/songs",
                ("store", "run"),
                ["data/features/songs/mel-500399", "data/features/songs/stft-1a2b3c"],
            ),
            ("20261121-201328-kth2020-cnn", ("run",), ["data/runs/20261121-201328-kth2020-cnn"]),
            ("data/runs/20261121-201328-kth2020-cnm", ("run",), ["data/runs/20261121-201328-kth2020-cnn"]),
            ("moments-svm", ("store", "run"), ["data/runs/20261122-090000-moments-svm"]),
            ("mel-500399", ("run",), []),
            ("elsewhere/xyz", ("store", "run"), []),
        ],
    )
    def test_names(self, name: str, kinds: tuple[str, ...], meant: list[str], named: Workspace):
        with pytest.raises(StoreError) as caught, named.suggesting(Path(name), *kinds):
            raise StoreError("nothing there", "make one")
        words = caught.value.remedy.removeprefix("did you mean ").removesuffix("?").split(" or ")
        assert sorted(words) == (meant or ["make one"])

    def test_the_other_kind_is_recognised_and_other_errors_stay(self, named: Workspace):
        store, run = Path("data/features/songs/mel-500399"), Path("data/runs/20261122-090000-moments-svm")
        with (
            pytest.raises(RunError, match=r"mel-500399 is a feature store, not a run; name a run"),
            named.suggesting(store, "run"),
        ):
            raise RunError("nothing there", "make one")
        with (
            pytest.raises(StoreError, match=r"svm is a run, not a feature store; name a feature"),
            named.suggesting(run, "store"),
        ):
            raise StoreError("nothing there", "make one")
        for path, kind in ((store, "store"), (run, "run"), (None, "run")):
            with pytest.raises(RunError, match="damaged; restore"), named.suggesting(path, kind):
                raise RunError("damaged", "restore it")
