"""Files that exist wholly or not at all: temporary name, fsync, rename. At a URL, objects are so by themselves."""

from __future__ import annotations

import bisect
import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blake3

from mgc.pipeline.errors import MgcError
from mgc.pipeline.storage import remote
from mgc.pipeline.storage.remote import Place, RemotePath

if TYPE_CHECKING:  # `mgc --help` comes by here, and must not wait for it
    import pyarrow as pa
    import pyarrow.parquet as pq

#: Every temporary name starts so: what an interrupted run left behind is found by it.
TEMPORARY = ".tmp-"
#: What is wrong with a file that does not match its digest.
CHANGED = "its bytes are not those that were written"


def write_bytes(path: Place, data: bytes) -> None:
    """Replace `path` atomically."""
    if isinstance(path, RemotePath):
        path.write_bytes(data)
        return
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        install(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _temporary(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")


def install(temporary: Path, path: Path) -> None:
    """Give a finished file, all of it on disk, its name, in place of an older one."""
    temporary.replace(path)
    sync_folder(path.parent)


def write_json(path: Place, value: Any) -> None:
    """Replace `path` atomically by indented JSON."""
    write_bytes(path, _json_bytes(value))


def write_sealed(path: Place, value: dict[str, Any]) -> None:
    """Replace `path` atomically by a JSON object that ends in a digest of the rest."""
    write_bytes(path, _sealed(value))


def read_sealed(path: Place) -> dict[str, Any]:
    """An object that `write_sealed` wrote.

    Raises:
        FileNotFoundError: it is not there.
        OSError: a byte of it is not as it was written.
    """
    data = path.read_bytes()
    try:
        value = json.loads(data)
        del value["digest"]
    except (ValueError, KeyError, TypeError, RecursionError):
        value = None
    if value is None or _sealed(value) != data:
        raise OSError(errno.EIO, CHANGED, str(path))
    return value


def _sealed(value: dict[str, Any]) -> bytes:
    return _json_bytes(value | {"digest": digest(_json_bytes(value))})


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def write_table(path: Place, table: pa.Table) -> None:
    """Replace `path` atomically by `table_bytes` of the table."""
    write_bytes(path, table_bytes(table))


def table_bytes(table: pa.Table) -> bytes:
    """A Parquet file whose pages carry checksums; equal tables give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue().to_pybytes()


class TableWriter:
    """Replaces `path` atomically by a Parquet file like that of `table_bytes`, written one row group at a time.

    A context: what was not installed when it ends leaves no trace. Memory holds one row group.

    Args:
        path: the file.
        schema: of the tables.
    """

    def __init__(self, path: Place, schema: pa.Schema) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._path = path
        if isinstance(path, RemotePath):
            handle, name = tempfile.mkstemp(prefix="mgc-", suffix=path.name)
            os.close(handle)
            self._temporary = Path(name)
        else:
            self._temporary = _temporary(path)
        try:
            self._file = pa.OSFile(str(self._temporary), "wb")
        except OSError as error:
            raise _whose(error, self._temporary) from None
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd", write_page_checksum=True)

    def write(self, table: pa.Table) -> None:
        """Append a row group; nothing where the table has no rows."""
        if len(table):
            self._writer.write_table(table, row_group_size=len(table))

    def finish(self, metadata: Mapping[bytes, str] | None = None) -> str:
        """Write the footer, and everything to disk; the file has not got its name yet.

        Args:
            metadata: what readers find in the metadata of the schema.

        Returns:
            The file's digest.
        """
        self._writer.add_key_value_metadata(metadata or {})
        self._writer.close()
        self._file.close()
        with self._temporary.open("rb") as file:
            os.fsync(file.fileno())
            return stream_digest(file)

    def install(self) -> None:
        """Give the finished file its name."""
        if isinstance(self._path, RemotePath):
            self._path.upload(self._temporary)
        else:
            install(self._temporary, self._path)

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._file.closed:
            with contextlib.suppress(OSError):  # the disk may be full
                self._writer.close()
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def read_table(path: Place, columns: list[str] | None = None) -> pa.Table:
    """A table that `write_table` wrote, its pages checked.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it is damaged.
    """
    with open_native(path) as file:
        return parse_table(file, path, columns)


def read_table_bytes(data: bytes, path: Place) -> pa.Table:
    """The table in the bytes of a file that `write_table` wrote, its pages checked.

    Args:
        data: all of them.
        path: of the file, for the error message.

    Raises:
        OSError: they are damaged.
    """
    import pyarrow as pa

    own = pa.allocate_buffer(len(data))  # Arrow's: see `open_native`
    memoryview(own).cast("B")[:] = data
    with pa.BufferReader(own) as file:
        return parse_table(file, path)


def open_native(path: Place) -> pa.NativeFile:
    """A file that Arrow reads by itself, an object as a copy of it. What replaces it meanwhile stays unseen.

    Arrow's threads let go of what they read when they like. Where that is Python's, a file or bytes, and the
    interpreter is about to end, the process aborts instead: "terminate called without an active exception".

    Raises:
        OSError: it cannot be opened.
    """
    import pyarrow as pa

    if isinstance(path, RemotePath):
        with path.fetched() as copy:
            return pa.OSFile(str(copy), "rb")  # open, it needs its name no more
    try:
        return pa.OSFile(str(path), "rb")
    except OSError as error:
        raise _whose(error, path) from None


def _whose(error: OSError, path: Path) -> OSError:
    """An error of Arrow's as one of Python's, which says what the matter is and with which file."""
    number = error.errno or errno.EIO
    return OSError(number, os.strerror(number), str(path))


def parse_table(
    file: pa.NativeFile,
    path: Place,
    columns: list[str] | None = None,
) -> pa.Table:
    """The table in an open Parquet file, its pages checked.

    Args:
        file: of `open_native`; read from its beginning, wherever it stands.
        path: for the error message.
        columns: which ones; by default all.

    Raises:
        OSError: it is damaged.
    """
    with _parquet(file, path) as parquet:
        # Not pq.read_table: its machinery for data sets costs a millisecond, and a store has thousands of fragments.
        return parquet.read(columns, use_threads=parquet.metadata.num_rows > 10_000)


def parse_groups(
    file: pa.NativeFile, path: Place, columns: list[str] | None, within: str, values: Sequence[int]
) -> Iterator[pa.Table]:
    """The row groups of an open Parquet file that may hold one of some values in a column of whole numbers.

    Args:
        file: of `open_native`.
        path: for the error message.
        columns: which ones; by default all.
        within: the column.
        values: ascending.

    Raises:
        OSError: it is damaged.
    """
    with _parquet(file, path) as parquet:
        at = parquet.schema_arrow.get_field_index(within)
        for number in range(parquet.metadata.num_row_groups):
            found = parquet.metadata.row_group(number).column(at).statistics
            if found is not None and found.has_min_max:
                first = bisect.bisect_left(values, found.min)
                if first == len(values) or values[first] > found.max:
                    continue
            yield parquet.read_row_group(number, columns)


@contextlib.contextmanager
def _parquet(file: pa.NativeFile, path: Place) -> Iterator[pq.ParquetFile]:
    """An open Parquet file, its pages checked as they are read; what is wrong with it as an `OSError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            yield parquet
    except (pa.ArrowException, ValueError, KeyError) as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise OSError(errno.EIO, f"not a readable Parquet file ({first_line})", str(path)) from None


def write_folder(temporary: Path, final: Place) -> None:
    """Give a finished folder its name, replacing an older one; its files are on disk before it has the name.

    At a URL it comes object by object: who must not see half of it needs to be told when it is there.
    """
    if isinstance(final, RemotePath):
        made = sorted(path.relative_to(temporary).as_posix() for path in temporary.rglob("*") if path.is_file())
        for name in made:
            (final / name).upload(temporary / name)
        for name in set(final.below()) - set(made):
            (final / name).unlink(missing_ok=True)
        shutil.rmtree(temporary)
        return
    for folder, _, names in os.walk(temporary):
        for name in names:
            with (Path(folder) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(folder))
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    sync_folder(final.parent)


def remove(path: Place) -> None:
    """Remove a file, or a folder with all that is in it, as far as there is one and it can be removed."""
    if isinstance(path, RemotePath):
        path.remove()
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync_folder(folder: Place) -> None:
    """Make renames in `folder` durable, where the file system can."""
    if isinstance(folder, RemotePath):
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class Digest:
    """BLAKE3 of bytes that come in pieces: 128 bits of it, in hexadecimal. It takes an eighth of BLAKE2b's time."""

    def __init__(self, data: bytes | memoryview = b"") -> None:
        self._state = blake3.blake3(data)

    def update(self, data: bytes | memoryview) -> None:
        """The next bytes."""
        self._state.update(data)

    def hexdigest(self) -> str:
        """Of all bytes so far."""
        return self._state.hexdigest(length=16)


def digest(data: bytes | memoryview) -> str:
    """BLAKE3-128 of bytes, in hexadecimal."""
    return Digest(data).hexdigest()


def file_digest(path: Place) -> str:
    """BLAKE3-128 of a file's bytes, in hexadecimal; memory does not grow with the file."""
    if isinstance(path, RemotePath):
        with path.fetched() as copy:
            return file_digest(copy)
    with path.open("rb") as file:
        return stream_digest(file)


def stream_digest(file: io.BufferedReader | pa.NativeFile) -> str:
    """BLAKE3-128 of an open file's bytes, in hexadecimal."""
    return hashlib.file_digest(file, Digest).hexdigest()  # type: ignore[arg-type]


def folder_files(folder: Path, name: str) -> dict[str, list]:
    """`{path: [size, digest]}` of every file below `folder`, paths beginning with `name`, sorted."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {f"{name}/{path.relative_to(folder).as_posix()}": [path.stat().st_size, file_digest(path)] for path in found}


@contextlib.contextmanager
def output_errors(what: Place) -> Iterator[None]:
    """Turn the operating system's refusals to write below `what` into one line with a remedy."""
    try:
        yield
    except OSError as error:
        raise explain_output(error, what) from error


def explain_output(error: OSError, what: Place) -> MgcError:
    """One line with a remedy for what the operating system, or a server, says while writing below `what`."""
    place = error.filename or what
    if isinstance(place, bytes):
        place = os.fsdecode(place)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MgcError(f"{what}: the disk is full", "free some space and run the same command again: it continues")
    if remote.is_url(place):
        return explain_remote(error)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return MgcError(
            f"{place}: cannot be written ({os.strerror(error.errno)})", "choose another folder or its rights"
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return MgcError(f"{place}: a file stands where a folder is needed", "move it away or choose another folder")
    return MgcError(f"{place}: {error.strerror or error}", "check the disk and run the same command again")


def explain_remote(error: OSError) -> MgcError:
    """One line with a remedy for what `servers.attempt` says."""
    remedies = {
        errno.ENOENT: "check the URL; mgc makes no buckets",
        errno.EACCES: "check the credentials in the environment, and what they allow",
        errno.EHOSTUNREACH: "check the network and the address of the service; the same command continues",
    }
    remedy = remedies.get(error.errno or 0, "run the same command again: it continues")
    return MgcError(f"{error.filename}: {error.strerror}", remedy)
