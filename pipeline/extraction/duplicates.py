"""Files that are in a dataset twice: found by size and content before splits are dealt, without decoding."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import Dataset, blocks
from mgc.pipeline.datasets.catalogue import format_names
from mgc.pipeline.datasets.lookup import Lookup, are_repeated, hashes, repeated
from mgc.pipeline.datasets.tracks import rows_differ, unescape
from mgc.pipeline.extraction.signatures import with_signatures
from mgc.pipeline.storage import concurrency, files, mapped
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.storage.urls import object_at
from mgc.pipeline.store import manifest
from mgc.pipeline.store.siblings import siblings
from mgc.pipeline.store.store import Store

#: Values of `--duplicates`.
MODES = ("group", "drop", "keep")

#: Bytes in the middle of a file that are compared first. Files of equal size are common (clips of 30 s at a constant
#: bit rate, all of GTZAN), and nearly all of them differ there, so that they need not be read as a whole.
_SAMPLE_BYTES = 4096

#: Manifest columns that tell the content of a file that has not changed since it was extracted.
HISTORY_COLUMNS = ["track_id", "size", "mtime_ns", "content_hash"]


def find(dataset: Dataset, stores: Sequence[Store]) -> pa.Table:
    """Look at each file of a dataset once, and find those that are equal byte for byte.

    Args:
        dataset: the dataset.
        stores: stores of one folder; they and their siblings know the hashes of files that have not changed.

    Returns:
        The dataset's tracks, with `size` and `mtime_ns` of their files, and the result of `content_hashes` as
        `content_hash`.
    """
    tracks = with_signatures(dataset, dataset.tracks)
    known = [manifest.history(store, HISTORY_COLUMNS) for store in (*stores, *siblings(stores[0]))]
    sizes, times = (tracks[name].combine_chunks() for name in ("size", "mtime_ns"))
    return tracks.append_column("content_hash", content_hashes(dataset, sizes, times, pa.concat_tables(known)))


def content_hashes(dataset: Dataset, sizes: pa.Array, times: pa.Array, past: pa.Table) -> pa.Array:
    """Find the files that are equal byte for byte.

    Only files of equal size are read: a sample first, and wholly if the samples are equal, too. Hashes of files that
    have been extracted and have not changed since come from the manifest.

    Args:
        dataset: the dataset.
        sizes: size of each track's file in bytes, int64; null without a file.
        times: modification time of each file in ns, int64.
        past: manifest rows with HISTORY_COLUMNS.

    Returns:
        Content hash of each track whose file is there more than once, string; null for all other tracks.
    """
    tracks = dataset.tracks
    rows = Lookup(past["track_id"]).indices(tracks["track_id"])
    before = past.select(["size", "mtime_ns", "content_hash"]).take(rows)
    changed = rows_differ(before["size"], sizes) | rows_differ(before["mtime_ns"], times)
    known = pc.if_else(pa.array(changed), None, before["content_hash"].combine_chunks())
    size = pc.fill_null(sizes, 0).to_numpy(zero_copy_only=False)
    candidates = _repeated(size, np.flatnonzero(size > 0))
    is_known = _are_valid(known)
    unread = candidates[~is_known[candidates]]
    if len(unread):
        # Samples of all candidates of the sizes that new files have: a new file may equal an extracted one.
        sampled = candidates[np.isin(size[candidates], size[unread])]
        equal = sampled[_equal_samples(size[sampled], hashes(_strings(_read(dataset, sampled, size, _sample))))]
        unknown = equal[~is_known[equal]]
        mask = np.zeros(len(tracks), bool)
        mask[unknown] = True
        digests = _strings(_read(dataset, unknown, size, _digest))
        known = pc.replace_with_mask(known, pa.array(mask), digests)
    hashed = candidates[_are_valid(known)[candidates]]
    mask = np.zeros(len(tracks), bool)
    mask[hashed[repeated(known.take(pa.array(hashed)))]] = True
    return pc.if_else(pa.array(mask), known, None)


def _are_valid(values: pa.Array) -> np.ndarray:
    """Return which values are not null, bool `(n,)`."""
    return values.is_valid().to_numpy(zero_copy_only=False)


def _strings(values: Iterator[str | None]) -> pa.Array:
    """Collect digests in blocks: a million are 36 MB in Arrow, and 90 MB as Python objects."""
    return mapped.whole(blocks.collect(values))


def _equal_samples(size: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Return the files that have a size and a sample that others have too, and by a rare chance some more.

    Args:
        size: size of each file in bytes, int64 `(n,)`.
        sample: result of `lookup.hashes` for its sample, -1 if it could not be read, int64 `(n,)`.

    Returns:
        Ascending positions, int64.
    """
    return _repeated(sample ^ size, np.flatnonzero(sample >= 0))


def describe(tracks: pa.Table, contents: pa.Array, mode: str) -> Iterator[str]:
    """Yield notes for the user on the files that are there more than once.

    Args:
        tracks: the dataset's track table.
        contents: result of `content_hashes`.
        mode: one of MODES.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    copies = tracks.select(["path", "genre"]).append_column("content", contents).filter(contents.is_valid())
    for path, genre, content in zip(*copies.to_pydict().values(), strict=True):
        groups.setdefault(content, []).append((path, genre))
    if not groups:
        return
    treatment = {
        "group": "the copies of a file, and their artists, stay in one split",
        "drop": "the first of each is used, the others are left out",
        "keep": "splits may separate them (--duplicates keep)",
    }[mode]
    n_files = sum(map(len, groups.values()))
    names = format_names((" = ".join(path for path, _ in group) for group in groups.values()), 2)
    yield f"{n_files:,} files hold only {len(groups):,} recordings, byte for byte ({names}): {treatment}"
    conflicts = [group for group in groups.values() if len({genre for _, genre in group if genre is not None}) > 1]
    if conflicts:
        names = format_names((" = ".join(f"{path} ({genre})" for path, genre in group) for group in conflicts), 2)
        yield f"label conflict: {len(conflicts):,} recordings have several genres ({names}); correct or remove them"


def first_of_each(contents: pa.Array) -> np.ndarray:
    """Select each file once: True for tracks without a hash and for the first track of each hash, bool `(tracks,)`."""
    first = pc.equal(pc.index_in(contents, contents), np.arange(len(contents), dtype=np.int32))
    return pc.or_(contents.is_null(), first).to_numpy(zero_copy_only=False)


def digests(dataset: Dataset, rows: np.ndarray) -> Iterator[str | None]:
    """Yield the content hash of the file of each of these rows of the track table; None for one that is unreadable."""
    return _read(dataset, rows, np.zeros(len(dataset.tracks), np.int64), _digest)


def _repeated(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return those of `rows` whose value occurs in more than one of them."""
    return rows[are_repeated(values[rows])]


def _read(
    dataset: Dataset, rows: np.ndarray, size: np.ndarray, read: Callable[[Place, int], str]
) -> Iterator[str | None]:
    """Yield the digest that `read` makes of each track's file; None for files that cannot be read."""
    paths = dataset.tracks["path"].take(pa.array(rows, pa.int64()))

    def try_read(item: tuple[str, int]) -> str | None:
        path, n_bytes = item
        with contextlib.suppress(OSError):
            root, name = dataset.root, unescape(path)
            place = object_at(root, name) if isinstance(root, RemotePath) else root / os.fsdecode(name)
            return read(place, n_bytes)
        return None

    return concurrency.map_requests(try_read, zip(blocks.each(paths), size[rows].tolist(), strict=True), dataset.root)


def _sample(path: Place, size: int) -> str:
    first = max(0, size // 2 - _SAMPLE_BYTES // 2)
    if isinstance(path, RemotePath):
        return files.digest(path.read_range(first, min(size, first + _SAMPLE_BYTES)))
    with path.open("rb") as file:
        file.seek(first)
        return files.digest(file.read(_SAMPLE_BYTES))


def _digest(path: Place, size: int) -> str:
    """Return BLAKE3-128 of a file, the manifest's `content_hash`."""
    return files.file_digest(path)
