"""Planning of an extraction: compare the dataset with a store, and list what must be decoded or relabelled."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.lookup import Lookup
from mgc.pipeline.datasets.tracks import DATASET_SCHEMA, MANIFEST_SCHEMA, update_labels
from mgc.pipeline.errors import StoreError
from mgc.pipeline.extraction import left_out
from mgc.pipeline.extraction.batches import (
    TrackBatch,
    TrackRows,
    divide_into_shards,
    hash_keys,
    make_batches,
)
from mgc.pipeline.extraction.changes import changed_tracks, with_changes
from mgc.pipeline.extraction.signatures import with_signatures
from mgc.pipeline.features.variants import frame_multiplier
from mgc.pipeline.storage import concurrency
from mgc.pipeline.storage.remote import RemotePath
from mgc.pipeline.store import manifest, verify
from mgc.pipeline.store.store import Store

#: Columns of `manifest.history` that planning reads, a third of the bytes of all.
PAST_COLUMNS = [
    *DATASET_SCHEMA.names, "size", "mtime_ns", "content_hash", "status", "reason", "detail", "shard", "n_frames",
    "variants",
]  # fmt: skip

_NOTHING: left_out.Reasons = {}
_NO_HASHES: Mapping[str, str] = {}


@dataclass
class Plan:
    """Work to be done on one store.

    Attributes:
        batches: tracks to decode, and the shards that get their frames.
        fragments: new manifest rows (`MANIFEST_SCHEMA`) by shard, for shards whose frames stay as they are.
        rows_only: rows of tracks that are left out without being decoded, and their shards.
        left_out: why tracks are left out, by id.
        notes: lines for the user that describe what has changed.
    """

    batches: list[TrackBatch] = field(default_factory=list)
    fragments: dict[int, pa.Table] = field(default_factory=dict)
    rows_only: list[TrackBatch] = field(default_factory=list)
    left_out: left_out.Reasons = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def n_tracks(self) -> int:
        """Number of tracks to decode."""
        return sum(len(tracks) for tracks, _ in self.batches)

    def __bool__(self) -> bool:
        return bool(self.batches or self.fragments or self.rows_only)


def make_plan(
    store: Store,
    dataset: Dataset,
    tracks: pa.Table,
    past: pa.Table,
    *,
    thorough: bool = False,
    omitted: pa.Table | None = None,
    why: left_out.Reasons = _NOTHING,
    hashes: Mapping[str, str] = _NO_HASHES,
) -> Plan:
    """Compare a store with its dataset and plan the work that makes them agree.

    Args:
        store: the store, locked by the caller.
        dataset: the dataset; only its root is used.
        tracks: the dataset's track table (`DATASET_SCHEMA`) with splits, and `size` and `mtime_ns` of the files if they
            are known (`with_signatures`).
        past: the store's `manifest.history` with PAST_COLUMNS.
        thorough: check every byte of every shard; otherwise only that its files exist and have their full size.
        omitted: tracks that are left out, with the columns of `tracks` and `content_hash`; they are not in `tracks`.
        why: the reason of each of them.
        hashes: content hashes of files that were read by this call already, by track id.
    """
    plan = Plan(left_out=why)
    if "size" not in tracks.schema.names:
        tracks = with_signatures(dataset, tracks)
    lookup = Lookup(tracks["track_id"])
    index = lookup.indices(past["track_id"])
    changes, relabelled_shards, stale_shards = changed_tracks(dataset, tracks, past, index, why, hashes)
    broken = _broken_shards(store, past, thorough)
    without_variants = _tracks_without_variants(tracks, past, index) if store.variants else past.slice(0, 0)
    stale_shards |= broken | set(without_variants["shard"].to_pylist())
    n_missing = sum((row or {}).get("reason") == "missing" for rows in changes.values() for row in rows.values())
    if not store.unfinished:
        remark = "training tracks were in another split before: they get variants now"
        plan.notes += _count(len(without_variants), remark)
        plan.notes += _count(len(broken), "damaged or incomplete shards are extracted again")
    plan.notes += _count(n_missing, "tracks are missing: they are dropped until their files are back")
    for shard in sorted((changes.keys() | relabelled_shards) - stale_shards):
        fragment = manifest.read_fragment(store, shard)
        if fragment is None:
            stale_shards.add(shard)
            continue
        rows = fragment.select(MANIFEST_SCHEMA.names)
        if shard in relabelled_shards:
            rows = update_labels(fragment, tracks, lookup)
        plan.fragments[shard] = with_changes(rows, changes.get(shard, {}))
    _plan_decoding(plan, store, tracks, lookup, past, stale_shards, why)
    if omitted is not None:
        _plan_rows_only(plan, store, omitted, past, stale_shards, why)
    return plan


def _count(number: int, text: str) -> list[str]:
    return [f"{number} {text}"] if number else []


def _plan_decoding(
    plan: Plan,
    store: Store,
    tracks: pa.Table,
    lookup: Lookup,
    past: pa.Table,
    stale_shards: set[int],
    why: left_out.Reasons,
) -> None:
    """Add the shards to extract again, and shards for new tracks, to a plan.

    A track that was left out without being decoded is extracted like a new one.
    """
    seed = store.dataset["seed"]
    omitted = pc.is_in(past["track_id"], value_set=pa.array(list(why), pa.string())).to_numpy()
    undecoded = omitted | left_out.without_frames(past)
    kept = past.filter(pa.array(~undecoded)) if undecoded.any() else past
    for shard, shard_tracks in _tracks_of_shards(kept, tracks, lookup, stale_shards, seed):
        plan.batches.append(TrackBatch(TrackRows.all(shard_tracks), [(shard, 0, len(shard_tracks))]))
    new = tracks
    if len(kept):  # the filter copies the table
        new = tracks.filter(pa.array(~Lookup(kept["track_id"]).contains(tracks["track_id"])))
    if len(past) and len(new):
        plan.notes.append(f"{len(new)} new tracks")
    next_shard = 1 + (pc.max(past["shard"]).as_py() if len(past) else -1)
    for batch in make_batches(new.select(DATASET_SCHEMA.names), new["size"].combine_chunks(), seed):
        training = batch.of["split"][batch.first].as_py() == "training"
        multiplier = frame_multiplier(store.variants) if training else 1.0
        shards = divide_into_shards(len(batch), store.spec, next_shard, multiplier)
        next_shard = shards[-1][0] + 1
        plan.batches.append(TrackBatch(batch, shards))


def _plan_rows_only(
    plan: Plan, store: Store, omitted: pa.Table, past: pa.Table, stale_shards: set[int], why: left_out.Reasons
) -> None:
    """Add rows for the tracks that are left out and have none yet, or whose shard is extracted again, to a plan.

    They get a shard without frames. A stale shard that no other track is left in becomes such a shard, too.
    """
    decoded = {shard for _, shards in plan.batches for shard, _, _ in shards}
    emptied = sorted(stale_shards - decoded)
    recorded = past["track_id"].filter(pc.invert(pc.is_in(past["shard"], pa.array(stale_shards, pa.int32()))))
    omitted = omitted.filter(pa.array(~Lookup(recorded).contains(omitted["track_id"])))
    if len(omitted) and not emptied:
        emptied = [1 + max(decoded | set(past["shard"].to_pylist()), default=-1)]
    for shard in emptied:
        plan.rows_only.append(left_out.batch(omitted, why, shard, store.dataset["seed"]))
        omitted = omitted.slice(0, 0)


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


def _tracks_of_shards(
    past: pa.Table, tracks: pa.Table, lookup: Lookup, shards: set[int], seed: int
) -> Iterator[tuple[int, pa.Table]]:
    """Yield the tracks of each shard with their current labels, in the order of the shard; shards ascending."""
    rows = past.filter(pc.is_in(past["shard"], pa.array(shards, pa.int32())))
    labels = update_labels(rows, tracks, lookup, DATASET_SCHEMA.names)
    shard = rows["shard"].to_numpy()
    # The order is that of `make_batches`, but without the split, which may have changed since.
    order = np.lexsort((*hash_keys(labels["track_id"], seed), shard))
    labels, shard = labels.take(order).combine_chunks(), shard[order]
    edges = [0, *(np.flatnonzero(np.diff(shard)) + 1), len(shard)] if len(shard) else []
    for first, stop in itertools.pairwise(edges):
        yield int(shard[first]), labels.slice(first, stop - first)
