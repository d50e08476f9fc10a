"""Track lists and folders are read block by block: what a block is changes no result, and nothing stays in Python."""

from __future__ import annotations

import csv
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgc.pipeline.datasets import blocks, folder, listing, open_dataset, rows
from mgc.pipeline.datasets.rows import Rows
from mgc.pipeline.datasets.splits import read_splits
from mgc.pipeline.errors import DatasetError

HEADER = ("track_id", "path", "genre", "artist", "album", "title", "split")


def make_rows(n: int) -> list[tuple[str, ...]]:
    """Rows of a list; every third one has no id."""
    return [
        (
            f"id {i}" if i % 3 else "",
            f"{i // 100}/{i:05}.mp3",
            ("Rock", "Jazz")[i % 2],
            f"Artist {i // 7}",
            f"Album {i // 5}",
            f"Title {i}",
            ("train", "test", "")[i % 3],
        )
        for i in range(n)
    ]


def write_list(path: Path, cells: list[tuple[str, ...]], header: tuple[str, ...] = HEADER) -> Path:
    if path.suffix == ".parquet":
        columns = [pa.array([cell or None for cell in column], pa.string()) for column in zip(*cells, strict=True)]
        pq.write_table(pa.table(columns, list(header)), path, row_group_size=3000)
    else:
        with path.open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([header, *cells])
    return path


def peak(call: Callable[[], object]) -> int:
    """Largest size of all Python objects that a call makes, in bytes. Arrow's arrays are none."""
    call()  # once without a count: imports, caches
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class TestMemory:
    """With Python objects for each row, it was 1,050 bytes a row of a list, and 300 to 1,000 a file of a folder."""

    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    def test_of_a_list(self, tmp_path, monkeypatch, suffix):
        monkeypatch.setattr(blocks, "BLOCK_ROWS", 500)
        source = write_list(tmp_path / f"list{suffix}", make_rows(20_000))
        assert listing.read(source).tracks.num_rows == 20_000
        assert peak(lambda: listing.read(source)) / 20_000 < 60

    def test_of_a_folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr(blocks, "BLOCK_ROWS", 100)
        for part in range(40):
            (tmp_path / "Rock" / "Artist" / f"Album {part}").mkdir(parents=True)
            for track in range(100):
                (tmp_path / "Rock" / "Artist" / f"Album {part}" / f"{track}.mp3").touch()
        assert folder.read(tmp_path).tracks.num_rows == 4_000
        assert peak(lambda: folder.read(tmp_path)) / 4_000 < 60
        assert open_dataset(tmp_path).tracks.num_rows == 4_000
        assert peak(lambda: open_dataset(tmp_path)) / 4_000 < 120, "with the tags of the files"


class TestBorders:
    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    @pytest.mark.parametrize("size", [1, 2, 3, 49, 50])
    def test_change_nothing(self, tmp_path, monkeypatch, size, suffix):
        (tmp_path / "folder" / "deep").mkdir(parents=True)
        cells = [*make_rows(48), ("", "folder/deep/a.mp3", "Rock", "", "", "", ""), ("", "b", "", "", "", " ", "val")]
        source = write_list(tmp_path / f"list{suffix}", cells)
        listed = write_list(tmp_path / f"splits{suffix}", [row for row in cells if row[6]])
        expected, splits = listing.read(source), read_splits(listed)
        monkeypatch.setattr(blocks, "BLOCK_ROWS", size)
        catalogue = listing.read(source)
        assert catalogue.tracks.equals(expected.tracks)
        assert catalogue.notes == expected.notes == ("rows without a genre, left out: 1",)
        assert catalogue.tracks["track_id"].to_pylist()[:2] == ["0/00000", "0/00003"]
        assert read_splits(listed) == splits
        assert (len(splits), splits["b"]) == (33, "validation")

    @pytest.mark.parametrize("size", [1, 2, 3, 100])
    @pytest.mark.parametrize(
        ("last", "message"),
        [
            ("a.mp3,x,,", "line 8: path 'a.mp3' is also in .*, line 2; remove or rename"),
            ("./b.mp3,x,,", "line 8: path 'b.mp3' is also in .*, line 3; remove or rename"),
            ("e.mp3,x,1,", "line 8: track_id '1' is also in .*, line 3; remove or rename"),
            ("e.mp3,x,a,", "line 8: track_id 'a' is also in .*, line 7; remove or rename"),
            (",x,,", "line 8: it has no path"),
            ("../e.mp3,x,,", "line 8: path '../e.mp3' leads out of"),
            ("e.mp3,x,,dev", "line 8: 'dev' is not a split"),
            ("e.mp3,\udcff,,", r"line 8: genre '\\udcff' is not UTF-8; save the list as UTF-8"),
            ("e.mp3,x,\udcff,", r"line 8: track_id '\\udcff' is not UTF-8; save the list as UTF-8"),
            ("e.mp3,x,", "line 8: the header has 4 columns, this row 3"),
            ('"e.mp3,x,,', "line 8: unexpected end of data"),
        ],
    )
    def test_errors_name_the_lines_of_the_file(self, tmp_path, monkeypatch, size, last, message):
        monkeypatch.setattr(blocks, "BLOCK_ROWS", size)
        text = f'path,genre,track_id,split\na.mp3,x,,\nb.mp3,x,1,\n"c\nd.mp3",x,2,\n\ne.wav,x,a,test\n{last}\n'
        (tmp_path / "list.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(DatasetError, match=message):
            listing.read(tmp_path / "list.csv")

    @pytest.mark.parametrize("size", [1, 2, 100])
    def test_errors_name_the_rows_of_a_parquet_list(self, tmp_path, monkeypatch, size):
        monkeypatch.setattr(blocks, "BLOCK_ROWS", size)
        table = pa.table({"path": ["a", "b", "c", "d", "b"], "genre": ["x"] * 5})
        pq.write_table(table, tmp_path / "list", row_group_size=3)
        with pytest.raises(DatasetError, match=r"list, row 5: path 'b' is also in .*list, row 2; remove or rename"):
            listing.read(tmp_path / "list")
        with pytest.raises(DatasetError, match="no column split"):
            read_splits(tmp_path / "list")

    @pytest.mark.parametrize("size", [1, 2, 100])
    def test_the_first_of_several_errors_is_reported(self, tmp_path, monkeypatch, size):
        """A malformed file goes before bad paths, these before ids, these before the other columns."""
        monkeypatch.setattr(blocks, "BLOCK_ROWS", size)
        lines = ["path,genre,track_id,split", "a,x,,dev", "b,x,1,", "c,x,1,", "a,x,2,", "/d,x,3,", "e,x"]
        for message in (
            "line 7: the header",
            "line 6: path '/d'",
            "line 5: path 'a'",
            "line 4: track_id",
            "line 2: 'dev'",
        ):
            (tmp_path / "list.csv").write_text("\n".join(lines))
            with pytest.raises(DatasetError, match=message):
                listing.read(tmp_path / "list.csv")
            lines.pop()


CELLS = st.sampled_from(
    ["", " ", "a", " B\t", "\u3000", "\x1cé\x85", "\udcff", "TRAIN", "val ", "İ", "valİdation", "K"]
)


def outcome(call: Callable[[], list[str | None]]) -> list[str | None] | str:
    try:
        return call()
    except DatasetError as error:
        return str(error)


class TestColumns:
    @given(st.lists(st.tuples(CELLS, CELLS), max_size=6))
    def test_are_what_their_rows_are(self, cells):
        """Arrow's way to trim a column and to look up splits, and Python's way to do it row by row."""
        pairs = list(zip(*cells, strict=True)) or [(), ()]
        columns = {
            name: pa.chunked_array([blocks.to_binary(pair)]) for name, pair in zip(("x", "split"), pairs, strict=True)
        }
        table = Rows(Path("list"), "line", np.arange(len(cells)), columns, (), MappingProxyType({}))
        assert len(table) == len(cells)
        for names in (("x",), ("x", "split"), ("split", "absent", "x"), ("absent",)):
            by_row = outcome(
                lambda names=names: [next(filter(None, map(row.text, names)), None) for row in table.each(*names)]
            )
            assert outcome(lambda names=names: table.texts(*names).to_pylist()) == by_row
        assert outcome(lambda: table.splits().to_pylist()) == outcome(
            lambda: [row.split() for row in table.each("split")]
        )

    def test_blanks_are_those_of_python(self):
        assert "".join(filter(str.isspace, map(chr, range(sys.maxunicode + 1)))) == rows._BLANKS
