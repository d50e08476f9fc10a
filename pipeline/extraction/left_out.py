"""Tracks that are left out on request: copies, clips that a published list of splits omits, tracks without a genre.

Each has a manifest row with the reason. One that was decoded before keeps its frames; others are not decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import Dataset, clips, labels
from mgc.pipeline.datasets.catalogue import format_names
from mgc.pipeline.datasets.lookup import Lookup
from mgc.pipeline.datasets.tracks import (
    DATASET_SCHEMA,
    DUPLICATE,
    LEFT_OUT_REASONS,
    MANIFEST_SCHEMA,
    NO_GENRE,
    UNLISTED,
)
from mgc.pipeline.extraction import duplicates
from mgc.pipeline.extraction.batches import TrackBatch, TrackRows, hash_keys
from mgc.pipeline.extraction.options import Options
from mgc.pipeline.extraction.output import Output
from mgc.pipeline.extraction.task import Target
from mgc.pipeline.features.spec import Clipped
from mgc.pipeline.store import manifest
from mgc.pipeline.store.siblings import siblings
from mgc.pipeline.store.store import Store

_COPY = "the same bytes as "
#: What `leaving` adds to the detail of a track with frames.
_ADDED = re.compile(rf"(^|; )({_COPY}|not in the list |{labels.NO_GENRE}).*", re.DOTALL)
_COLUMNS = ["track_id", "reason", "detail"]
_NOTHING: Mapping[str, str] = {}


class LeftOut(NamedTuple):
    """Why a track is left out: `reason` and `detail` of its manifest row."""

    reason: str
    detail: str


#: Why each track that is left out is, by id.
Reasons: TypeAlias = Mapping[str, LeftOut]


def find(
    store: Store, tracks: pa.Table, past: pa.Table, options: Options, unlabelled: Mapping[str, str] = _NOTHING
) -> dict[str, LeftOut]:
    """Find the tracks of a dataset that this call leaves out.

    A track that a published list omitted stays out until `--splits` is given again, in all stores of the dataset.

    Args:
        store: the store.
        tracks: the dataset's tracks, with the column `content_hash`.
        past: the store's `manifest.history`.
        options: settings of the extraction.
        unlabelled: detail of the tracks without a genre, by id, see `Dataset.unlabelled`.

    Returns:
        `{track_id: why}`.
    """
    ids = tracks["track_id"]
    left_out = {track: LeftOut(UNLISTED, detail) for track, detail in options.unlisted.items()}
    if not options.splits:
        rows = pa.concat_tables([past.select(_COLUMNS), *(manifest.history(s, _COLUMNS) for s in siblings(store))])
        rows = rows.filter(pc.fill_null(pc.equal(rows["reason"], UNLISTED), False))
        rows = rows.filter(pa.array(Lookup(ids).contains(rows["track_id"])))
        for row in rows.to_pylist():
            left_out.setdefault(row["track_id"], LeftOut(UNLISTED, _ours(row["detail"])))
    left_out |= {track: LeftOut(NO_GENRE, detail) for track, detail in unlabelled.items()}
    if options.duplicates == "drop":
        used = tracks.select(["track_id", "path", "content_hash"])
        if left_out:  # the filter copies the columns
            used = used.filter(pc.invert(pc.is_in(ids, value_set=pa.array(list(left_out), pa.string()))))
        hashes = used["content_hash"].combine_chunks()
        paths = used["path"].take(pc.index_in(hashes, hashes)).to_pylist()
        for row in np.flatnonzero(~duplicates.first_of_each(hashes)):
            left_out[used["track_id"][int(row)].as_py()] = LeftOut(DUPLICATE, _COPY + paths[row])
    return left_out


def describe(dataset: Dataset, why: Reasons) -> Iterator[str]:
    """Yield notes for the user on the tracks that a published list of splits leaves out, or on the list that would."""
    unlisted = sorted(track for track, reason in why.items() if reason.reason == UNLISTED)
    if unlisted:
        yield f"left out, {why[unlisted[0]].detail}: {len(unlisted):,} ({format_names(unlisted)})"
    elif dataset.published == "gtzan":
        artists = dataset.tracks["artist_id"]
        yield f"artists are known of {len(artists) - artists.null_count:,} of {len(artists):,} clips (Sturm 2013)"
        yield clips.FAULTS


def leaving(why: LeftOut, detail: str | None) -> dict[str, Any]:
    """Return the new values of a row whose track is left out; `detail`, its present one, still describes its frames."""
    detail = _ADDED.sub("", detail or "")
    return {"status": "dropped", "reason": why.reason, "detail": "; ".join(filter(None, [detail, why.detail]))}


def returning(detail: str | None) -> dict[str, Any]:
    """Return the new values of a row with frames whose track is no longer left out."""
    return {"status": "ok", "reason": None, "detail": _ADDED.sub("", detail or "") or None}


def relist(rows: pa.Table, why: Reasons) -> pa.Table:
    """Return manifest rows (`MANIFEST_SCHEMA`) as `UNLISTED` if `why` says so, and others of this reason as they were.

    Rows without frames stay left out: `mgc extract` decodes their tracks.
    """
    if not why and not pc.any(pc.equal(rows["reason"], UNLISTED)).as_py():
        return rows
    records = rows.to_pylist()
    for record in records:
        if record["track_id"] in why:
            if record["status"] == "ok":
                record |= leaving(why[record["track_id"]], record["detail"])
        elif record["reason"] == UNLISTED and record["n_frames"]:
            record |= returning(record["detail"])
    return pa.Table.from_pylist(records, MANIFEST_SCHEMA)


def without_frames(rows: pa.Table, *reasons: str) -> np.ndarray:
    """Return which manifest rows are those of tracks that were left out without being decoded, bool `(rows,)`.

    Args:
        rows: manifest rows.
        reasons: the reasons that count; none for all of `LEFT_OUT_REASONS`.
    """
    is_left_out = pc.fill_null(pc.is_in(rows["reason"], value_set=pa.array(reasons or LEFT_OUT_REASONS)), False)
    return pc.and_(is_left_out, pc.equal(pc.fill_null(rows["n_frames"], 0), 0)).to_numpy()


def batch(tracks: pa.Table, left_out: Reasons, shard: int, seed: int) -> TrackBatch:
    """Return the rows of tracks that are left out without being decoded, in the order of all shards.

    Args:
        tracks: the tracks, with the columns of `DATASET_SCHEMA`, `size`, `mtime_ns` and `content_hash`.
        left_out: why each of them is left out.
        shard: number of the shard, without frames, that gets the rows.
        seed: seed of the store.
    """
    tracks = tracks.take(np.lexsort(tuple(hash_keys(tracks["track_id"], seed)))).combine_chunks()
    why = [left_out[track] for track in tracks["track_id"].to_pylist()]
    columns = {name: tracks[name] for name in (*DATASET_SCHEMA.names, "size", "mtime_ns", "content_hash")}
    columns |= {"reason": pa.array([w.reason for w in why]), "detail": pa.array([w.detail for w in why])}
    columns |= {"status": pa.repeat("dropped", len(tracks)), "split": pa.nulls(len(tracks), pa.string())}
    schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in columns])
    rows = pa.table(list(columns.values()), schema=schema)
    return TrackBatch(TrackRows.all(rows), [(shard, 0, len(rows))])


def write(store: Store, rows: TrackBatch) -> None:
    """Write the rows of a `batch`, and the empty shard that they belong to."""
    output = Output(Target(store, rows.shards))
    try:
        for number, row in enumerate(rows.tracks.table().to_pylist()):
            output.advance_to(number)
            output.record(dict.fromkeys(MANIFEST_SCHEMA.names) | row, 0, Clipped(), [])
        output.advance_to(len(rows.tracks))
    finally:
        output.discard()


def _ours(detail: str | None) -> str:
    """Return the part of a detail that says why the track is left out."""
    match = _ADDED.search(detail or "")
    return match[0].removeprefix("; ") if match else detail or ""
