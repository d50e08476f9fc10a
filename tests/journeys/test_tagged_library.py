"""A hobbyist with a tagged library: from Artist/Album/01 Title.mp3 to a tested classifier of genres."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import Outcome, mgc_process
from mutagen.id3 import ID3, TALB, TCON, TIT2, TPE1

from mgc.pipeline.datasets import open_dataset
from mgc.pipeline.store.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.corpus, pytest.mark.timeout(600)]

GENRES = ("Folk", "Chiptune", "Orchestral")


@pytest.fixture(scope="module")
def workspace(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the library `Music`: clips of three genres, one of them spelled in three ways."""
    folder = tmp_path_factory.mktemp("home")
    dataset = open_dataset(corpus / "fma_debian")
    count: dict[str, int] = {}
    for row in dataset.tracks.to_pylist():
        genre, artist = row["genre"], f"Artist {row['artist_id']}"
        count[genre] = number = count.get(genre, 0) + 1
        if genre not in GENRES:
            continue
        path = folder / "Music" / artist / "Album" / f"{number:02} Title.mp3"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(str(dataset.root)) / row["path"], path)
        spelling = {1: genre.lower(), 2: f"{genre} "}.get(number, genre) if genre == "Folk" else genre
        tags = ID3()
        for frame, text in ((TPE1, artist), (TALB, "Album"), (TIT2, "Title"), (TCON, spelling)):
            tags.add(frame(encoding=3, text=text))
        tags.save(path)
    return folder


def test_from_the_library_to_a_tested_classifier(workspace: Path) -> None:
    def mgc(*arguments: object) -> Outcome:
        return mgc_process(*arguments, MGC_DATA=str(workspace / "data"))

    extract = ("extract", "--dataset", workspace / "Music", "--feature", "mfcc", "--slice", 4, "--workers", 1)
    refused = mgc(*extract)
    assert refused.code == 1
    assert "folders look like artists" in refused.error
    assert "and the tags name 3 genres; add --genre-from tag to learn these" in refused.error
    assert not list(workspace.glob("data/features/*/*/store.json"))

    extracted = mgc(*extract, "--genre-from", "tag")
    assert extracted.code == 0, extracted.err
    n_tracks = len(list(workspace.glob("Music/*/*/*.mp3")))
    assert f"artists of {n_tracks} of {n_tracks} files read from their tags" in extracted.out
    assert "genres that differ only in case or blanks are one: 'folk' is 'Folk' (1)" in extracted.out
    assert f"{n_tracks} of {n_tracks} in use" in extracted.out
    assert "  artists  " not in extracted.out
    (path,) = workspace.glob("data/features/Music/mfcc-*")
    tracks = Store.open(path).tracks.to_pylist()
    splits: dict[str, set[str]] = {}
    for row in tracks:
        splits.setdefault(row["artist_id"], set()).add(row["split"])
    assert len(splits) > 3
    assert None not in splits
    assert all(len(of_artist) == 1 for of_artist in splits.values())

    again = mgc(*extract)  # the store knows where its genres come from
    assert again.code == 0, again.err
    assert "3 genres" not in again.err
    assert Store.open(path).tracks.to_pylist() == tracks

    trained = mgc("train", "--model", "moments/knn")
    assert trained.code == 0, trained.err
    assert "3 genres" in trained.out
    assert "artists in more than one split" not in trained.out
    measured = json.loads(mgc("evaluate", "--json").out)
    measured = measured[0] if isinstance(measured, list) else measured
    assert measured["n_tracks"] == sum(row["split"] == "test" for row in tracks)
    assert not measured["leaky"]
    assert measured["by_track"]["accuracy"] > 1 / len(GENRES)
