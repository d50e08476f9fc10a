"""What an extraction has to do: the dataset as it is now, held against what a store has seen."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.audio import inspection, sources
from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.tracks import DATASET_SCHEMA, MANIFEST_SCHEMA, SPLITS, rows_differ, unescape, update_labels
from mgc.pipeline.errors import StoreError
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.features.variants import frame_multiplier
from mgc.pipeline.storage import concurrency
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.storage.urls import stat_objects
from mgc.pipeline.store import manifest, verify
from mgc.pipeline.store.store import Store

#: A deal is what one worker decodes: at most so many tracks, and so much audio as its file sizes suggest.
DEAL_TRACKS = 64
DEAL_SECONDS = 24 * 60
#: Raw frames of one shard; a feature with more of them per second cuts a deal into 2, 4, 8 ... shards.
SHARD_BYTES = 64_000_000
#: Bytes per second of audio that file names suggest where the metadata has no bit rate: 192 kbit/s, CD mono, FLAC.
_BYTES_PER_SECOND = {".wav": 88_200, ".aif": 88_200, ".aiff": 88_200, ".au": 88_200, ".flac": 100_000}
_COMPRESSED = 24_000

#: Rows that are Python objects at a time.
_BATCH = 4096

Shards = list[tuple[int, int, int]]


@dataclass
class Plan:
    """What to do in one store.

    Attributes:
        deals: tracks (`DATASET_SCHEMA`) to decode together, and the shards `(shard, first, stop)` they fill.
        fragments: rewritten manifest rows (`MANIFEST_SCHEMA`) of shards whose frames stay, by shard.
        notes: what changed, for people.
    """

    batches: list[tuple[pa.Table, Shards]] = field(default_factory=list)
    fragments: dict[int, pa.Table] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def tracks(self) -> int:
        """Tracks to decode."""
        return sum(len(tracks) for tracks, _ in self.batches)

    def __bool__(self) -> bool:
        return bool(self.batches or self.fragments)


def make_plan(store: Store, dataset: Dataset, tracks: pa.Table, past: pa.Table, *, thorough: bool = False) -> Plan:
    """The work that makes the store agree with the dataset.

    Args:
        store: the store, locked by the caller.
        dataset: for its root.
        tracks: the dataset's track table with splits assigned.
        past: the store's `manifest.history`.
        thorough: check every byte of every shard, not only that its files are there at their full size.
    """
    seed = store.dataset["seed"]
    plan = Plan()
    at = pc.index_in(past["track_id"], tracks["track_id"].combine_chunks()).combine_chunks()
    changes, shards_relabelled, redo = _changed_tracks(dataset, tracks, past, at)
    broken = _broken_shards(store, past, thorough)
    redo |= broken
    lacking = _lacking_variants(tracks, past, at) if store.variants else past.slice(0, 0)
    if len(lacking) and not store.unfinished:
        plan.notes.append(f"{len(lacking)} training tracks get their variants: they were of no training split before")
    redo |= set(lacking["shard"].to_pylist())
    if broken and not store.unfinished:
        plan.notes.append(f"{len(broken)} damaged or incomplete shards are extracted again")
    gone = sum(values.get("reason") == "missing" for of_shard in changes.values() for values in of_shard.values())
    if gone:
        plan.notes.append(f"{gone} tracks are no longer there")
    for shard in sorted((changes.keys() | set(shards_relabelled)) - redo):
        fragment = manifest.read_fragment(store, shard)
        if fragment is None:
            redo.add(shard)
        else:
            rows = (
                update_labels(fragment, tracks) if shard in shards_relabelled else fragment.select(MANIFEST_SCHEMA.names)
            )
            plan.fragments[shard] = _amended(rows, changes.get(shard, {}))
    for shard, held in _refreshed(past, tracks, redo, seed):
        plan.batches.append((held, [(shard, 0, len(held))]))
    new = tracks.filter(pc.invert(pc.is_in(tracks["track_id"], value_set=past["track_id"].combine_chunks())))
    if len(past) and len(new):
        plan.notes.append(f"{len(new)} new tracks")
    following = 1 + (pc.max(past["shard"]).as_py() if len(past) else -1)
    for dealt in deal(new, _signatures(dataset, new)[0], seed):
        training = dealt["split"][0].as_py() == "training"
        shards = _shards(len(dealt), store.spec, following, frame_multiplier(store.variants) if training else 1.0)
        following = shards[-1][0] + 1
        plan.batches.append((dealt, shards))
    return plan


def deal(tracks: pa.Table, sizes: pa.Array, seed: int) -> list[pa.Table]:
    """Cut tracks into deals: by split, then in an order that depends on seed and track alone.

    The deals of a split have about the same number of tracks, where their lengths allow it: with few deals, workers
    would else wait for the one that has the largest.

    Args:
        tracks: rows of `DATASET_SCHEMA`.
        sizes: of their files in bytes, int64, null where unknown.
        seed: of the order.

    Returns:
        Slices of one table.
    """
    split = _split_order(tracks)
    order = np.lexsort((*_hashes(tracks["track_id"], seed), split))
    seconds = _estimated_seconds(tracks, sizes)[order]
    tracks = tracks.take(order).combine_chunks()
    edges = [0]
    for end in np.flatnonzero(np.diff(split[order], append=-1)) + 1:
        n = int(end) - edges[-1]
        parts = math.ceil(max(n / DEAL_TRACKS, seconds[edges[-1] : end].sum() / DEAL_SECONDS))
        share = math.ceil(n / parts)
        while (first := edges[-1]) < end:
            held = np.cumsum(seconds[first : min(end, first + share)])
            too_long = np.flatnonzero(held[1:] > DEAL_SECONDS)
            edges.append(first + 1 + int(too_long[0]) if len(too_long) else first + len(held))
    return [tracks.slice(first, stop - first) for first, stop in itertools.pairwise(edges)]


def _shards(n_tracks: int, spec: FeatureSpec, first_shard: int, volume: float) -> Shards:
    """A deal's shards: one, or 2, 4, 8 ... equal parts where the feature, or its variants (`volume`), are heavy."""
    itemsize = np.dtype(spec.dtype).itemsize
    parts = 1
    while volume * DEAL_SECONDS * spec.frame_rate * spec.bins * itemsize > parts * SHARD_BYTES and parts < n_tracks:
        parts *= 2
    edges = [n_tracks * part // parts for part in range(parts + 1)]
    return [(first_shard + k, a, b) for k, (a, b) in enumerate((a, b) for a, b in itertools.pairwise(edges) if b > a)]


def _estimated_seconds(tracks: pa.Table, sizes: pa.Array) -> np.ndarray:
    """Seconds of audio that file sizes suggest, float64 `(tracks,)`: by the bit rate, else by the suffix."""
    size = pc.fill_null(sizes, 0).to_numpy()
    bit_rate = pc.fill_null(tracks["bit_rate"], 0).to_numpy()
    stated = np.flatnonzero(bit_rate)
    seconds = np.empty(len(tracks))
    seconds[stated] = size[stated] * 8 / bit_rate[stated]
    unstated = np.flatnonzero(bit_rate == 0)
    for rows, paths in _batches(tracks["path"].take(unstated)):
        suffixes = (os.path.splitext(path)[1].lower() for path in paths)  # noqa: PTH122
        seconds[unstated[rows]] = size[unstated[rows]] / [_BYTES_PER_SECOND.get(s, _COMPRESSED) for s in suffixes]
    return seconds


def _split_order(tracks: pa.Table) -> np.ndarray:
    """Place of each track's split in SPLITS, behind them where it has none, int `(tracks,)`."""
    return pc.fill_null(pc.index_in(tracks["split"], pa.array(SPLITS)), len(SPLITS)).to_numpy()


def _hashes(ids: pa.ChunkedArray, seed: int) -> list[np.ndarray]:
    """Seeded SHA-256 of track ids as keys for `np.lexsort`: four uint64 `(tracks,)`, least significant first."""
    digests = np.empty((len(ids), 4), np.uint64)
    for rows, names in _batches(ids):
        joined = b"".join(hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names)
        digests[rows] = np.frombuffer(joined, ">u8").reshape(-1, 4)
    return list(digests.T[::-1])


def _batches(column: pa.ChunkedArray) -> Iterator[tuple[slice, list[Any]]]:
    """A column as Python objects, some thousand at a time, and which rows they are."""
    for first in range(0, len(column), _BATCH):
        rows = slice(first, min(first + _BATCH, len(column)))
        yield rows, column[rows].to_pylist()


#: New values of manifest rows: `{shard: {track_id: {column: value}}}`.
Changes = dict[int, dict[str, dict[str, Any]]]


def _changed_tracks(
    dataset: Dataset, tracks: pa.Table, past: pa.Table, at: pa.Array
) -> tuple[Changes, set[int], set[int]]:
    """What is different: new values where frames stay, shards with new labels, and shards to be extracted again."""
    changes: Changes = {}
    redo: set[int] = set()
    here = pc.is_valid(at)
    known, now = past.filter(here), tracks.take(at.drop_null())
    sizes, times = _signatures(dataset, now)
    lost = _equal(known["reason"], "missing")
    retried = _equal(known["reason"], "unreadable")
    moved = rows_differ(known["path"], now["path"]) | rows_differ(known["size"], sizes) | rows_differ(known["mtime_ns"], times)
    moved |= lost & sizes.is_valid().to_numpy(zero_copy_only=False)
    labels_changed = np.zeros(len(known), bool)
    for name in DATASET_SCHEMA.names:
        labels_changed |= rows_differ(known[name], now[name])
    shards_relabelled = set(pc.unique(known["shard"].filter(pa.array(labels_changed))).to_pylist())
    suspects = np.flatnonzero(moved | retried)
    columns = ["track_id", "shard", "reason", "n_frames", "content_hash"]
    for first in range(0, len(suspects), _BATCH):
        rows = suspects[first : first + _BATCH]
        found = (sizes.take(rows).to_pylist(), times.take(rows).to_pylist(), now["path"].take(rows).to_pylist())
        for i, row, size, mtime, name in zip(rows, known.select(columns).take(rows).to_pylist(), *found, strict=True):
            values = _moved(dataset.root, unescape(name), row, size, mtime, retried=bool(retried[i] and not moved[i]))
            if values is None:
                redo.add(row["shard"])
            elif values:
                changes.setdefault(row["shard"], {})[row["track_id"]] = values
    gone = past.filter(pc.and_(pc.invert(here), pc.invert(pc.fill_null(pc.equal(past["reason"], "missing"), False))))
    for row in gone.select(["track_id", "shard", "n_frames"]).to_pylist():
        changes.setdefault(row["shard"], {})[row["track_id"]] = _missing(row)
    return changes, shards_relabelled, redo


def _missing(row: dict) -> dict:
    """New values of a track that is no longer there. Where its frames stay, so does what is known of them."""
    return _GONE if row["n_frames"] else _GONE_UNKNOWN


_GONE = {"status": "dropped", "reason": "missing"}
_GONE_UNKNOWN = _GONE | {"detail": None}


def _moved(root: Place, path: bytes, row: dict, size: int | None, mtime: int | None, *, retried: bool) -> dict | None:
    """New values of a track whose file has another name, size or time; None where it must be decoded again."""
    if retried:
        return None if sources.readable(root, path) else {}
    if size is None:
        if row["reason"] == "missing":
            return {}
        return _missing(row) if row["n_frames"] else {"size": None, "mtime_ns": None}
    if row["reason"] == "missing" and not row["n_frames"]:
        return None
    try:
        content_hash = sources.content_hash(root, path)
    except (inspection.UnusableAudio, FileNotFoundError, PermissionError):
        return None
    if content_hash != row["content_hash"]:
        return None
    back = {"status": "ok", "reason": None} if row["reason"] == "missing" else {}
    return back | {"size": size, "mtime_ns": mtime}


def _amended(rows: pa.Table, changes: dict[str, dict[str, Any]]) -> pa.Table:
    """Manifest rows with new values."""
    if changes:
        rows = pa.Table.from_pylist(
            [row | changes.get(row["track_id"], {}) for row in rows.to_pylist()], MANIFEST_SCHEMA
        )
    return rows.replace_schema_metadata()


def _broken_shards(store: Store, past: pa.Table, thorough: bool) -> set[int]:
    """Shards without a fragment, or with files that are missing, cut short or (if `thorough`) changed."""
    fragments = set(store.fragments())
    sizes = None
    if isinstance(store.path, RemotePath):  # one listing instead of a request for each file
        sizes = {name: status.st_size for name, status in (store.path / "shards").list_objects().items()}
    recorded = {}
    if not store.unfinished:
        with contextlib.suppress(StoreError):
            recorded = store.shard_files()

    def is_broken(shard: int) -> bool:
        shard_files = recorded.get(f"{shard:05d}")
        if shard_files is None:
            fragment = manifest.read_fragment(store, shard)
            shard_files = manifest.fragment_files(fragment) if fragment is not None else {}
        intact = shard in fragments and manifest.has_complete_files(store, shard_files, sizes)
        return not intact or (thorough and any(verify.shard_problems(store, shard, shard_files)))

    shards = pc.unique(past["shard"]).to_pylist()
    return {shard for shard, bad in zip(shards, concurrency.map_requests(is_broken, shards, store.path), strict=True) if bad}


def _lacking_variants(tracks: pa.Table, past: pa.Table, at: pa.Array) -> pa.Table:
    """Rows of `past` with frames, but no variants, of tracks whose files are there and that are for training now."""
    training = pc.fill_null(pc.equal(tracks["split"].take(at), "training"), False)
    lacking = pc.and_(pc.is_null(past["variants"]), pc.greater(past["n_frames"], 0))
    here = pc.invert(pc.fill_null(pc.equal(past["reason"], "missing"), False))
    return past.filter(pc.and_(training, pc.and_(pc.fill_null(lacking, False), here)))


def _refreshed(past: pa.Table, tracks: pa.Table, shards: set[int], seed: int) -> Iterator[tuple[int, pa.Table]]:
    """Tracks of some shards with the labels of today, in the order in which they were dealt; shards ascending."""
    held = past.filter(pc.is_in(past["shard"], pa.array(shards, pa.int32())))
    labels = update_labels(held, tracks, DATASET_SCHEMA.names)
    shard = held["shard"].to_numpy()
    # By hash alone: a split may have been reassigned since, which must not reorder the shard.
    order = np.lexsort((*_hashes(labels["track_id"], seed), shard))
    labels, shard = labels.take(order).combine_chunks(), shard[order]
    edges = [0, *(np.flatnonzero(np.diff(shard)) + 1), len(shard)] if len(shard) else []
    for first, stop in itertools.pairwise(edges):
        yield int(shard[first]), labels.slice(first, stop - first)


def _signatures(dataset: Dataset, tracks: pa.Table) -> tuple[pa.Array, pa.Array]:
    """Size and modification time of each track's file, int64; null where there is no regular file."""
    found = np.full((2, len(tracks)), -1)
    if isinstance(dataset.root, RemotePath):
        seen = stat_objects(dataset.root, [unescape(path) for path in tracks["path"].to_pylist()])
        for i, object_status in enumerate(seen):
            if object_status is not None:
                found[:, i] = object_status.st_size, object_status.st_mtime_ns
        absent = found[0] < 0
        return pa.array(found[0], mask=absent), pa.array(found[1], mask=absent)
    root = os.fsencode(dataset.root) + b"/"
    for rows, paths in _batches(tracks["path"]):
        for i, path in enumerate(paths, rows.start):
            with contextlib.suppress(inspection.UnusableAudio):
                status = inspection.stat_file(root + unescape(path))
                found[:, i] = status.st_size, status.st_mtime_ns
    absent = found[0] < 0
    return pa.array(found[0], mask=absent), pa.array(found[1], mask=absent)


def _equal(column: pa.ChunkedArray, word: str) -> np.ndarray:
    """In which rows a column holds a word, bool."""
    return pc.fill_null(pc.equal(column, word), False).to_numpy()
