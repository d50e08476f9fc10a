"""Datasets in every layout, with odd names, files and lists. The audio files are empty: none is ever opened."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgc.pipeline.datasets import Dataset, open_dataset
from mgc.pipeline.datasets.catalogue import path_ids
from mgc.pipeline.datasets.published import published_dataset, published_names
from mgc.pipeline.datasets.tabular import read_rows
from mgc.pipeline.datasets.tracks import DATASET_SCHEMA, escape, unescape
from mgc.pipeline.errors import DatasetError, SpecError

FMA_HEADER = [
    ["", "set", "set", "track", "track", "track", "artist", "artist", "album", "artist"],
    ["", "split", "subset", "genre_top", "title", "bit_rate", "id", "name", "id", "bio"],
    ["track_id", "", "", "", "", "", "", "", "", ""],
]


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def fma_row(
    track_id: int, genre: str = "Rock", subset: str = "small", split: str = "training", artist: str = "7"
) -> list:
    return [
        track_id,
        split,
        subset,
        genre,
        f"Title {track_id}",
        320000,
        artist,
        "A. Artist",
        9,
        'a\n"long" bio, with, commas',
    ]


def make_fma(folder: Path, rows: list[list], files: list[str], name: str = "fma_x") -> Path:
    touch(folder / name, *files)
    (folder / "fma_metadata").mkdir()
    with (folder / "fma_metadata" / "tracks.csv").open("w", newline="") as out:
        csv.writer(out).writerows([*FMA_HEADER, *rows])
    return folder / name


def write_list(folder: Path, *rows: tuple[str, ...], name: str = "list.csv") -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows(rows)
    return folder / name


def column(dataset: Dataset, name: str) -> list:
    return dataset.tracks[name].to_pylist()


def check(dataset: Dataset) -> Dataset:
    """Check the properties that every dataset has."""
    assert dataset.tracks.schema == DATASET_SCHEMA
    ids = column(dataset, "track_id")
    assert ids == sorted(set(ids))
    assert len(set(column(dataset, "path"))) == len(ids)
    assert set(column(dataset, "genre")) == set(dataset.genres)
    assert dataset.root.is_absolute()
    assert all(note.isprintable() for note in dataset.notes)
    return dataset


class TestFma:
    def test_columns(self, tmp_path):
        root = make_fma(
            tmp_path, [fma_row(2), fma_row(1004, "Folk", split="test")], ["000/000002.mp3", "001/001004.mp3"]
        )
        dataset = check(open_dataset(root))
        assert (dataset.name, dataset.format, dataset.root, dataset.notes) == ("fma_x", "fma", root, ())
        assert dataset.tracks.to_pylist()[1] == {
            "track_id": "001004",
            "path": "001/001004.mp3",
            "genre": "Folk",
            "split": "test",
            "artist_id": "7",
            "album_id": "9",
            "title": "Title 1004",
            "bit_rate": 320000,
        }

    def test_the_folder_around_audio_and_metadata_will_do(self, tmp_path):
        root = make_fma(tmp_path, [fma_row(2)], ["000/000002.mp3"])
        assert open_dataset(tmp_path).root == root
        assert open_dataset(tmp_path).name == "fma_x"
        touch(tmp_path / "fma_y", "000/000002.mp3")
        with pytest.raises(DatasetError, match="several audio folders: fma_x, fma_y; name one"):
            open_dataset(tmp_path)

    def test_metadata_elsewhere(self, tmp_path):
        root = make_fma(tmp_path, [fma_row(2)], ["000/000002.mp3"])
        (tmp_path / "fma_metadata").rename(tmp_path / "elsewhere")
        with pytest.raises(DatasetError, match=r"no fma_metadata/tracks.csv beside .*fma_x; give --metadata"):
            open_dataset(root)
        for metadata in (tmp_path / "elsewhere", tmp_path / "elsewhere" / "tracks.csv"):
            assert open_dataset(root, metadata=metadata).tracks.num_rows == 1
        with pytest.raises(DatasetError, match=r"no tracks.csv at .*nowhere"):
            open_dataset(root, metadata=tmp_path / "nowhere")

    def test_the_subset_is_the_smallest_with_all_files_present(self, tmp_path):
        rows = [fma_row(1), fma_row(2), fma_row(3, subset="medium"), fma_row(4, subset="large"), fma_row(5, subset="")]
        root = make_fma(tmp_path, rows, ["000/000001.mp3"])
        small = check(open_dataset(root))
        assert column(small, "path") == ["000/000001.mp3", "000/000002.mp3"]
        assert small.notes == ("tracks without a file: 1 of the 2 labelled ones of subset small",)
        touch(root, "000/000003.mp3")
        assert column(check(open_dataset(root)), "track_id") == ["000001", "000002", "000003"]
        assert len(column(open_dataset(root, subset="full"), "track_id")) == 5
        assert "clips outside subset small, left out: 1" in open_dataset(root, subset="small").notes
        with pytest.raises(SpecError, match="unknown FMA subset 'tiny'; choose one of small, medium, large, full"):
            open_dataset(root, subset="tiny")

    def test_what_has_no_row_or_no_genre_is_said(self, tmp_path):
        files = ["000/000001.mp3", "000/000002.mp3", "000/000009.mp3", "000/cover.mp3", "checksums", "extra/song.flac"]
        dataset = check(open_dataset(make_fma(tmp_path, [fma_row(1), fma_row(2, genre=" ")], files)))
        assert column(dataset, "track_id") == ["000001"]
        assert dataset.notes == (
            "audio files outside NNN/NNNNNN.mp3, left out: 2 (000/cover.mp3, extra/song.flac)",
            "clips without a row in tracks.csv, left out: 1 (000/000009.mp3)",
            "tracks without a genre, left out: 1 of the 2 of subset small",
        )

    def test_genre_column(self, tmp_path):
        root = make_fma(tmp_path, [fma_row(1)], ["000/000001.mp3"])
        assert open_dataset(root, genre_column="genre_top").genres == ("Rock",)
        assert open_dataset(root, genre_column="artist.name").genres == ("A. Artist",)
        with pytest.raises(DatasetError, match=r"is not a column of .*choose for instance track.genre_top"):
            open_dataset(root, genre_column="track.genre")
        with pytest.raises(DatasetError, match=r"'id' is ambiguous .*choose for instance artist.id or album.id"):
            open_dataset(root, genre_column="id")

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([fma_row(8)], "has a row for none of the clips"),
            ([fma_row(1), fma_row(1)], "several rows for track 000001"),
            ([fma_row("x")], "'x' is not a track id"),
            ([fma_row(1, split="trial")], "unknown split trial"),
            ([fma_row(1, genre="")], "no track of subset small has a genre"),
            ([fma_row(1)[:3]], "Expected 10 columns, got 3"),
        ],
    )
    def test_metadata_that_cannot_be_used(self, tmp_path, rows, message):
        with pytest.raises(DatasetError, match=message) as caught:
            open_dataset(make_fma(tmp_path, rows, ["000/000001.mp3"]))
        assert "tracks.csv" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_another_csv_is_not_taken_for_the_metadata(self, tmp_path):
        root = make_fma(tmp_path, [], ["000/000001.mp3"])
        (tmp_path / "fma_metadata" / "tracks.csv").write_text("path,genre\na.mp3,x\nb.mp3,y\n")
        with pytest.raises(DatasetError, match="does not begin with two header rows and an index row"):
            open_dataset(root)

    def test_odd_nodes_named_like_clips_are_tracks(self, tmp_path):
        root = make_fma(tmp_path, [fma_row(i) for i in range(5)], ["000/000000.mp3"])
        (root / "000" / "000001.mp3").mkdir()
        (root / "000" / "000002.mp3").symlink_to("000002.mp3")
        (root / "000" / "000003.mp3").symlink_to("gone.mp3")
        os.mkfifo(root / "000" / "000004.mp3")
        (root / "001").symlink_to(".")
        dataset = check(open_dataset(root))
        assert len(column(dataset, "track_id")) == 5
        assert dataset.notes == ("links to folders, not followed: 1 (001)",)

    def test_of_a_clip_in_two_formats_the_mp3_counts(self, tmp_path):
        dataset = check(open_dataset(make_fma(tmp_path, [fma_row(1)], ["000/000001.flac", "000/000001.mp3"])))
        assert column(dataset, "path") == ["000/000001.mp3"]
        assert dataset.notes == ("further formats of the same clips, left out: 1",)

    def test_fma_small_is_recognised_by_its_genres(self, tmp_path):
        genres = published_dataset("fma_small").genres
        rows = [fma_row(98565 + i, genre) for i, genre in enumerate(reversed(genres))]
        dataset = check(open_dataset(make_fma(tmp_path, rows, ["098/098565.mp3"])))
        assert dataset.genres == genres
        assert dataset.notes[-1].startswith("files known to be faulty as published: 3 (098/098565.mp3: 1.6 s")

    @pytest.mark.corpus
    def test_corpus(self, corpus):
        dataset = check(open_dataset(corpus / "fma_debian"))
        assert (dataset.name, dataset.notes, dataset.tracks.num_rows) == ("fma_debian", (), 102)
        assert Counter(column(dataset, "split")) == {"training": 78, "validation": 12, "test": 12}
        assert dataset.genres == ("Ambient", "Chiptune", "Electronic", "Folk", "Orchestral", "Rock")
        assert len(set(column(dataset, "artist_id"))) == 28
        assert all((dataset.root / path).is_file() for path in column(dataset, "path"))


class TestGtzan:
    def test_published_order_and_ids(self, tmp_path):
        genres = published_dataset("gtzan").genres
        touch(
            tmp_path / "gtzan" / "genres", *(f"{g}/{g}.{i:05}.au" for g in genres for i in range(3)), "rock/cover.mp3"
        )
        dataset = check(open_dataset(tmp_path / "gtzan"))
        assert (dataset.format, dataset.name, dataset.root.name) == ("gtzan", "gtzan", "genres")
        assert dataset.genres == genres
        assert column(dataset, "track_id")[:2] == ["blues.00000", "blues.00001"]
        assert set(column(dataset, "split")) == {None}
        assert column(dataset, "artist_id")[:3] == ["John Lee Hooker"] * 3
        assert dataset.notes == ("audio files outside genre/genre.00000.wav, left out: 1 (rock/cover.mp3)",)

    def test_the_known_bad_file_is_named(self, tmp_path):
        touch(tmp_path, *(f"{g}/{g}.00054.wav" for g in published_dataset("gtzan").genres))
        assert open_dataset(tmp_path).notes == (
            "files known to be faulty as published: 1 (jazz/jazz.00054.wav: damaged)",
        )

    def test_other_genres_and_a_clip_in_two_formats(self, tmp_path):
        touch(tmp_path, "waltz/waltz.00000.wav", "waltz/waltz.00000.au", "polka/polka.00000.wav")
        (tmp_path / "polka" / "polka.00001.wav").mkdir()
        dataset = check(open_dataset(tmp_path, format="gtzan"))
        assert column(dataset, "path") == ["polka/polka.00000.wav", "polka/polka.00001.wav", "waltz/waltz.00000.au"]
        assert dataset.notes == ("further formats of the same clips, left out: 1",)

    def test_plain_folders_are_not_gtzan(self, tmp_path):
        touch(tmp_path, "rock/rock.00000.wav", "jazz/take five.wav")
        assert open_dataset(tmp_path).format == "folder"


class TestFolder:
    def test_any_depth_and_format(self, tmp_path):
        touch(
            tmp_path,
            "rock/a/b/one.mp3",
            "rock/one.FLAC",
            "folk/song.opus",
            "folk/notes.txt",
            "folk/.DS_Store",
            "loose.wav",
        )
        dataset = check(open_dataset(tmp_path))
        assert dataset.format == "folder"
        assert list(zip(column(dataset, "track_id"), column(dataset, "genre"), strict=True)) == [
            ("folk/song", "folk"),
            ("rock/a/b/one", "rock"),
            ("rock/one", "rock"),
        ]
        assert dataset.notes == (
            "audio files outside genre/…/file, left out: 1 (loose.wav)",
            "files without an artist tag, whose folder below the genre is taken for it: 1 (a)",
        )
        assert column(dataset, "artist_id") == [None, "a", None]

    def test_ids_keep_the_suffix_where_they_must(self, tmp_path):
        touch(tmp_path, "a/x.mp3", "a/x.wav", "a/y.mp3")
        assert column(check(open_dataset(tmp_path)), "track_id") == ["a/x.mp3", "a/x.wav", "a/y"]

    def test_odd_names_and_nodes(self, tmp_path):
        touch(tmp_path, "rock/new\nline.mp3", "rock/tab\t.mp3", "rock/live.mp3/encore.mp3", "rock/.hidden.mp3")
        (tmp_path / "rock" / "folder.mp3").mkdir()
        os.mkfifo(tmp_path / "rock" / "pipe.mp3")
        (tmp_path / "rock" / "device.mp3").symlink_to("/dev/zero")
        (tmp_path / "rock" / "loop.mp3").symlink_to("loop.mp3")
        (tmp_path / "rock" / "gone.mp3").symlink_to("nowhere")
        (tmp_path / "rock" / "again").symlink_to(".")
        (tmp_path / "jazz").symlink_to("rock")
        raw = os.fsencode(tmp_path) + b"/rock/\xff\\xfe.mp3"
        os.close(os.open(raw, os.O_CREAT))
        dataset = check(open_dataset(tmp_path))
        assert set(column(dataset, "path")) == {
            "rock/new\nline.mp3",
            "rock/tab\t.mp3",
            "rock/live.mp3/encore.mp3",
            "rock/folder.mp3",
            "rock/pipe.mp3",
            "rock/device.mp3",
            "rock/loop.mp3",
            "rock/gone.mp3",
            "rock/\\xff\\x5cxfe.mp3",
        }
        assert raw in [os.fsencode(dataset.root) + b"/" + unescape(path) for path in column(dataset, "path")]
        assert dataset.notes == (
            "links to folders, not followed: 2 (jazz, rock/again)",
            "hidden files and folders, left out: 1 (rock/.hidden.mp3)",
            "files without an artist tag, whose folder below the genre is taken for it: 1 (live.mp3)",
        )

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_unreadable_folders_are_said(self, tmp_path):
        touch(tmp_path, "rock/a.mp3", "jazz/b.mp3")
        (tmp_path / "jazz").chmod(0)
        assert open_dataset(tmp_path).notes == ("folders that cannot be read, left out: 1 (jazz)",)

    @given(
        st.sets(
            st.text("ab.", min_size=1, max_size=3).map(lambda s: s + ".mp3") | st.text("ab.", min_size=1, max_size=3)
        )
    )
    def test_ids_of_distinct_paths_are_distinct(self, paths):
        ids = path_ids(pa.chunked_array([sorted(paths)], pa.string()))
        assert len(set(ids.to_pylist())) == len(paths)


class TestList:
    def test_all_columns(self, tmp_path):
        source = write_list(
            tmp_path / "my set",
            ("Path", " genre ", "track_id", "split", "artist", "album", "title", "mood"),
            ("x/a.mp3", "rock", "one", "Train", "A", "B", "C", "sad"),
            ("./x//b", "jazz", "", "val", "", "", "", ""),
            ("c.mp3", "jazz", "", "testing", "", "", "", ""),
            name="my list.csv",
        )
        dataset = check(open_dataset(source))
        assert (dataset.name, dataset.format, dataset.root) == ("my_list", "list", tmp_path / "my set")
        assert [tuple(track.values())[:7] for track in dataset.tracks.to_pylist()] == [
            ("c", "c.mp3", "jazz", "test", None, None, None),
            ("one", "x/a.mp3", "rock", "training", "A", "B", "C"),
            ("x/b", "x/b", "jazz", "validation", None, None, None),
        ]

    def test_an_id_does_not_change_when_a_namesake_is_added(self, tmp_path):
        rows = [("path", "genre"), ("a/01.mp3", "x")]
        before = column(open_dataset(write_list(tmp_path, *rows)), "track_id")
        assert set(before) <= set(column(open_dataset(write_list(tmp_path, *rows, ("b/01.mp3", "y"))), "track_id"))

    def test_parquet_and_its_row_numbers(self, tmp_path):
        table = pa.table({"path": ["a.mp3", "b.mp3"], "genre": [1, 2], "split": pa.array(["test", None])})
        pq.write_table(table, tmp_path / "list.data")
        dataset = check(open_dataset(tmp_path / "list.data"))
        assert (column(dataset, "genre"), column(dataset, "split")) == (["1", "2"], ["test", None])
        pq.write_table(pa.table({"path": ["a.mp3", None], "genre": ["x", "y"]}), tmp_path / "list.data")
        with pytest.raises(DatasetError, match=r"list.data, row 2: it has no path"):
            open_dataset(tmp_path / "list.data")
        (tmp_path / "list.data").write_bytes(b"PAR1 and no more")
        with pytest.raises(DatasetError, match=r"cannot read .*list\.data: "):
            open_dataset(tmp_path / "list.data")

    def test_names_that_are_odd_or_not_utf8(self, tmp_path):
        names = [b"new\nline.mp3", b"tab\t, comma.mp3", "音楽.mp3".encode(), b"raw \xff.mp3", b"literal \\xfe.mp3"]
        for name in names:
            os.close(os.open(os.fsencode(tmp_path) + b"/" + name, os.O_CREAT))
        cells = [*names, b"escaped \\xfd.mp3"]
        rows = b"".join(b'"%s",%s\r\n' % (name, b"ab"[i % 2 : i % 2 + 1]) for i, name in enumerate(cells))
        (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbfpath,genre\r\n" + rows)
        paths = column(check(open_dataset(tmp_path / "list.csv")), "path")
        assert {unescape(path) for path in paths} == {*names, b"escaped \xfd.mp3"}

    def test_rows_without_genre_are_counted(self, tmp_path):
        source = write_list(tmp_path, ("path", "genre"), ("a.mp3", "x"), ("b.mp3", " "), ("c.mp3", ""))
        dataset = check(open_dataset(source))
        assert (dataset.tracks.num_rows, dataset.notes) == (1, ("rows without a genre, left out: 2",))

    def test_genre_column(self, tmp_path):
        source = write_list(tmp_path, ("path", "Mood"), ("a.mp3", "sad"))
        assert open_dataset(source, genre_column="mood").genres == ("sad",)
        with pytest.raises(DatasetError, match=r"no column genre; its columns are path, mood; name them in line 1"):
            open_dataset(source)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "has no column path and no column genre; it is empty"),
            ("path,genre\n", "has no rows"),
            ("path,genre,path\n", "more than one column path"),
            ("path,genre\na.mp3,x\nb.mp3\n", "line 3: the header has 2 columns, this row 1"),
            ('path,genre\n"a\nb.mp3",x\nc.mp3,x,y\n', "line 4: the header has 2 columns, this row 3"),
            ('path,genre\na.mp3,x\n"b.mp3,x\n', "line 3: unexpected end of data"),
            ("path,genre\na.mp3,x\n,x\n", "line 3: it has no path"),
            ("path,genre,split\na.mp3,x,trial\n", "line 2: 'trial' is not a split; write training, validation or test"),
            ("path,genre\na.mp3,x\n\nx/../a.mp3,x\n", "line 4: path 'a.mp3' is also in .*line 2"),
            ("path,genre,track_id\na.mp3,x,1\nb.mp3,x,1\n", "line 3: track_id '1' is also in .*line 2"),
            ("path,genre\n/a.mp3,x\n", "line 2: path '/a.mp3' is absolute; give --audio-root"),
            ("path,genre\nx/../../a.mp3,x\n", "line 2: path '.*' leads out of .*; give --audio-root"),
            ("path,genre\n\\x2e./a.mp3,x\n", "line 2: path '.*' leads out of .*; give --audio-root"),
            ("path,genre\nlinked/a.mp3,x\n", "line 2: path 'linked/a.mp3' leads out of .*; give --audio-root"),
            ("path,genre\na\\x00.mp3,x\n", "line 2: path '.*' holds a null character"),
            ("path,genre\na.mp3,\n", "no row has a genre"),
        ],
    )
    def test_malformed(self, tmp_path, text, message):
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "linked").symlink_to(tmp_path)
        (tmp_path / "set" / "list.csv").write_text(text)
        with pytest.raises(DatasetError, match=message) as caught:
            open_dataset(tmp_path / "set" / "list.csv")
        assert str(tmp_path / "set" / "list.csv") in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_latin1_genre_is_refused(self, tmp_path):
        (tmp_path / "list.csv").write_bytes(b"path,genre\na.mp3,caf\xe9\n")
        with pytest.raises(DatasetError, match=r"line 2: genre .caf\\udce9. is not UTF-8"):
            open_dataset(tmp_path / "list.csv")

    def test_audio_root(self, tmp_path):
        source = write_list(tmp_path / "lists", ("path", "genre"), ("a.mp3", "x"), (f"{tmp_path}/music/b.mp3", "y"))
        dataset = check(open_dataset(source, audio_root=tmp_path / "lists" / ".." / "music"))
        assert dataset.root == tmp_path / "music"
        assert column(dataset, "path") == ["a.mp3", "b.mp3"]

    @pytest.mark.parametrize(
        "cell", ["../b.mp3", "{root}/../b.mp3", "/b.mp3", "out/b.mp3", "x/../../b.mp3", "in/../../b.mp3"]
    )
    def test_audio_root_cannot_be_left(self, tmp_path, cell):
        root = tmp_path / "music"
        (root / "sub").mkdir(parents=True)
        (root / "out").symlink_to(tmp_path)
        (root / "in").symlink_to("sub")
        touch(tmp_path, "b.mp3")
        source = write_list(tmp_path / "lists", ("path", "genre"), (cell.format(root=root), "x"))
        with pytest.raises(DatasetError, match=r"line 2: path '.*' leads out of .*/music/; give --audio-root"):
            open_dataset(source, audio_root=root)

    def test_what_a_list_names_is_not_opened(self, tmp_path):
        """Pipes, devices and link loops become tracks, which extraction drops with a reason."""
        os.mkfifo(tmp_path / "pipe.mp3")
        (tmp_path / "device.mp3").symlink_to("/dev/zero")
        (tmp_path / "loop.mp3").symlink_to("loop.mp3")
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        names = ["a/x.mp3", "device.mp3", "loop.mp3", "pipe.mp3"]
        source = write_list(tmp_path, ("path", "genre"), *((name, "x") for name in names))
        assert column(check(open_dataset(source)), "path") == names

    @pytest.mark.timeout(60)
    def test_a_pipe_is_no_list(self, tmp_path):
        """Once, opening the pipe blocked for ever."""
        os.mkfifo(tmp_path / "splits.csv")
        with pytest.raises(DatasetError, match=r"splits\.csv is not a file; name a CSV or Parquet list"):
            read_rows(tmp_path / "splits.csv", required=("track_id", "split"), optional=())

    def test_a_link_to_one_file_may_point_anywhere(self, tmp_path):
        source = write_list(tmp_path / "set", ("path", "genre"), ("a.mp3", "x"))
        touch(tmp_path, "elsewhere.mp3")
        (tmp_path / "set" / "a.mp3").symlink_to(tmp_path / "elsewhere.mp3")
        assert open_dataset(source).tracks.num_rows == 1

    @pytest.mark.corpus
    def test_the_damaged_files_of_the_corpus_are_all_tracks(self, corpus, tmp_path):
        with (corpus / "faults" / "expected.csv").open(newline="", encoding="utf-8") as file:
            names = [row["file"] for row in csv.DictReader(file)]
        source = write_list(tmp_path, ("path", "genre"), *((name, "ab"[i % 2]) for i, name in enumerate(names)))
        assert column(check(open_dataset(source, audio_root=corpus / "faults")), "path") == sorted(map(escape, names))


class TestForeignLists:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    @pytest.mark.parametrize(
        "head", [("path", "genre"), ("Filename", "label"), ("file", "class"), ("track", "genre_top")]
    )
    def test_separators_encodings_and_usual_headings(self, tmp_path, head, separator, encoding):
        rows = [head, ("ä,b.mp3", "Rock"), ("c;d.mp3", "Jazz")]
        with (tmp_path / "list.csv").open("w", encoding=encoding, newline="") as out:
            csv.writer(out, delimiter=separator).writerows(rows)
        dataset = check(open_dataset(tmp_path / "list.csv"))
        assert sorted(column(dataset, "path")) == ["c;d.mp3", "ä,b.mp3"]
        assert dataset.genres == ("Jazz", "Rock")
        for found, name in zip(head, ("path", "genre"), strict=True):
            assert (f"column {found.lower()} read as {name}" in dataset.notes) == (found.lower() != name)

    def test_the_stated_name_goes_before_its_synonyms(self, tmp_path):
        source = write_list(tmp_path, ("audio", "path", "label", "genre"), ("x.mp3", "a.mp3", "Jazz", "Rock"))
        dataset = open_dataset(source)
        assert (column(dataset, "path"), dataset.genres) == (["a.mp3"], ("Rock",))

    def test_two_that_could_be_meant_are_refused(self, tmp_path):
        source = write_list(tmp_path, ("path", "label", "class"), ("a.mp3", "Jazz", "Rock"))
        with pytest.raises(
            DatasetError, match="no column genre, and label and class could each be it; call one of them"
        ):
            open_dataset(source)
        assert open_dataset(source, genre_column="class").genres == ("Rock",)

    def test_neither_says_which_columns_are_there_and_which_are_understood(self, tmp_path):
        source = write_list(tmp_path, ("path", "mood"), ("a.mp3", "sad"))
        message = (
            "no column genre; its columns are path, mood; name them in line 1; label, class, .* also count as genre"
        )
        with pytest.raises(DatasetError, match=message):
            open_dataset(source)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda path: None, {}, "cannot open dataset .*: No such file or directory; name a folder of audio"),
        (lambda path: path.mkdir(), {}, "is an empty folder"),
        (lambda path: touch(path, "notes.txt"), {}, "no audio in genre folders in"),
        (lambda path: touch(path, "a.mp3"), {}, "left out: 1 .a.mp3.; put the files into one folder per genre"),
        (lambda path: touch(path, "rock/a.mp3"), {"format": "fma"}, "no clip named NNN/NNNNNN.mp3 in"),
        (lambda path: touch(path, "rock/a.mp3"), {"format": "gtzan"}, "no clip named genre/genre.00000.wav in"),
        (lambda path: touch(path, "rock/a.mp3"), {"format": "list"}, "is a folder; it cannot be read as list"),
        (lambda path: path.write_text("path,genre\n"), {"format": "fma"}, "is a file; it cannot be read as fma"),
        (lambda path: touch(path, "rock/a.mp3"), {"format": "mp3"}, "unknown dataset format 'mp3'; choose one of auto"),
        (lambda path: touch(path, "rock/a.mp3"), {"subset": "small"}, "--subset cannot be used .* in folder format"),
        (lambda path: os.mkfifo(path), {}, "is not a file"),
        (lambda path: path.symlink_to(path), {}, "Too many levels of symbolic links"),
    ],
)
def test_what_is_no_dataset(tmp_path, make, options, message):
    make(tmp_path / "music")
    kind = SpecError if "unknown" in message else DatasetError
    with pytest.raises(kind, match=message) as caught:
        open_dataset(tmp_path / "music", **options)
    assert str(tmp_path / "music") in str(caught.value) or "unknown" in message or "--subset" in message
    assert "\n" not in str(caught.value)


def test_one_audio_file_is_no_dataset(tmp_path):
    touch(tmp_path, "song.mp3")
    with pytest.raises(DatasetError, match="is one audio file"):
        open_dataset(tmp_path / "song.mp3")


@pytest.mark.parametrize("name", published_names())
def test_published_descriptions(name):
    entry = published_dataset(name)
    assert len(set(entry.genres)) == len(entry.genres) > 1
    assert entry.archives
    for archive in entry.archives:
        assert archive.url.startswith("http")
        assert archive.sha1 is None or len(bytes.fromhex(archive.sha1)) == 20
        assert archive.sha256 is None or len(bytes.fromhex(archive.sha256)) == 32
    assert all(path.count("/") == 1 for path in entry.faulty)
    assert {"title", "home", "licence"} <= {key for key, value in vars(entry).items() if value}
