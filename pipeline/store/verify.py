"""Verification of a store: checksums of all files, and the manifest against the fragments it was joined from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mgc.pipeline.errors import StoreError
from mgc.pipeline.storage import concurrency, files
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.store import manifest
from mgc.pipeline.store.store import Store


@dataclass(frozen=True)
class Problem:
    """A file of a store that is missing, damaged or out of date.

    Attributes:
        path: the file.
        description: short text for the user, such as `12 bytes instead of 40`.
        shard: number of the shard that the file belongs to; None for the store's own files.
    """

    path: Place
    description: str
    shard: int | None = None


def verify(store: Store, progress: Callable[[int], Any] | None = None) -> list[Problem]:
    """Read every byte of a store and list its problems. Nothing is changed.

    Args:
        store: the store.
        progress: function that takes the number of shards and returns a context manager; its value is called with 1
            after each shard. None reports no progress.
    """
    problems = []
    if store.journal_path.exists():
        problems.append(Problem(store.journal_path, "an extraction is unfinished"))
    problems += _publication_problems(store)
    try:
        manifest_files = store.shard_files()
    except StoreError:
        manifest_files = {}
    shards = sorted({*store.fragments(), *(int(shard) for shard in manifest_files)})

    def check(shard: int) -> list[Problem]:
        return list(shard_problems(store, shard, manifest_files.get(f"{shard:05d}")))

    with (progress or _no_progress)(len(shards)) as advance:
        for problems_in_shard in concurrency.map_requests(check, shards, store.path):
            problems += problems_in_shard
            advance(1)
    if not problems:
        problems += manifest_problems(store)
    return problems


def shard_problems(store: Store, shard: int, shard_files: dict[str, list] | None) -> Iterator[Problem]:
    """Check size and digest of each file of a shard.

    Args:
        store: the store.
        shard: number of the shard.
        shard_files: `{file: [size, digest]}` from the manifest; None if the manifest cannot be read, then the shard's
            fragment supplies them.
    """
    if shard_files is None:
        fragment = manifest.read_fragment(store, shard)
        if fragment is None:
            yield Problem(store.fragment_path(shard), "missing or damaged", shard)
            return
        shard_files = manifest.fragment_files(fragment)
    for name, (size, digest) in shard_files.items():
        path = store.path / "shards" / name
        if description := files.file_problem(path, size, digest):
            yield Problem(path, description, shard)


def _publication_problems(store: Store) -> Iterator[Problem]:
    """Check `published.json`, and the manifest and slice indices against the digests in it."""
    try:
        digests = store.publication["digests"]
    except StoreError as error:
        yield Problem(store.path / "published.json", error.problem.split(": ", 1)[1])
        return
    for name in ("tracks.parquet", *(cut.file for cut in store.cuts)):
        path = store.path / name
        try:
            if files.file_digest(path) != digests[name]:
                yield Problem(path, files.CHECKSUM_MISMATCH)
        except OSError as error:
            yield Problem(path, error.strerror or "unreadable")


def manifest_problems(store: Store) -> Iterator[Problem]:
    """Join the fragments and cut them into slices again, and compare with the manifest and the slice indices."""
    shard_files: dict[str, dict[str, list]] = {}
    cuts = store.cuts
    manifest_rows = _Comparison(store.tracks)
    indices = [_Comparison(store.read_table(cut.file)) for cut in cuts]
    for tracks, slices, group_files in manifest.join_fragments(store, [cut.slicing for cut in cuts]):
        manifest_rows.compare(tracks)
        for index, table in zip(indices, slices, strict=True):
            index.compare(table)
        shard_files |= group_files
    if not manifest_rows.equal or shard_files != store.shard_files():
        yield Problem(store.path / "tracks.parquet", "differs from the fragments of its shards")
        return
    for cut, index in zip(cuts, indices, strict=True):
        if not index.equal:
            yield Problem(store.path / cut.file, "differs from the manifest cut again")


class _Comparison:
    """Compares a table with another one that comes in parts."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._n_rows = 0
        self._parts_agree = True

    def compare(self, part: pa.Table) -> None:
        """Compare the next rows."""
        self._parts_agree &= _equal(part, self._table.slice(self._n_rows, len(part)))
        self._n_rows += len(part)

    @property
    def equal(self) -> bool:
        """Whether all parts together are the table."""
        return self._parts_agree and self._n_rows == len(self._table)


def _equal(left: pa.Table, right: pa.Table) -> bool:
    return left.replace_schema_metadata().equals(right.replace_schema_metadata())


@contextlib.contextmanager
def _no_progress(total: int) -> Iterator[Callable[[int], None]]:
    yield lambda done: None
