"""Every byte of a store against its checksums, and the manifest against the fragments it was made of."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import files, manifest, remote
from pipeline.errors import StoreError
from pipeline.remote import Place
from pipeline.store import PUBLISHED, Store


@dataclass(frozen=True)
class Problem:
    """Something in a store that is not as it was written.

    Attributes:
        path: the file.
        what: what is wrong with it.
        shard: the shard it belongs to; None for the store's own files.
    """

    path: Place
    what: str
    shard: int | None = None


def verify(store: Store, progress: Callable[[int], Any] | None = None) -> list[Problem]:
    """Everything that is wrong with a store; reading it changes nothing.

    Args:
        store: the store.
        progress: given the number of shards, a context manager whose value is called with shards done.
    """
    problems = []
    if store.plan_path.exists():
        problems.append(Problem(store.plan_path, "an extraction is unfinished"))
    problems += _published_problems(store)
    try:
        recorded = store.shard_files()
    except StoreError:
        recorded = {}
    shards = sorted({*store.fragments(), *(int(shard) for shard in recorded)})

    def check(shard: int) -> list[Problem]:
        return list(shard_problems(store, shard, recorded.get(f"{shard:05d}")))

    with (progress or _silent)(len(shards)) as advance:
        for found in remote.several(check, shards, store.path):
            problems += found
            advance(1)
    if not problems:
        problems += manifest_problems(store)
    return problems


def shard_problems(store: Store, shard: int, recorded: dict[str, list] | None) -> Iterator[Problem]:
    """What is wrong with a shard and its fragment.

    Args:
        store: the store.
        shard: the shard.
        recorded: `{file: [size, digest]}` from the manifest; None where it is not to be had.
    """
    if recorded is None:
        fragment = manifest.read_fragment(store, shard)
        if fragment is None:
            yield Problem(store.fragment_path(shard), "missing or damaged", shard)
            return
        recorded = manifest.fragment_files(fragment)
    for name, (size, digest) in recorded.items():
        path = store.path / "shards" / name
        try:
            if path.stat().st_size != size:
                yield Problem(path, f"{path.stat().st_size} bytes instead of {size}", shard)
            elif files.file_digest(path) != digest:
                yield Problem(path, files.CHANGED, shard)
        except OSError as error:
            yield Problem(path, error.strerror or "unreadable", shard)


def _published_problems(store: Store) -> Iterator[Problem]:
    """What is wrong with manifest and slice index as files."""
    try:
        digests = store.published["digests"]
    except StoreError as error:
        yield Problem(store.path / "published.json", error.problem.split(": ", 1)[1])
        return
    for name in PUBLISHED:
        path = store.path / name
        try:
            if files.file_digest(path) != digests[name]:
                yield Problem(path, files.CHANGED)
        except OSError as error:
            yield Problem(path, error.strerror or "unreadable")


def manifest_problems(store: Store) -> Iterator[Problem]:
    """Manifest and slice index against what the fragments give when joined and cut again."""
    shard_files: dict[str, dict[str, list]] = {}
    n_tracks = n_slices = 0
    tracks_agree = slices_agree = True
    for tracks, slices, found in manifest.join(store, store.slicing):
        tracks_agree &= _same(tracks, store.tracks.slice(n_tracks, len(tracks)))
        slices_agree &= _same(slices, store.slices.slice(n_slices, len(slices)))
        n_tracks, n_slices = n_tracks + len(tracks), n_slices + len(slices)
        shard_files |= found
    if not tracks_agree or n_tracks != len(store.tracks) or shard_files != store.shard_files():
        yield Problem(store.path / "tracks.parquet", "differs from the fragments of its shards")
    elif not slices_agree or n_slices != len(store.slices):
        yield Problem(store.path / "slices.parquet", "differs from the manifest cut again")


def _same(left: pa.Table, right: pa.Table) -> bool:
    return left.replace_schema_metadata().equals(right.replace_schema_metadata())


@contextlib.contextmanager
def _silent(total: int) -> Iterator[Callable[[int], None]]:
    yield lambda done: None
