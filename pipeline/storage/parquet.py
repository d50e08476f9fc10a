"""Parquet tables with page checksums: written atomically, checked when they are read."""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mgc.pipeline.storage import files
from mgc.pipeline.storage.remote import Place, RemotePath


def write_table(path: Place, table: pa.Table) -> None:
    """Write a table atomically, as `table_bytes` encodes it, replacing an existing file."""
    files.write_bytes(path, table_bytes(table))


def table_bytes(table: pa.Table) -> bytes:
    """Encode a table as a Parquet file (zstd, page checksums); equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue().to_pybytes()


class TableWriter:
    """Write a Parquet file atomically, one row group at a time; memory holds one row group.

    A context manager: unless `commit` was called, no file is left behind.

    Args:
        path: the file; an existing one is replaced by `commit`.
        schema: schema of all tables.

    Raises:
        OSError: the temporary file cannot be created.
    """

    def __init__(self, path: Place, schema: pa.Schema) -> None:
        self._path = path
        if isinstance(path, RemotePath):
            handle, name = tempfile.mkstemp(prefix="mgc-", suffix=path.name)
            os.close(handle)
            self._temporary = Path(name)
        else:
            self._temporary = files.temporary_path(path)
        try:
            self._file = pa.OSFile(str(self._temporary), "wb")
        except OSError as error:
            raise _with_message(error, self._temporary) from None
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd", write_page_checksum=True)

    def write(self, table: pa.Table) -> None:
        """Append a table as one row group; an empty table is skipped."""
        if len(table):
            self._writer.write_table(table, row_group_size=len(table))

    def finish(self, metadata: Mapping[bytes, str] | None = None) -> str:
        """Write the footer and sync the temporary file to disk; `commit` then gives it its name.

        Args:
            metadata: key-value metadata, which readers find in the table's schema.

        Returns:
            The file's digest, as `files.file_digest` computes it.
        """
        self._writer.add_key_value_metadata(metadata or {})
        self._writer.close()
        self._file.close()
        with self._temporary.open("rb") as file:
            os.fsync(file.fileno())
            return files.stream_digest(file)

    def commit(self) -> None:
        """Rename, or upload, the finished file to its path."""
        if isinstance(self._path, RemotePath):
            self._path.upload(self._temporary)
        else:
            files.replace_file(self._temporary, self._path)

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._file.closed:
            with contextlib.suppress(OSError):  # the disk may be full
                self._writer.close()
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def read_table(path: Place, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file, checking its pages.

    Args:
        path: the file.
        columns: names of the columns to read; None reads all.

    Raises:
        FileNotFoundError: the file does not exist.
        OSError: the file is damaged.
    """
    with open_native(path) as file:
        return read_table_file(file, path, columns)


def read_metadata(path: Place) -> dict[bytes, bytes]:
    """Read the key-value metadata of a Parquet file.

    Raises:
        OSError: the file is missing or damaged.
    """
    with open_native(path) as file, _open_parquet(file, path) as parquet:
        return parquet.metadata.metadata or {}


def read_table_bytes(data: bytes, path: Place) -> pa.Table:
    """Read a table from the bytes of a Parquet file, checking its pages.

    Args:
        data: content of the whole file.
        path: path of the file, for the error message.

    Raises:
        OSError: the bytes are damaged.
    """
    buffer = pa.allocate_buffer(len(data))  # memory that Arrow owns: see `open_native`
    memoryview(buffer).cast("B")[:] = data
    with pa.BufferReader(buffer) as file:
        return read_table_file(file, path)


def open_native(path: Place) -> pa.NativeFile:
    """Open a file for Arrow to read directly, an object through a local copy. Later replacements are not seen.

    Arrow's threads release their source at any time. If it is a Python object (file or bytes) and the interpreter is
    shutting down, the process aborts with "terminate called without an active exception".

    Raises:
        OSError: the file cannot be opened.
    """
    if isinstance(path, RemotePath):
        with path.local_copy() as copy:
            return pa.OSFile(str(copy), "rb")  # an open file can still be read after its name is removed
    try:
        return pa.OSFile(str(path), "rb")
    except OSError as error:
        raise _with_message(error, path) from None


def _with_message(error: OSError, path: Path) -> OSError:
    """Arrow's error as Python would raise it: with the system's message for its number, and the file's name."""
    number = error.errno or errno.EIO
    return OSError(number, os.strerror(number), str(path))


def read_table_file(file: pa.NativeFile, path: Place, columns: list[str] | None = None) -> pa.Table:
    """Read a table from an open Parquet file, checking its pages.

    Args:
        file: file from `open_native`, or a buffer; its position does not matter.
        path: path of the file, for the error message.
        columns: names of the columns to read; None reads all.

    Raises:
        OSError: the file is damaged.
    """
    with _open_parquet(file, path) as parquet:
        # Not pq.read_table: its machinery for data sets costs a millisecond, and a store has thousands of fragments.
        return parquet.read(columns, use_threads=parquet.metadata.num_rows > 10_000)


def read_row_groups(
    file: pa.NativeFile, path: Place, columns: list[str] | None, key: str, values: Sequence[int]
) -> Iterator[pa.Table]:
    """Yield the row groups of an open Parquet file in which an integer column may hold one of `values`.

    A row group is skipped if its statistics rule all values out.

    Args:
        file: file from `open_native`.
        path: path of the file, for the error message.
        columns: names of the columns to read; None reads all.
        key: name of the integer column.
        values: values to look for, ascending.

    Raises:
        OSError: the file is damaged.
    """
    with _open_parquet(file, path) as parquet:
        position = parquet.schema_arrow.get_field_index(key)
        for number in range(parquet.metadata.num_row_groups):
            statistics = parquet.metadata.row_group(number).column(position).statistics
            if statistics is not None and statistics.has_min_max:
                first = bisect.bisect_left(values, statistics.min)
                if first == len(values) or values[first] > statistics.max:
                    continue
            yield parquet.read_row_group(number, columns)


@contextlib.contextmanager
def _open_parquet(file: pa.NativeFile, path: Place) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file whose pages are checked as they are read; Arrow's errors become `OSError`."""
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            yield parquet
    except (pa.ArrowException, ValueError, KeyError) as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise OSError(errno.EIO, f"not a readable Parquet file ({first_line})", str(path)) from None
