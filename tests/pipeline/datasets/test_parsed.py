"""Cache of parsed metadata: used if the file is unchanged, and never otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
from test_datasets import fma_row, make_fma

from mgc.pipeline.datasets import Dataset, fma_metadata, open_dataset
from mgc.pipeline.errors import DatasetError

OLD = (1_000_000_000, 1_000_000_000)  # access and modification time of an old file, in ns
ROWS = [fma_row(1), fma_row(2, "Folk", artist="Rock")]


class Library:
    """An FMA dataset with two clips; `parses` counts how often its metadata was parsed by `open`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = make_fma(folder, ROWS, ["000/000001.mp3", "000/000002.mp3"])
        self.csv = folder / "fma_metadata" / "tracks.csv"
        os.utime(self.csv, ns=OLD)
        self.folder = folder / "features"
        self.parses = 0
        read = fma_metadata._read_rows

        def counted(*arguments) -> pa.Table:
            self.parses += 1
            return read(*arguments)

        monkeypatch.setattr(fma_metadata, "_read_rows", counted)

    def open(self, **options) -> Dataset:
        dataset = open_dataset(self.root, cache_folder=self.folder, **options)
        assert dataset == open_dataset(self.root, **options)  # the same without a cache
        self.parses -= 1
        return dataset

    @property
    def cache(self) -> Path:
        (path,) = self.folder.iterdir()
        return path


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    return Library(tmp_path, monkeypatch)


def test_metadata_is_parsed_once(library):
    library.open()
    library.open()
    assert library.parses == 1


def test_another_content_is_parsed_and_cached(library):
    library.open()
    library.csv.write_text(library.csv.read_text().replace("Folk", "Jazzy"))
    os.utime(library.csv, ns=OLD)
    assert library.open().genres == ("Jazzy", "Rock")
    library.open()
    assert library.parses == 2


def test_another_content_of_the_same_size_is_noticed_by_its_time(library):
    library.open()
    library.csv.write_text(library.csv.read_text().replace("Folk", "Jazz"))
    os.utime(library.csv, ns=(OLD[0], OLD[1] + 1))
    assert library.open().genres == ("Jazz", "Rock")


def test_a_touched_file_is_parsed_again(library):
    library.open()
    os.utime(library.csv, ns=(OLD[0], OLD[1] + 1))
    library.open()
    assert library.parses == 2


def test_a_file_that_may_still_change_is_not_cached(library):
    library.csv.touch()
    library.open()
    assert not library.folder.exists()


def test_every_damaged_byte_and_every_length_is_noticed(library):
    library.open()
    whole = library.cache.read_bytes()
    for offset in [*range(0, len(whole), 97), len(whole) - 1]:
        library.cache.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        parses = library.parses
        library.open()
        assert library.parses == parses + 1
        assert library.cache.read_bytes() == whole  # and repaired
    library.cache.write_bytes(whole[:40])
    library.open()
    assert library.cache.read_bytes() == whole


def test_subsets_share_a_cache_file_and_genre_columns_do_not(library):
    library.open()
    library.open(subset="full")
    assert library.parses == 1
    assert library.open(genre_column="artist.id").genres == ("7", "Rock")
    assert library.open().genres == ("Folk", "Rock")
    assert library.parses == 2
    assert len(list(library.folder.iterdir())) == 2


def test_a_folder_that_cannot_be_written_caches_nothing(library):
    library.folder.write_text("a file")
    library.open()
    assert library.folder.read_text() == "a file"


def test_an_error_in_a_file_is_reported_again(library):
    library.csv.write_text(library.csv.read_text().replace("\n2,", "\n1,"))
    os.utime(library.csv, ns=OLD)
    for _ in range(2):
        with pytest.raises(DatasetError, match="several rows for track 000001"):
            open_dataset(library.root, cache_folder=library.folder)
