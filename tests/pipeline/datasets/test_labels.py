"""Genres from folders and tags, and how they are renamed, spelled and left out; artists from tags and folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from mutagen.id3 import ID3, TCON, TPE1

from mgc.pipeline.datasets import Dataset, blocks, labels, open_dataset
from mgc.pipeline.datasets.labels import Labelling, Recorded, Request
from mgc.pipeline.errors import DatasetError, SpecError

BY_TAG = Request(source="tag")


def library(root: Path, files: Iterable[tuple[str, str | None, str | None]]) -> Path:
    """Files that are nothing but tags: path, artist, genre."""
    for path, artist, genre in files:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(bytes(400))
        tags = ID3()
        if artist:
            tags.add(TPE1(encoding=3, text=artist))
        if genre:
            tags.add(TCON(encoding=3, text=genre))
        tags.save(root / path)
    return root


def labels_of(dataset: Dataset) -> dict[str, tuple[str | None, str | None]]:
    columns = dataset.tracks.select(["track_id", "genre", "artist_id"]).to_pydict()
    return {track: pair for track, *pair in zip(*columns.values(), strict=True)}


ALBUMS = [
    (f"{artist}/Album/{n}.mp3", artist, genre)
    for artist, genre in (("Low", "Rock"), ("AC-DC", "rock "), ("Nina Simone", "Jazz"), ("Miles", "Jazz"))
    for n in range(3)
]


def test_a_library_of_artists_is_refused_with_advice(tmp_path: Path) -> None:
    source = library(tmp_path, ALBUMS)
    advice = (
        "its 4 folders look like artists .12 of 12 files with an artist tag lie in a folder with that name., and the"
        " tags name 2 genres; add --genre-from tag to learn these, or --genre-from folder to learn the folders"
    )
    with pytest.raises(DatasetError, match=advice):
        open_dataset(source)
    assert open_dataset(source, genres=Request(source="folder")).genres == ("AC-DC", "Low", "Miles", "Nina Simone")
    stores = Recorded(Labelling(), ())
    assert len(open_dataset(source, recorded=lambda name, root: stores).genres) == 4  # a store of an earlier version

    dataset = open_dataset(source, genres=BY_TAG)
    assert dataset.genres == ("Jazz", "Rock")
    assert labels_of(dataset)["Low/Album/0"] == ["Rock", "low"]
    assert dataset.notes == (
        "artists of 12 of 12 files read from their tags",
        "genres that differ only in case or blanks are one: 'rock' is 'Rock' (3)",
    )


def test_folders_of_albums_are_refused(tmp_path: Path) -> None:
    files = [(f"Album {a}/{n}.mp3", f"Artist {a}", ("Rock", "Jazz")[a % 2]) for a in range(5) for n in range(2)]
    with pytest.raises(DatasetError, match="nearly every folder has one artist only"):
        open_dataset(library(tmp_path, files))


GENRES = ("Rock", "Jazz", "Folk", "Soul", "Ambient")


@pytest.mark.parametrize(
    "files",
    [
        # Genre folders with the genre in the tags, even if each has one artist only.
        [(f"{genre}/{n}.mp3", f"The {genre}s", genre.upper()) for genre in GENRES for n in range(3)],
        # Genre folders whose files have other genres in their tags.
        [(f"{genre}/{n}.mp3", f"Artist {g}{n}", "Other") for g, genre in enumerate(GENRES) for n in range(3)],
        # Genre folders, a folder per artist below them.
        [(f"{genre}/Artist {n}/{n}.mp3", f"Artist {n}", "Pop") for genre in GENRES for n in range(3)],
        # Tags without genres, and without anything.
        [(f"{genre}/{n}.mp3", f"Artist {n}", None) for genre in GENRES for n in range(3)],
        [(f"{genre}/{n}.mp3", None, None) for genre in GENRES for n in range(3)],
        # One self-titled folder.
        [("Rock/0.mp3", "Rock", "Pop"), ("Rock/1.mp3", "A", "Pop"), ("Jazz/1.mp3", "B", "Pop")],
    ],
)
def test_folders_of_genres_go_on(files: list[tuple[str, str | None, str | None]], tmp_path: Path) -> None:
    dataset = open_dataset(library(tmp_path, files))
    assert set(dataset.genres) == {path.split("/")[0] for path, _, _ in files}
    assert not any("look like artists" in note for note in dataset.notes)


def test_folders_of_artists_without_genres_in_tags(tmp_path: Path) -> None:
    dataset = open_dataset(library(tmp_path, [(path, artist, None) for path, artist, _ in ALBUMS]))
    assert "each artist is a class" in dataset.notes[0]


def test_artists_of_tags_and_folders(tmp_path: Path) -> None:
    files = [
        ("Rock/Low/1.mp3", " LOW", None),
        ("Rock/Low/2.mp3", None, None),
        ("Rock/Various Artists/3.mp3", None, None),
        ("Rock/4.mp3", "Various artists", None),
        ("Rock/5.mp3", None, None),
        ("Jazz/6.mp3", "Miles", None),
    ]
    dataset = open_dataset(library(tmp_path, files))
    assert dataset.tracks["artist_id"].to_pylist() == ["miles", None, None, "low", "low", None]
    assert dataset.notes == (
        "artists of 2 of 6 files read from their tags",
        "files without an artist tag, whose folder below the genre is taken for it: 1 (Low)",
    )
    listed = tmp_path / "list.csv"
    listed.write_text("path,genre\n" + "".join(f"{path},x\n" for path, _, _ in files[:2]))
    assert open_dataset(listed).tracks["artist_id"].to_pylist() == ["low", None]
    listed.write_text("path,genre,artist\n" + "".join(f"{path},x,Someone\n" for path, _, _ in files[:2]))
    assert open_dataset(listed).tracks["artist_id"].to_pylist() == ["Someone", "Someone"]


def test_genres_from_tags_of_loose_files_and_lists(tmp_path: Path) -> None:
    source = library(tmp_path / "music", [("a.mp3", "A", "Rock"), ("b/c.mp3", None, "Jazz"), ("d.mp3", None, None)])
    dataset = open_dataset(source, genres=BY_TAG)
    assert labels_of(dataset) == {"a": ["Rock", "a"], "b/c": ["Jazz", None], "d": [None, None]}
    assert dataset.unlabelled == {"d": "without a genre: its tags name none"}
    assert "files without a genre tag, left out: 1 (d.mp3)" in dataset.notes
    (source / "list.csv").write_text("path\na.mp3\nb/c.mp3\n")
    assert open_dataset(source / "list.csv", genres=BY_TAG).genres == ("Jazz", "Rock")
    with pytest.raises(SpecError, match="--genre-column names a column, --genre-from tag the tags"):
        open_dataset(source / "list.csv", genres=BY_TAG, genre_column="mood")
    with pytest.raises(DatasetError, match="--genre-from column cannot be used with a dataset in folder format"):
        open_dataset(source, genres=Request(source="column"))
    with pytest.raises(DatasetError, match="no track has a genre; files without a genre tag, left out: 1"):
        open_dataset(library(tmp_path / "bare", [("x.mp3", None, None)]), genres=BY_TAG)


def relabel(genres: list[str | None], known: tuple[str, ...] = (), **settings: object) -> labels.Labels:
    paths = blocks.collect(f"{row}.mp3" for row in range(len(genres)))
    result = labels.relabel(blocks.collect(genres), Labelling(**settings), known, paths)  # type: ignore[arg-type]
    return result._replace(genres=result.genres.to_pylist())


def test_spellings_that_differ_in_case_or_blanks_only() -> None:
    assert relabel(["rock", "Rock ", "Rock ", "Hip-Hop"]).genres == ["Rock ", "Rock ", "Rock ", "Hip-Hop"]
    assert relabel(["rock", "Rock"]).genres == ["Rock", "Rock"]  # as frequent: the first by name
    known = relabel(["rock", "Rock", "Rock"], known=("rock",))
    assert known.genres == ["rock", "rock", "rock"]
    assert known.notes == ("genres that differ only in case or blanks are one: 'Rock' is 'rock' (2)",)
    both = relabel(["rock", "Rock", "ROCK"], known=("rock", "Rock"))  # a store of an earlier version has both
    assert both.genres == ["rock", "Rock", "Rock"]


def test_map_and_least_number(tmp_path: Path) -> None:
    file = tmp_path / "map.csv"
    file.write_text("Genre,as\nhip  hop,Rap\nComedy,\nPolka,Folk\n")
    genre_map = labels.read_map(file)
    assert genre_map == {"hip hop": "Rap", "comedy": None, "polka": "Folk"}
    result = relabel(["Hip Hop", "HIP HOP", "comedy", "rap", "Jazz", "Jazz", None], genre_map=genre_map, min_tracks=3)
    assert result.genres == ["Rap", "Rap", None, "Rap", None, None, None]
    assert result.why == {
        2: "without a genre: the genre map leaves comedy out",
        4: "without a genre: Jazz has 2 of at least 3 tracks",
        5: "without a genre: Jazz has 2 of at least 3 tracks",
        6: "without a genre: its tags name none",
    }
    assert result.notes == (
        "files without a genre tag, left out: 1 (6.mp3)",
        "genres renamed by the genre map: HIP HOP as Rap (1), Hip Hop as Rap (1)",
        "genres left out by the genre map: comedy (1)",
        "genres of the genre map that no track has: polka",
        "genres that differ only in case or blanks are one: 'rap' is 'Rap' (1)",
        "genres with fewer than 3 tracks, left out: Jazz (2)",
    )
    for text, problem in (
        ("genre,to\nRock,Pop\n", "has no column as; its columns are genre, to; name them in line 1"),
        ("genre,as,why\nRock,Pop,x\n", "has the columns why; a genre map has only genre and as"),
        ("genre,as\nRock,Pop\nrock ,Folk\n", "genre 'rock' was named before"),
        ("genre,as\n,Pop\n", "it has no genre"),
    ):
        file.write_text(text)
        with pytest.raises(DatasetError, match=problem):
            labels.read_map(file)


def test_settings_are_recorded_and_merged() -> None:
    before = Labelling("tag", {"polka": None}, 3)
    assert Labelling.from_dict(before.as_dict()) == before
    assert Labelling().as_dict() == {}
    assert Request().merged(before) == Request(source="auto").merged(before) == before
    after = Request("folder", {}, 1).merged(before)
    assert after == Labelling("folder", {}, 1)
    assert list(labels.describe_change(before, after, "folder")) == [
        "--genre-from: tag before, folder now; the tracks of the stores get other genres",
        "--genre-map: 1 genres before, 0 now",
        "--min-tracks: 3 before, 1 now",
    ]
    assert not list(labels.describe_change(Labelling(), Labelling("folder"), "folder"))
