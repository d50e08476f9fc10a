"""Planning of an extraction: compare the dataset with a store, and list what must be decoded or relabelled."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.audio import inspection, sources
from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.tracks import DATASET_SCHEMA, MANIFEST_SCHEMA, rows_differ, unescape, update_labels
from mgc.pipeline.errors import StoreError
from mgc.pipeline.extraction.batches import (
    BLOCK_ROWS,
    TrackBatch,
    divide_into_shards,
    hash_keys,
    iterate_blocks,
    make_batches,
)
from mgc.pipeline.features.variants import frame_multiplier
from mgc.pipeline.storage import concurrency
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.storage.urls import stat_objects
from mgc.pipeline.store import manifest, verify
from mgc.pipeline.store.store import Store

#: New values for manifest rows: `{shard: {track_id: {column: value}}}`.
Changes: TypeAlias = dict[int, dict[str, dict[str, Any]]]


#: Reason of a track that `--duplicates drop` leaves out; it keeps its frames.
_DUPLICATE = "duplicate"
_NO_COPIES = pa.array([], pa.string())


@dataclass
class Plan:
    """Work to be done on one store.

    Attributes:
        batches: tracks to decode, and the shards that get their frames.
        fragments: new manifest rows (`MANIFEST_SCHEMA`) by shard, for shards whose frames stay as they are.
        notes: lines for the user that describe what has changed.
    """

    batches: list[TrackBatch] = field(default_factory=list)
    fragments: dict[int, pa.Table] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def n_tracks(self) -> int:
        """Number of tracks to decode."""
        return sum(len(tracks) for tracks, _ in self.batches)

    def __bool__(self) -> bool:
        return bool(self.batches or self.fragments)


def make_plan(
    store: Store,
    dataset: Dataset,
    tracks: pa.Table,
    past: pa.Table,
    *,
    thorough: bool = False,
    copies: pa.Array = _NO_COPIES,
) -> Plan:
    """Compare a store with its dataset and plan the work that makes them agree.

    Args:
        store: the store, locked by the caller.
        dataset: the dataset; only its root is used.
        tracks: the dataset's track table (`DATASET_SCHEMA`) with splits.
        past: the store's `manifest.history`.
        thorough: check every byte of every shard; otherwise only that its files exist and have their full size.
        copies: ids of the tracks that `--duplicates drop` leaves out, string; they are not in `tracks`.
    """
    seed = store.dataset["seed"]
    plan = Plan()
    index = pc.index_in(past["track_id"], tracks["track_id"].combine_chunks()).combine_chunks()
    changes, relabelled_shards, stale_shards = _changed_tracks(dataset, tracks, past, index, copies)
    broken = _broken_shards(store, past, thorough)
    stale_shards |= broken
    without_variants = _tracks_without_variants(tracks, past, index) if store.variants else past.slice(0, 0)
    if len(without_variants) and not store.unfinished:
        plan.notes.append(
            f"{len(without_variants)} training tracks were in another split before: they get variants now"
        )
    stale_shards |= set(without_variants["shard"].to_pylist())
    if broken and not store.unfinished:
        plan.notes.append(f"{len(broken)} damaged or incomplete shards are extracted again")
    n_missing = sum(row.get("reason") == "missing" for rows in changes.values() for row in rows.values())
    if n_missing:
        plan.notes.append(f"{n_missing} tracks are missing: they are dropped until their files are back")
    for shard in sorted((changes.keys() | relabelled_shards) - stale_shards):
        fragment = manifest.read_fragment(store, shard)
        if fragment is None:
            stale_shards.add(shard)
            continue
        rows = fragment.select(MANIFEST_SCHEMA.names)
        if shard in relabelled_shards:
            rows = update_labels(fragment, tracks)
        plan.fragments[shard] = _with_changes(rows, changes.get(shard, {}))
    for shard, shard_tracks in _tracks_of_shards(past, tracks, stale_shards, seed):
        plan.batches.append(TrackBatch(shard_tracks, [(shard, 0, len(shard_tracks))]))
    new = tracks.filter(pc.invert(pc.is_in(tracks["track_id"], value_set=past["track_id"].combine_chunks())))
    if len(past) and len(new):
        plan.notes.append(f"{len(new)} new tracks")
    next_shard = 1 + (pc.max(past["shard"]).as_py() if len(past) else -1)
    for batch in make_batches(new, file_signatures(dataset, new)[0], seed):
        training = batch["split"][0].as_py() == "training"
        multiplier = frame_multiplier(store.variants) if training else 1.0
        shards = divide_into_shards(len(batch), store.spec, next_shard, multiplier)
        next_shard = shards[-1][0] + 1
        plan.batches.append(TrackBatch(batch, shards))
    return plan


def _changed_tracks(
    dataset: Dataset, tracks: pa.Table, past: pa.Table, index: pa.Array, copies: pa.Array
) -> tuple[Changes, set[int], set[int]]:
    """Find the tracks whose file or labels have changed since they were extracted.

    Args:
        dataset: the dataset; only its root is used.
        tracks: the dataset's track table.
        past: the store's `manifest.history`.
        index: row in `tracks` of each row of `past`; null for tracks that are no longer in the dataset.
        copies: see `make_plan`.

    Returns:
        New values of manifest rows whose frames stay; shards with tracks that have new labels; shards that must be
        extracted again.
    """
    changes: Changes = {}
    stale_shards: set[int] = set()
    in_dataset = pc.is_valid(index)
    before, now = past.filter(in_dataset), tracks.take(index.drop_null())
    sizes, times = file_signatures(dataset, now)
    was_missing = _equals(before["reason"], "missing")
    was_unreadable = _equals(before["reason"], "unreadable")
    file_changed = rows_differ(before["path"], now["path"])
    file_changed |= rows_differ(before["size"], sizes) | rows_differ(before["mtime_ns"], times)
    file_changed |= was_missing & sizes.is_valid().to_numpy(zero_copy_only=False)
    labels_changed = np.zeros(len(before), bool)
    for name in DATASET_SCHEMA.names:
        labels_changed |= rows_differ(before[name], now[name])
    relabelled_shards = set(pc.unique(before["shard"].filter(pa.array(labels_changed))).to_pylist())
    suspects = np.flatnonzero(file_changed | was_unreadable)
    columns = ["track_id", "shard", "reason", "n_frames", "content_hash"]
    for first in range(0, len(suspects), BLOCK_ROWS):
        rows = suspects[first : first + BLOCK_ROWS]
        records = before.select(columns).take(rows).to_pylist()
        signatures = (sizes.take(rows).to_pylist(), times.take(rows).to_pylist())
        paths = now["path"].take(rows).to_pylist()
        for i, record, size, mtime, path in zip(rows, records, *signatures, paths, strict=True):
            if file_changed[i]:
                values = _changed_file(dataset.root, unescape(path), record, size, mtime)
            else:  # the file was unreadable
                values = None if sources.readable(dataset.root, unescape(path)) else {}
            if values is None:
                stale_shards.add(record["shard"])
            elif values:
                changes.setdefault(record["shard"], {})[record["track_id"]] = values
    # Tracks that a call with --duplicates drop left out, and this one does not.
    for record in (
        before.select(["track_id", "shard", "n_frames"]).filter(_equals(before["reason"], _DUPLICATE)).to_pylist()
    ):
        values = changes.setdefault(record["shard"], {})
        values[record["track_id"]] = {"status": "ok", "reason": None} | values.get(record["track_id"], {})
    absent = pc.invert(in_dataset)
    is_copy = pc.is_in(past["track_id"], value_set=copies)
    reason = pc.fill_null(past["reason"], "")
    removed = past.filter(pc.and_(absent, pc.and_(pc.invert(is_copy), pc.not_equal(reason, "missing"))))
    for record in removed.select(["track_id", "shard", "n_frames"]).to_pylist():
        changes.setdefault(record["shard"], {})[record["track_id"]] = _missing(record)
    # A copy that was dropped for another reason, which its file still has, stays so.
    left_out = past.filter(pc.and_(absent, pc.and_(is_copy, pc.equal(past["status"], "ok"))))
    for record in left_out.select(["track_id", "shard"]).to_pylist():
        values = {"status": "dropped", "reason": _DUPLICATE}
        changes.setdefault(record["shard"], {})[record["track_id"]] = values
    return changes, relabelled_shards, stale_shards


def _missing(record: dict) -> dict:
    """Return the new values of a track whose file is missing. If it has frames, its `detail` still describes them."""
    return _MISSING if record["n_frames"] else _MISSING_WITHOUT_FRAMES


_MISSING = {"status": "dropped", "reason": "missing"}
_MISSING_WITHOUT_FRAMES = _MISSING | {"detail": None}


def _changed_file(root: Place, path: bytes, record: dict, size: int | None, mtime: int | None) -> dict | None:
    """Decide on a track whose file has another path, size or modification time than the manifest records.

    Args:
        root: folder or URL of the dataset.
        path: path below `root`.
        record: columns of the track's manifest row.
        size: size of the file in bytes; None if there is no file.
        mtime: modification time of the file in ns; None if there is no file.

    Returns:
        New values of the manifest row; None if the track must be decoded again.
    """
    if size is None:
        if record["reason"] == "missing":
            return {}
        return _missing(record) if record["n_frames"] else {"size": None, "mtime_ns": None}
    if record["reason"] == "missing" and not record["n_frames"]:
        return None
    try:
        content_hash = sources.content_hash(root, path)
    except (inspection.UnusableAudio, FileNotFoundError, PermissionError):
        return None
    if content_hash != record["content_hash"]:
        return None
    found_again = {"status": "ok", "reason": None} if record["reason"] == "missing" else {}
    return found_again | {"size": size, "mtime_ns": mtime}


def _with_changes(rows: pa.Table, changes: dict[str, dict[str, Any]]) -> pa.Table:
    """Return manifest rows with new values, given as `{track_id: {column: value}}`."""
    if changes:
        rows = pa.Table.from_pylist(
            [row | changes.get(row["track_id"], {}) for row in rows.to_pylist()], MANIFEST_SCHEMA
        )
    return rows.replace_schema_metadata()


def _broken_shards(store: Store, past: pa.Table, thorough: bool) -> set[int]:
    """Return the shards of `past` without a fragment, or with files that are missing, truncated or damaged.

    Damage that keeps a file's size is found only if `thorough` is set.
    """
    fragments = set(store.fragments())
    sizes = None
    if isinstance(store.path, RemotePath):  # one listing instead of one request per file
        sizes = {name: status.st_size for name, status in (store.path / "shards").list_objects().items()}
    manifest_files = {}
    if not store.unfinished:
        with contextlib.suppress(StoreError):
            manifest_files = store.shard_files()

    def is_broken(shard: int) -> bool:
        shard_files = manifest_files.get(f"{shard:05d}")
        if shard_files is None:
            fragment = manifest.read_fragment(store, shard)
            shard_files = manifest.fragment_files(fragment) if fragment is not None else {}
        complete = shard in fragments and manifest.has_complete_files(store, shard_files, sizes)
        return not complete or (thorough and any(verify.shard_problems(store, shard, shard_files)))

    shards = pc.unique(past["shard"]).to_pylist()
    results = concurrency.map_requests(is_broken, shards, store.path)
    return {shard for shard, broken in zip(shards, results, strict=True) if broken}


def _tracks_without_variants(tracks: pa.Table, past: pa.Table, index: pa.Array) -> pa.Table:
    """Return the rows of `past` that lack variants, although they have frames and are in the training split now.

    Tracks whose files are missing are left out. See `_changed_tracks` for the arguments.
    """
    training = pc.fill_null(pc.equal(tracks["split"].take(index), "training"), False)
    without_variants = pc.and_(pc.is_null(past["variants"]), pc.greater(past["n_frames"], 0))
    not_missing = pc.invert(pc.fill_null(pc.equal(past["reason"], "missing"), False))
    return past.filter(pc.and_(training, pc.and_(pc.fill_null(without_variants, False), not_missing)))


def _tracks_of_shards(past: pa.Table, tracks: pa.Table, shards: set[int], seed: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield the tracks of each shard with their current labels, in the order of the shard; shards ascending."""
    rows = past.filter(pc.is_in(past["shard"], pa.array(shards, pa.int32())))
    labels = update_labels(rows, tracks, DATASET_SCHEMA.names)
    shard = rows["shard"].to_numpy()
    # The order is that of `make_batches`, but without the split, which may have changed since.
    order = np.lexsort((*hash_keys(labels["track_id"], seed), shard))
    labels, shard = labels.take(order).combine_chunks(), shard[order]
    edges = [0, *(np.flatnonzero(np.diff(shard)) + 1), len(shard)] if len(shard) else []
    for first, stop in itertools.pairwise(edges):
        yield int(shard[first]), labels.slice(first, stop - first)


def file_signatures(dataset: Dataset, tracks: pa.Table) -> tuple[pa.Array, pa.Array]:
    """Return the size in bytes and the modification time in ns of each track's file, int64; null without a file."""
    signatures = np.full((2, len(tracks)), -1)
    if isinstance(dataset.root, RemotePath):
        objects = stat_objects(dataset.root, [unescape(path) for path in tracks["path"].to_pylist()])
        for i, status in enumerate(objects):
            if status is not None:
                signatures[:, i] = status.st_size, status.st_mtime_ns
    else:
        root = os.fsencode(dataset.root) + b"/"
        for rows, paths in iterate_blocks(tracks["path"]):
            for i, path in enumerate(paths, rows.start):
                with contextlib.suppress(inspection.UnusableAudio):
                    file_stat = inspection.stat_file(root + unescape(path))
                    signatures[:, i] = file_stat.st_size, file_stat.st_mtime_ns
    absent = signatures[0] < 0
    return pa.array(signatures[0], mask=absent), pa.array(signatures[1], mask=absent)


def _equals(column: pa.ChunkedArray, word: str) -> np.ndarray:
    """Return in which rows a column holds `word`, bool `(rows,)`; null counts as False."""
    return pc.fill_null(pc.equal(column, word), False).to_numpy()
