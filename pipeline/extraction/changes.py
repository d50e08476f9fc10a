"""Changes of a dataset since a store was extracted: which manifest rows get new values, which shards new frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.audio import inspection, sources
from mgc.pipeline.datasets import Dataset, blocks
from mgc.pipeline.datasets.tracks import DATASET_SCHEMA, LEFT_OUT_REASONS, MANIFEST_SCHEMA, rows_differ, unescape
from mgc.pipeline.extraction import left_out
from mgc.pipeline.storage.remote import Place

#: New values for manifest rows: `{shard: {track_id: {column: value}}}`; None instead of the values removes the row.
Changes: TypeAlias = dict[int, dict[str, dict[str, Any] | None]]


def changed_tracks(
    dataset: Dataset,
    tracks: pa.Table,
    past: pa.Table,
    index: pa.Array,
    why: left_out.Reasons,
    hashes: Mapping[str, str],
) -> tuple[Changes, set[int], set[int]]:
    """Find the tracks whose file or labels have changed since they were extracted.

    Args:
        dataset: the dataset; only its root is used.
        tracks: the dataset's track table, with `size` and `mtime_ns`.
        past: the store's `manifest.history`.
        index: row in `tracks` of each row of `past`; null for tracks that are no longer in the dataset.
        why: tracks of the dataset that are left out, and not in `tracks`.
        hashes: content hashes of files that were read by this call already, by track id.

    Returns:
        New values of manifest rows whose frames stay; shards with tracks that have new labels; shards that must be
        extracted again.
    """
    changes: Changes = {}
    stale_shards: set[int] = set()
    in_dataset = pc.is_valid(index)
    before = past.filter(in_dataset) if index.null_count else past
    now = index.drop_null()
    sizes, times = (tracks[name].take(now).combine_chunks() for name in ("size", "mtime_ns"))
    was_missing = _equals(before["reason"], "missing")
    was_unreadable = _equals(before["reason"], "unreadable")
    file_changed = rows_differ(before["path"], tracks["path"].take(now))
    file_changed |= rows_differ(before["size"], sizes) | rows_differ(before["mtime_ns"], times)
    file_changed |= was_missing & sizes.is_valid().to_numpy(zero_copy_only=False)
    undecoded = left_out.without_frames(before)
    file_changed &= ~undecoded
    labels_changed = np.zeros(len(before), bool)
    for name in DATASET_SCHEMA.names:
        labels_changed |= rows_differ(before[name], tracks[name].take(now))
    relabelled_shards = set(pc.unique(before["shard"].filter(pa.array(labels_changed & ~undecoded))).to_pylist())
    suspects = np.flatnonzero(file_changed | was_unreadable)
    columns = ["track_id", "shard", "reason", "n_frames", "content_hash"]
    for first in range(0, len(suspects), blocks.BLOCK_ROWS):
        rows = suspects[first : first + blocks.BLOCK_ROWS]
        records = before.select(columns).take(rows).to_pylist()
        signatures = (sizes.take(rows).to_pylist(), times.take(rows).to_pylist())
        paths = tracks["path"].take(now.take(rows)).to_pylist()
        for i, record, size, mtime, path in zip(rows, records, *signatures, paths, strict=True):
            if file_changed[i]:
                values = _changed_file(dataset.root, unescape(path), record, size, mtime, hashes)
            else:  # the file was unreadable
                values = None if sources.readable(dataset.root, unescape(path)) else {}
            if values is None:
                stale_shards.add(record["shard"])
            elif values:
                changes.setdefault(record["shard"], {})[record["track_id"]] = values
    _add_left_out(changes, before, past.filter(pc.invert(in_dataset)), why)
    return changes, relabelled_shards, stale_shards


def _add_left_out(changes: Changes, present: pa.Table, absent: pa.Table, why: left_out.Reasons) -> None:
    """Add the tracks that are left out from now on, or no longer, and those that are missing, to the changes.

    Args:
        changes: see `changed_tracks`.
        present: rows of the tracks that are used.
        absent: rows of the others.
        why: tracks of the dataset that are left out.
    """
    columns = ["track_id", "shard", "status", "reason", "detail", "n_frames"]
    reasons = pa.array(LEFT_OUT_REASONS)
    for record in present.select(columns).filter(pc.is_in(present["reason"], value_set=reasons)).to_pylist():
        of_shard, track = changes.setdefault(record["shard"], {}), record["track_id"]
        if record["n_frames"]:
            of_shard[track] = left_out.returning(record["detail"]) | (of_shard.get(track) or {})
        else:
            of_shard[track] = None
    is_omitted = pc.is_in(absent["track_id"], value_set=pa.array(list(why), pa.string()))
    is_missing = pc.fill_null(pc.equal(absent["reason"], "missing"), False)
    for record in absent.select(columns).filter(pc.invert(pc.or_(is_omitted, is_missing))).to_pylist():
        changes.setdefault(record["shard"], {})[record["track_id"]] = _missing(record)
    # A track that was dropped for a fault of its file, which is still there, stays so.
    is_sound = pc.or_(
        pc.equal(absent["status"], "ok"), pc.or_(is_missing, pc.is_in(absent["reason"], value_set=reasons))
    )
    for record in absent.select(columns).filter(pc.and_(is_omitted, is_sound)).to_pylist():
        values = left_out.leaving(why[record["track_id"]], record["detail"])
        if record["reason"] != values["reason"] or record["detail"] != values["detail"]:
            changes.setdefault(record["shard"], {})[record["track_id"]] = values


def _missing(record: dict) -> dict:
    """Return the new values of a track whose file is missing. If it has frames, its `detail` still describes them."""
    return _MISSING if record["n_frames"] else _MISSING_WITHOUT_FRAMES


_MISSING = {"status": "dropped", "reason": "missing"}
_MISSING_WITHOUT_FRAMES = _MISSING | {"detail": None}


def _changed_file(
    root: Place, path: bytes, record: dict, size: int | None, mtime: int | None, hashes: Mapping[str, str]
) -> dict | None:
    """Decide on a track whose file has another path, size or modification time than the manifest records.

    Args:
        root: folder or URL of the dataset.
        path: path below `root`.
        record: columns of the track's manifest row.
        size: size of the file in bytes; None if there is no file.
        mtime: modification time of the file in ns; None if there is no file.
        hashes: see `changed_tracks`.

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
        content_hash = hashes.get(record["track_id"]) or sources.content_hash(root, path)
    except (inspection.UnusableAudio, FileNotFoundError, PermissionError):
        return None
    if content_hash != record["content_hash"]:
        return None
    found_again = {"status": "ok", "reason": None} if record["reason"] == "missing" else {}
    return found_again | {"size": size, "mtime_ns": mtime}


def with_changes(rows: pa.Table, changes: dict[str, dict[str, Any] | None]) -> pa.Table:
    """Return manifest rows with new values, given as `{track_id: {column: value}}`; None removes a row."""
    if changes:
        changed = ((row, changes.get(row["track_id"], {})) for row in rows.to_pylist())
        rows = pa.Table.from_pylist([row | new for row, new in changed if new is not None], MANIFEST_SCHEMA)
    return rows.replace_schema_metadata()


def _equals(column: pa.ChunkedArray, word: str) -> np.ndarray:
    """Return in which rows a column holds `word`, bool `(rows,)`; null counts as False."""
    return pc.fill_null(pc.equal(column, word), False).to_numpy()
