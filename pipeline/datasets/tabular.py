"""Tables that users write (CSV or Parquet), read as rows of text that know their location for error messages.

Python's `csv` reads CSV, 107,000 rows in 0.6 s: Arrow and pandas take 0.2 s, but do not report the line of a row, and
read `"a"b` as `ab` where a quote is misplaced.
"""

from __future__ import annotations

import codecs
import csv
import stat
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mgc.pipeline.datasets.catalogue import format_names
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


#: Names of columns that stand for `path` or `genre` in a track list that lacks these.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "path": ("file", "filename", "file_name", "filepath", "file_path", "audio", "track"),
    "genre": ("label", "class", "category", "genre_top"),
}
#: Separators of columns that are recognised, the preferred one first.
_SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        location: file and line, such as `LIST, line 3`.
        cells: non-empty cells by column name.
    """

    location: str
    cells: Mapping[str, str]

    def error(self, problem: str, remedy: str = "correct the row") -> DatasetError:
        """An error that names this row."""
        return DatasetError(f"{self.location}: {problem}", remedy)

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


class Rows(list[Row]):
    """The rows of a table.

    Attributes:
        renamed: names in the file of columns that were read under another name, by that name.
        header: names of all columns in the file, in lower case.
    """

    header: tuple[str, ...] = ()
    renamed: Mapping[str, str] = MappingProxyType({})


def read_rows(
    path: Path,
    required: Collection[str],
    optional: Collection[str],
    synonyms: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> Rows:
    """Read a CSV file or a Parquet file.

    A CSV file is in UTF-8, with or without BOM, or in UTF-16 with BOM; columns are separated by the one of comma,
    semicolon and tab that divides its first line into the most columns.

    Bytes in a CSV file that are not UTF-8 become surrogate escapes, the form in which Python represents file names.

    Args:
        path: the file; its first bytes decide whether it is Parquet.
        required: names of columns that it must have, in lower case; names in the file are compared in lower case.
        optional: names of further columns to read.
        synonyms: other names of required columns, which are understood if the column itself is missing.

    Raises:
        DatasetError: the file cannot be read, is malformed, lacks a required column or has a column twice, or
            two columns could be a required one.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would block for ever
            raise DatasetError(f"{path} is not a file", "name a CSV or Parquet list")
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        return (_read_parquet if is_parquet else _read_csv)(path, required, optional, synonyms)
    except (OSError, pa.ArrowException) as error:
        problem = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DatasetError(f"cannot read {path}: {problem}", "check the file and its permissions") from error


def _csv_encoding(path: Path) -> str:
    """Encoding of a CSV file by its byte order mark; UTF-8 without one."""
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _separator(line: str) -> str:
    """The separator that divides a header into the most columns."""
    return max(_SEPARATOR_NAMES, key=lambda mark: len(next(csv.reader([line[:100_000]], delimiter=mark), [])))


def _read_csv(
    path: Path, required: Collection[str], optional: Collection[str], synonyms: Mapping[str, tuple[str, ...]]
) -> Rows:
    rows = Rows()
    positions: dict[str, int] | None = None
    width = 0
    line = 1
    encoding = _csv_encoding(path)
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    with path.open(encoding=encoding, errors=errors, newline="") as file:
        separator = _separator(file.readline())
        file.seek(0)
        reader = csv.reader(file, strict=True, delimiter=separator)
        try:
            for cells in reader:
                location = f"{path}, line {line}"
                line = reader.line_num + 1  # not the last line + 1: quoted cells may hold line breaks
                if positions is None:
                    positions, rows.renamed = _column_positions(path, cells, required, optional, synonyms)
                    width, rows.header = len(cells), _lower(cells)
                elif cells and len(cells) != width:
                    raise DatasetError(
                        f"{location}: the header has {width} columns, this row {len(cells)}",
                        f"put a cell that contains {_SEPARATOR_NAMES[separator]} in quotes",
                    )
                elif cells:
                    filled = {name: cells[position] for name, position in positions.items() if cells[position]}
                    rows.append(Row(location, filled))
        except csv.Error as error:
            raise DatasetError(f"{path}, line {line}: {error}", "check the quotes in this row") from error
    if positions is None:
        _column_positions(path, [], required, optional, synonyms)  # raises: required columns are missing
    return rows


def _read_parquet(
    path: Path, required: Collection[str], optional: Collection[str], synonyms: Mapping[str, tuple[str, ...]]
) -> Rows:
    names = pq.read_schema(path).names
    positions, renamed = _column_positions(path, names, required, optional, synonyms)
    table = pq.read_table(path, columns=[names[position] for position in positions.values()])
    columns = (table[names[position]].cast(pa.string()).to_pylist() for position in positions.values())
    rows = Rows(
        Row(f"{path}, row {number}", {name: cell for name, cell in zip(positions, row, strict=True) if cell})
        for number, row in enumerate(zip(*columns, strict=True), start=1)
    )
    rows.renamed, rows.header = renamed, _lower(names)
    return rows


def _lower(names: list[str]) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in names)


def _column_positions(
    path: Path,
    header: list[str],
    required: Collection[str],
    optional: Collection[str],
    synonyms: Mapping[str, tuple[str, ...]],
) -> tuple[dict[str, int], dict[str, str]]:
    """Positions in the header of the required columns and of the optional columns that exist.

    Returns:
        Positions by the name that was asked for, and the names in the header that differ from it.

    Raises:
        DatasetError: a required column is missing or ambiguous, or a column exists twice.
    """
    names = [name.strip().lower() for name in header]
    wanted = [*required, *optional]
    renamed: dict[str, str] = {}
    for name in (name for name in required if name not in names):
        others = [other for other in synonyms.get(name, ()) if other in names]
        if len(others) > 1:
            problem = f"{path} has no column {name}, and {' and '.join(others)} could each be it"
            raise DatasetError(problem, f"call one of them {name}")
        if others:
            renamed[name] = others[0]
    if missing := [name for name in required if name not in names and name not in renamed]:
        present = f"its columns are {format_names(names, 12)}" if names else "it is empty"
        also = "".join(f"; {', '.join(synonyms[name])} also count as {name}" for name in missing if name in synonyms)
        remedy = f"{present}; name them in line 1{also}"
        raise DatasetError(f"{path} has no column {' and no column '.join(missing)}", remedy)
    if duplicates := [
        name for name, count in Counter(names).items() if count > 1 and name in {*wanted, *renamed.values()}
    ]:
        raise DatasetError(f"{path} has more than one column {' and '.join(duplicates)}", "rename all but one")
    return {name: names.index(renamed.get(name, name)) for name in wanted if renamed.get(name, name) in names}, renamed
