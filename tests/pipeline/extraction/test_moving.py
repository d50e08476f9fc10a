"""`mgc extract --moved`: a dataset that lies elsewhere is recognised by content, and its stores go on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import Outcome, mgc, tree
from music import write_clip, write_genres

from mgc.pipeline.audio import sources
from mgc.pipeline.extraction import batches
from mgc.pipeline.store.store import Store

NAMES = ("stft-e466e2", "stft-b28c10")
FEATURES = ("stft:n_fft=512", "stft:n_fft=512,sr=22050")


class Library:
    """Ten clips in `songs`, with two stores in `out`."""

    def __init__(self, folder: Path, scheduler: str) -> None:
        self.folder, self.scheduler = folder, scheduler
        self.songs, self.out = folder / "songs", folder / "out"

    def extract(self, songs: Path, *options: object, feature: str = FEATURES[0]) -> Outcome:
        where = ("--dataset", songs, "--out", self.out, "--scheduler", self.scheduler, "--data-dir", self.folder)
        return mgc("extract", *where, "--slice", 0.4, "--feature", feature, "--json", *options)

    def decoded(self, songs: Path, *options: object, feature: str = FEATURES[0]) -> int:
        outcome = self.extract(songs, *options, feature=feature)
        assert outcome.code == 0, outcome.err
        return outcome.json["stores"][0]["decoded"]

    def move(self) -> Path:
        """Move the clips; their times change."""
        songs = self.folder / "elsewhere" / "songs"
        shutil.copytree(self.songs, songs, copy_function=shutil.copyfile)
        shutil.rmtree(self.songs)
        return songs

    @property
    def stores(self) -> list[Path]:
        return sorted(self.out.glob("stft-*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Path:
    library = Library(tmp_path_factory.mktemp("moving"), scheduler)
    write_genres(library.songs, tracks=5, seconds=0.6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BATCH_TRACKS", 4)
        assert [library.decoded(library.songs, feature=feature) for feature in FEATURES] == [10, 10]
    return library.folder


@pytest.fixture
def library(whole: Path, tmp_path: Path, scheduler: str) -> Library:
    """A copy, whose stores were made from the original's `songs`, which it takes for its own."""
    library = Library(
        Path(shutil.copytree(whole, tmp_path / "copy", ignore=shutil.ignore_patterns(".lock"))), scheduler
    )
    assert library.decoded(library.songs, "--moved") == 0  # the copy is a move itself
    return library


def test_nothing_is_decoded_and_nothing_else_changes(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    songs = library.move()
    before = tree(library.out)
    outcome = library.extract(songs)
    was = f"{library.out / NAMES[0]}: was made from {library.songs}, not from {songs}"
    assert outcome.error.startswith(f"{was}; if its files have moved, add --moved; else")
    assert tree(library.out) == before
    assert "the dataset of this store is no longer there; name it with --dataset; if its files have moved" in mgc(
        "split", library.out / NAMES[0], "--redo").error  # fmt: skip

    monkeypatch.setattr(sources, "content_hash", lambda *_: pytest.fail("a file is read twice"))
    outcome = library.extract(songs, "--moved")
    assert outcome.code == 0, outcome.err
    assert f"{NAMES[0]}: 10 files are where they were, 0 changed (they are extracted again), 0 missing" in outcome.err
    assert outcome.json["stores"][0]["decoded"] == 0
    assert outcome.json["stores"][0]["root"] == str(songs)
    for store in library.stores:
        assert mgc("verify", store).code == 0
        assert Store.open(store).dataset["root"] == str(songs)
    monkeypatch.undo()
    # The sibling has moved with it, and is restored to its new place, too.
    (library.out / NAMES[0] / "store.json").unlink()
    assert library.decoded(songs) == 0
    assert [library.decoded(songs, feature=feature) for feature in FEATURES] == [0, 0]
    after = tree(library.out)
    assert "nothing has moved: the stores were made from" in library.extract(songs, "--moved").err
    assert tree(library.out) == after


def test_what_changed_and_what_is_missing_is_counted(library: Library) -> None:
    songs = library.move()
    changed, missing = sorted(songs.rglob("*.wav"))[:2]
    write_clip(changed, 0.9, seed=77)
    missing.unlink()
    outcome = library.extract(songs, "--moved")
    assert outcome.code == 0, outcome.err
    assert "8 files are where they were, 1 changed (they are extracted again), 1 missing" in outcome.err
    assert 1 <= outcome.json["stores"][0]["decoded"] <= 4  # the shard of the changed file
    assert outcome.json["stores"][0]["dropped"] == {"missing": 1}
    assert mgc("verify", library.out / NAMES[0]).code == 0


def test_other_music_is_refused(library: Library) -> None:
    songs = library.move()
    for number, clip in enumerate(sorted(songs.rglob("*.wav"))[:6]):
        write_clip(clip, 0.6, seed=1000 + number)
    before = tree(library.out)
    outcome = library.extract(songs, "--moved")
    last = outcome.err.splitlines()[-1]
    said = f"{library.out / NAMES[0]}: 4 of the 10 files that it was made from are in {songs}; name the folder that"
    assert last.startswith(f"error: {said}")
    assert outcome.code == 1
    assert tree(library.out) == before


def test_without_a_store_nothing_can_have_moved(library: Library) -> None:
    outcome = library.extract(library.songs, "--moved", "--out", library.folder / "nowhere")
    assert outcome.error.startswith(f"--moved: {library.folder / 'nowhere' / NAMES[0]} does not exist; name the folder")
    assert not (library.folder / "nowhere").exists()
