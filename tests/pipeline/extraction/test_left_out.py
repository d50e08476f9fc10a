"""Tracks that are left out on request: each has a manifest row that says why, and none is decoded for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import mgc, tree
from music import write_clip

from mgc.pipeline.audio import inspection
from mgc.pipeline.datasets import clips
from mgc.pipeline.datasets.published import published_dataset
from mgc.pipeline.extraction import extract as extraction
from mgc.pipeline.extraction import probe
from mgc.pipeline.store.store import Store

#: Clips per genre: of each genre, at least one is in a split of the filtered list.
NUMBERS = (0, 15, 29, 45, 88, 95)


class Library:
    """A dataset and its stores."""

    def __init__(self, root: Path, out: Path, scheduler: str) -> None:
        self.root, self.out, self.scheduler = root, out, scheduler
        self.said = ""

    def extract(self, *options: object, feature: str = "stft:n_fft=512") -> int:
        """Extract, and return the number of decoded tracks."""
        where = ("--dataset", self.root, "--out", self.out, "--scheduler", self.scheduler, "--data-dir", self.out)
        outcome = mgc("extract", *where, "--feature", feature, "--slice", 0.2, "--json", *options)
        assert outcome.code == 0, outcome.err
        self.said = outcome.err
        return outcome.json["stores"][0]["decoded"]

    @property
    def path(self) -> Path:
        return self.out / "stft-e466e2"

    def rows(self, path: Path | None = None) -> dict[str, dict[str, Any]]:
        return {row["track_id"]: row for row in Store.open(path or self.path).tracks.to_pylist()}

    def left_out(self) -> dict[str, tuple[str, str]]:
        return {k: (row["reason"], row["detail"]) for k, row in self.rows().items() if row["status"] == "dropped"}


@pytest.fixture(scope="module")
def gtzan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gtzan") / "genres"
    for g, genre in enumerate(published_dataset("gtzan").genres):
        for n in NUMBERS:
            write_clip(root / genre / f"{genre}.{n:05}.wav", 0.3, seed=100 * g + n)
    return root


def test_a_published_list_leaves_clips_out_aloud_and_for_good(gtzan: Path, tmp_path: Path, scheduler: str) -> None:
    library = Library(gtzan, tmp_path, scheduler)
    listed = clips.split_list("gtzan-filtered")
    present = {f"{genre}.{n:05}" for genre in published_dataset("gtzan").genres for n in NUMBERS}
    omitted = present - set(listed)
    assert omitted == {"jazz.00045", "metal.00045", "pop.00015", "pop.00045"}
    assert library.extract("--splits", "gtzan-filtered", "--max-dropped", 0) == len(present) - 4
    assert f"left out, not in the list gtzan-filtered: 4 ({', '.join(sorted(omitted))})" in library.said
    assert "(Sturm 2012)" not in library.said
    assert library.left_out() == dict.fromkeys(omitted, ("unlisted", "not in the list gtzan-filtered"))
    used = {k: row["split"] for k, row in library.rows().items() if row["status"] == "ok"}
    assert used == {clip: split for clip, split in listed.items() if clip in present}
    assert mgc("verify", library.path).code == 0
    before = tree(library.path)
    for options in (("--splits", "gtzan-filtered"), ()):
        assert library.extract(*options) == 0
        assert tree(library.path) == before
    (tmp_path / "mine.csv").write_text("track_id,split\nblues.00000,test\n")
    said = mgc("split", library.path, "--splits", tmp_path / "mine.csv", "--data-dir", tmp_path).out
    assert "4 tracks are not decoded yet: `mgc extract` with these --splits adds them" in said
    assert mgc("split", library.path, "--splits", "gtzan-filtered", "--data-dir", tmp_path).code == 0
    assert {k: row["split"] for k, row in library.rows().items() if row["status"] == "ok"} == used
    # A store of another feature gets the same tracks.
    assert library.extract(feature="stft:n_fft=512,sr=22050") == len(present) - 4
    (other,) = (path for path in tmp_path.glob("stft-*") if path != library.path)
    assert {k for k, row in library.rows(other).items() if row["status"] == "ok"} == set(used)


def test_other_splits_bring_them_back_and_a_list_drops_what_is_decoded(
    gtzan: Path, tmp_path: Path, scheduler: str
) -> None:
    library = Library(gtzan, tmp_path, scheduler)
    assert library.extract() == 60
    known = sum(
        f"{genre}.{n:05}" in clips.artists("gtzan") for genre in published_dataset("gtzan").genres for n in NUMBERS
    )
    assert f"artists are known of {known} of 60 clips (Sturm 2013)" in library.said
    assert "repeats 50 clips exactly and 22 recordings, and has 106 doubtful labels (Sturm 2012)" in library.said
    assert "jazz.00054 is broken: `--splits gtzan-filtered` leaves" in library.said
    assert library.left_out() == {}
    by_artist: dict[str, set[str]] = {}
    for row in library.rows().values():
        by_artist.setdefault(row["artist_id"], set()).add(row["split"])
    assert all(len(splits) == 1 for artist, splits in by_artist.items() if artist)

    outcome = mgc("split", library.path, "--splits", "gtzan-filtered", "--data-dir", tmp_path)
    assert outcome.code == 0, outcome.err
    assert len(library.left_out()) == 4
    assert mgc("verify", library.path).code == 0
    before = tree(library.path)
    assert library.extract() == library.extract("--splits", "gtzan-filtered") == 0
    assert tree(library.path) == before

    (tmp_path / "mine.csv").write_text("track_id,split\nblues.00000,test\n")
    assert library.extract("--splits", tmp_path / "mine.csv") == 0
    assert library.left_out() == {}
    assert {row["detail"] for row in library.rows().values()} == {None}


def test_each_copy_has_a_row_that_names_the_file_kept(tmp_path: Path, scheduler: str) -> None:
    library = Library(tmp_path / "songs", tmp_path / "out", scheduler)
    for i in range(4):
        write_clip(library.root / "ab"[i % 2] / f"{i}.wav", 0.3, seed=i)
        shutil.copy(library.root / "ab"[i % 2] / f"{i}.wav", library.root / "ab"[i % 2] / f"{i} again.wav")
    assert library.extract("--duplicates", "drop") == 4
    kept = {f"{'ab'[i % 2]}/{i} again": ("duplicate", f"the same bytes as {'ab'[i % 2]}/{i}.wav") for i in range(4)}
    assert library.left_out() == kept
    row = library.rows()["a/0 again"]
    assert (row["genre"], row["size"], len(row["content_hash"]), row["n_frames"]) == (
        "a", (library.root / "a" / "0 again.wav").stat().st_size, 32, 0,
    )  # fmt: skip
    before = tree(library.path)
    assert library.extract("--duplicates", "drop") == 0
    assert tree(library.path) == before

    shutil.rmtree(library.path / "shards" / f"{row['shard']:05}.zarr")  # the shard without frames
    assert library.extract("--duplicates", "drop") == 0
    assert tree(library.path) == before

    assert library.extract() == 4
    assert library.left_out() == {}
    assert mgc("verify", library.path).code == 0
    assert library.extract("--duplicates", "drop") == 0
    assert library.left_out() == kept
    assert all(row["n_frames"] for row in library.rows().values())
    (library.root / "a" / "0.wav").unlink()
    assert library.extract("--duplicates", "drop") == 0
    assert library.left_out() == {k: v for k, v in kept.items() if k != "a/0 again"} | {"a/0": ("missing", None)}


def test_an_interrupted_call_ends_with_the_same_bytes(
    tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        write_clip(tmp_path / "songs" / "a" / f"{i}.wav", 0.3, seed=i)
        shutil.copy(tmp_path / "songs" / "a" / f"{i}.wav", tmp_path / "songs" / "a" / f"{i} again.wav")
    whole, library = (Library(tmp_path / "songs", tmp_path / name, scheduler) for name in ("whole", "out"))
    assert whole.extract("--duplicates", "drop") == 3

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("_dispatch", "_publish"):
        with monkeypatch.context() as patch:
            patch.setattr(extraction, name, interrupt)
            with pytest.raises(AssertionError):
                library.extract("--duplicates", "drop")
    assert library.extract("--duplicates", "drop") == 0
    assert tree(library.path) == tree(whole.path)


def test_each_file_is_looked_at_once(tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(tmp_path / "songs", tmp_path / "out", scheduler)
    for i in range(3):
        write_clip(library.root / "a" / f"{i}.wav", 0.3, seed=i)
    stat, seen = inspection.stat_file, []
    monkeypatch.setattr(inspection, "stat_file", lambda path: (seen.append(path), stat(path))[1])
    for number in ("N_SIZES", "N_FILES"):  # some files are looked at once more, for the estimate and for slices
        monkeypatch.setattr(probe, number, 0)
    library.extract("--feature", "mfcc")
    assert len(seen) == 3
    library.extract("--feature", "mfcc")
    assert len(seen) == 6
