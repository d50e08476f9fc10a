"""Rows of a table that a user wrote: cells as columns of bytes, and the line of each row for error messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import blocks
from mgc.pipeline.datasets.tracks import SPLITS
from mgc.pipeline.errors import DatasetError

#: Names that users and datasets give to splits → names in SPLITS.
SPLIT_ALIASES = {
    **{split: split for split in SPLITS},
    "train": "training",
    "valid": "validation",
    "val": "validation",
    "testing": "test",
}

#: The characters that `str.strip` removes.
_BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001))))


class Row(NamedTuple):
    """A row of a table, made while it is used: `Rows` holds the cells.

    Attributes:
        rows: the table.
        position: number of the row among all rows, from 0.
        cells: cells by column name; bytes that are not UTF-8 are surrogate escapes.
    """

    rows: Rows
    position: int
    cells: Mapping[str, str]

    def error(self, problem: str, remedy: str = "correct the row") -> DatasetError:
        """An error that names this row."""
        return self.rows.error(self.position, problem, remedy)

    def text(self, column: str) -> str | None:
        """A cell without surrounding white space; None if it is empty.

        Raises:
            DatasetError: the cell is not UTF-8.
        """
        cell = self.cells.get(column, "").strip()
        if not cell.isascii():
            try:
                cell.encode()
            except UnicodeEncodeError:
                raise self.error(f"{column} {cell!a} is not UTF-8", "save the list as UTF-8") from None
        return cell or None

    def split(self) -> str | None:
        """The split in column `split`, one of SPLITS; None if the cell is empty.

        Raises:
            DatasetError: the cell is not the name of a split.
        """
        if (word := self.text("split")) is None:
            return None
        if (split := SPLIT_ALIASES.get(word.lower())) is None:
            raise self.error(f"{word!r} is not a split", "write training, validation or test")
        return split


@dataclass(frozen=True)
class Rows:
    """The rows of a table.

    Attributes:
        path: the file.
        unit: what `numbers` count, `line` or `row`.
        numbers: where each row is in the file, int64 `(rows,)`.
        columns: the cells by column name, binary `(rows,)` without null, all in the same chunks; a column that
            the file lacks is missing.
        header: names of all columns in the file, in lower case.
        renamed: names in the file of columns that were read under another name, by that name.
    """

    path: Path
    unit: str
    numbers: np.ndarray
    columns: Mapping[str, pa.ChunkedArray]
    header: tuple[str, ...]
    renamed: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.numbers)

    def location(self, position: int) -> str:
        """File and line of a row, such as `LIST, line 3`."""
        return f"{self.path}, {self.unit} {self.numbers[position]}"

    def error(self, position: int, problem: str, remedy: str = "correct the row") -> DatasetError:
        """An error that names a row."""
        return DatasetError(f"{self.location(position)}: {problem}", remedy)

    def each(self, *names: str) -> Iterator[Row]:
        """Yield the rows one by one, with the cells of some columns."""
        present = [name for name in names if name in self.columns]
        columns = (map(_decode, blocks.each(self.columns[name])) for name in present)
        for position, *cells in zip(range(len(self)), *columns, strict=True):
            yield Row(self, position, dict(zip(present, cells, strict=True)))

    def texts(self, *names: str) -> pa.ChunkedArray:
        """`Row.text` of all rows: the first of some columns that is not empty in the row; null if all are.

        Row by row, a column of a million rows takes 1.0 s; Arrow takes 0.15 s.

        Raises:
            DatasetError: a cell is not UTF-8.
        """
        present = [self.columns[name].chunks for name in names if name in self.columns]
        if not present:
            return pa.chunked_array([pa.nulls(len(self), pa.string())])
        try:
            return blocks.join(pc.coalesce(*map(_trimmed, cells)) for cells in zip(*present, strict=True))
        except pa.ArrowInvalid:  # a cell is not UTF-8: an error, unless an earlier column goes before it
            return blocks.collect(next(filter(None, map(row.text, names)), None) for row in self.each(*names))

    def splits(self) -> pa.ChunkedArray:
        """`Row.split` of all rows.

        Raises:
            DatasetError: a cell is not the name of a split.
        """
        if "split" not in self.columns:
            return self.texts("split")
        try:
            return blocks.join(map(_splits, self.columns["split"].chunks))
        except ValueError:  # the row in question says why
            return blocks.collect(row.split() for row in self.each("split"))


def _trimmed(cells: pa.Array) -> pa.Array:
    """Cells (binary) without surrounding white space, as strings, null if empty; ArrowInvalid if one is not UTF-8."""
    texts = pc.utf8_trim(cells.cast(pa.string()), _BLANKS)
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _splits(cells: pa.Array) -> pa.Array:
    """Splits that cells (binary) name, null if empty; ValueError if one is not UTF-8, or no name of a split."""
    words = _trimmed(cells)
    alias = pc.index_in(pc.ascii_lower(words), pa.array(SPLIT_ALIASES.keys()))
    if alias.null_count > words.null_count:
        raise ValueError("no split")
    return pa.array(SPLIT_ALIASES.values()).take(alias)


def _decode(cell: bytes) -> str:
    return cell.decode("utf-8", "surrogateescape")
