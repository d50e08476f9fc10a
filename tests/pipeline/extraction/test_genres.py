"""The choice of genres is recorded in the stores, changes aloud and without decoding, and loses no file silently."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from commands import Outcome, mgc, tree
from music import write_clip
from mutagen.flac import FLAC

from mgc.pipeline.store.store import Store

#: Artist, and the genres of their tracks.
TRACKS = {"Low": ["Rock"] * 3, "Miles": ["Jazz"] * 3, "Ella": ["jazz "] * 2, "Weird Al": ["Polka", None]}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    seed = 0
    for artist, genres in TRACKS.items():
        for number, genre in enumerate(genres):
            seed += 1
            path = write_clip(tmp_path / "Music" / artist / "Album" / f"{number}.flac", 0.5, seed=seed)
            tags = FLAC(path)
            tags["artist"] = artist
            if genre is not None:
                tags["genre"] = genre
            tags.save()
    return tmp_path / "Music"


class Stores:
    """Stores of the library."""

    def __init__(self, library: Path, folder: Path, scheduler: str) -> None:
        self.where = ("--dataset", library, "--data-dir", folder, "--scheduler", scheduler)
        self.folder = folder / "features" / library.name

    def extract(self, *options: object, feature: str = "stft:n_fft=512") -> Outcome:
        return mgc("extract", *self.where, "--feature", feature, "--slice", 0.2, "--json", *options)

    def rows(self) -> list[dict[str, Any]]:
        (path,) = self.folder.glob("stft-*")
        return Store.open(path).tracks.to_pylist()

    def genres(self) -> dict[str, int]:
        return dict(Counter(row["genre"] for row in self.rows() if row["status"] == "ok"))

    def left_out(self) -> dict[str, tuple[str, str]]:
        return {row["track_id"]: (row["reason"], row["detail"]) for row in self.rows() if row["status"] != "ok"}


def test_the_choice_is_recorded_and_changes_aloud(library: Path, tmp_path: Path, scheduler: str) -> None:
    stores = Stores(library, tmp_path / "data", scheduler)
    refused = stores.extract()
    assert refused.code == 1
    assert "its 4 folders look like artists" in refused.error
    assert not stores.folder.exists()

    done = stores.extract("--genre-from", "tag")
    assert done.code == 0, done.err
    assert stores.genres() == {"Rock": 3, "Jazz": 5, "Polka": 1}
    assert stores.left_out() == {"Weird Al/Album/1": ("no-genre", "without a genre: its tags name none")}
    assert "files without a genre tag, left out: 1 (Weird Al/Album/1.flac)" in done.err
    assert "'jazz' is 'Jazz' (2)" in done.err
    splits = {row["track_id"]: row["split"] for row in stores.rows()}
    before = tree(stores.folder)
    again = stores.extract()
    assert (again.code, again.json["stores"][0]["decoded"]) == (0, 0)
    assert tree(stores.folder) == before
    assert "before, " not in again.err

    genre_map = tmp_path / "map.csv"
    genre_map.write_text("genre,as\nJAZZ,Swing\n")
    changed = stores.extract("--genre-map", genre_map, "--min-tracks", 2)
    assert changed.json["stores"][0]["decoded"] == 0
    assert "--genre-map: 0 genres before, 1 now" in changed.err
    assert "--min-tracks: 1 before, 2 now" in changed.err
    assert "genres with fewer than 2 tracks, left out: Polka (1)" in changed.err
    assert stores.genres() == {"Rock": 3, "Swing": 5}
    assert stores.left_out()["Weird Al/Album/0"] == ("no-genre", "without a genre: Polka has 1 of at least 2 tracks")
    assert changed.json["stores"][0]["genres"] == {"Rock": 3, "Swing": 5}
    genre_map.unlink()
    before = tree(stores.folder)
    assert stores.extract().json["stores"][0]["decoded"] == 0
    assert tree(stores.folder) == before
    assert stores.extract(feature="mel:n_fft=512,n_mels=8").json["stores"][0]["genres"] == {"Rock": 3, "Swing": 5}

    back = stores.extract("--min-tracks", 1)
    assert back.json["stores"][0]["decoded"] == 0
    assert stores.genres() == {"Rock": 3, "Swing": 5, "Polka": 1}
    assert {row["track_id"]: row["split"] for row in stores.rows()} == splits

    folders = stores.extract("--genre-from", "folder", "--genre-map", _empty(tmp_path))
    assert "--genre-from: tag before, folder now" in folders.err
    assert stores.genres() == {artist: len(genres) for artist, genres in TRACKS.items()}


def test_new_tracks_are_spelled_as_the_store_has_them(library: Path, tmp_path: Path, scheduler: str) -> None:
    stores = Stores(library, tmp_path / "data", scheduler)
    assert stores.extract("--genre-from", "tag").code == 0
    for number in range(4):
        path = write_clip(library / "New" / f"{number}.flac", 0.5, seed=50 + number)
        tags = FLAC(path)
        tags["genre"], tags["artist"] = "ROCK", "New"
        tags.save()
    assert "'ROCK' is 'Rock' (4)" in stores.extract().err
    assert stores.genres() == {"Rock": 7, "Jazz": 5, "Polka": 1}


def _empty(folder: Path) -> Path:
    path = folder / "empty.csv"
    path.write_text("genre,as\n")
    return path
