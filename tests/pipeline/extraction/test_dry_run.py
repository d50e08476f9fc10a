"""`mgc extract --dry-run` says what an extraction would do, and leaves every file as it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from commands import mgc
from music import write_clip, write_genres

FEATURE = "stft:n_fft=512"


def everything(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, size and time of every file and folder below a folder, hidden ones and locks included."""
    status = {str(path.relative_to(folder)): path.lstat() for path in sorted(folder.rglob("*"))}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in status.items()}


class Library:
    """A dataset and the workspace it is extracted into."""

    def __init__(self, folder: Path, scheduler: str) -> None:
        self.songs = write_genres(folder / "songs", tracks=6, seconds=0.6)
        self._folder = folder
        self._data = folder / "data"
        self._scheduler = scheduler

    def extract(self, *options: object, data: Path | None = None) -> Any:
        where = (self.songs, "--data-dir", data or self._data, "--scheduler", self._scheduler)
        outcome = mgc("extract", *where, "--feature", FEATURE, "--slice", "0.4", *options)
        assert outcome.code == 0, outcome.err
        return outcome

    def dry_run(self, *options: object) -> dict[str, Any]:
        """Return the report on the store, after a check that nothing was written."""
        before = everything(self._folder)
        report = self.extract("--dry-run", "--json", *options).json
        assert everything(self._folder) == before
        assert report["dry_run"]
        (store,) = report["stores"]
        assert store["decode"] == (report["estimate"] or {"files": 0})["files"]
        return store

    def counts(self, *options: object) -> tuple[int, ...]:
        store = self.dry_run(*options)
        return tuple(store[name] for name in ("new", "changed", "removed", "unchanged", "decode"))


@pytest.fixture
def library(tmp_path: Path, scheduler: str) -> Library:
    return Library(tmp_path, scheduler)


def test_a_new_store(library, tmp_path):
    store = library.dry_run()
    assert not store["exists"]
    assert library.counts() == (12, 0, 0, 0, 12)
    assert not (tmp_path / "data").exists()
    lines = library.extract("--dry-run").out.splitlines()
    assert lines[0] == f"{store['store']} (to be created): 12 new, 0 changed, 0 removed, 0 unchanged; 12 to decode"
    assert lines[1].startswith("extract: 12 files to decode, about ")
    assert lines[2:] == ["dry run: nothing was written"]
    assert library.extract("--json").json["stores"][0]["store"] == store["store"]


def test_notes_of_c_libraries_on_damaged_files_are_not_printed(library, capfd):
    for path in sorted(library.songs.rglob("*.wav")):
        path.unlink()
    for name in ("a/1.mp3", "b/1.mp3"):
        (library.songs / name).parent.mkdir(exist_ok=True)
        (library.songs / name).write_bytes(bytes(100_000))
    assert library.counts() == (2, 0, 0, 0, 2)
    assert "mpg123" not in capfd.readouterr().err


def test_the_counts_are_those_of_the_extraction_that_follows(library):
    library.extract()
    assert library.dry_run()["exists"]
    assert library.counts() == (0, 0, 0, 12, 0)
    assert library.counts("--rebuild") == (0, 0, 0, 12, 12)
    assert library.extract("--dry-run").out.splitlines()[1:] == [
        "extract: nothing to decode",
        "dry run: nothing was written",
    ]
    write_clip(library.songs / "blues" / "late.wav", 0.6, seed=1000)
    write_clip(library.songs / "blues" / "blues01.wav", 0.7, seed=1001)
    os.utime(library.songs / "blues" / "blues02.wav", ns=(1, 1))  # another time, but the same bytes
    (library.songs / "disco" / "disco03.wav").unlink()
    new, changed, removed, unchanged, decode = library.counts()
    assert (new, changed, removed, unchanged) == (1, 1, 1, 10)
    assert library.extract("--json").json["stores"][0]["decoded"] == decode
    assert library.counts() == (0, 0, 0, 12, 0)


def test_an_interrupted_extraction_is_left_as_it_is(library, tmp_path):
    library.extract()
    (store,) = tmp_path.glob("data/features/*/stft-*")
    (store / "published.json").unlink()
    (store / "shards" / "00000.parquet").unlink()
    assert library.dry_run()["decode"] > 0


def test_moved_files_cannot_be_planned(library):
    library.extract()
    outcome = mgc("extract", library.songs, "--data-dir", library._data, "--dry-run", "--moved")
    assert outcome.code == 2
    assert outcome.error == "--dry-run does not go with --moved, which compares and records; leave one of them out"
