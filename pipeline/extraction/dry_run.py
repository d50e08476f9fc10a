"""Dry run of an extraction: what would be done to each store, without a file being written, created or locked."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.lookup import Lookup
from mgc.pipeline.datasets.tracks import rows_differ
from mgc.pipeline.errors import SpecError
from mgc.pipeline.extraction import duplicates, estimate, left_out, planning, probe, sharing
from mgc.pipeline.extraction.extract import plan_store
from mgc.pipeline.extraction.opening import describe, is_new, store_path
from mgc.pipeline.extraction.options import Options
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.store import head, manifest
from mgc.pipeline.store.siblings import open_by_head, require_same_root
from mgc.pipeline.store.store import Store


@dataclass(frozen=True)
class StorePlan:
    """What an extraction would do to one store. Each number is one of files.

    Attributes:
        store: folder or URL of the store.
        exists: False if the store would be created.
        new: files that the store does not know.
        changed: files whose bytes have changed, or that are back.
        removed: files of the store that are no longer there.
        unchanged: files whose frames stay valid.
        left_out: files that are left out on request.
        decode: files to decode: the new and changed ones, and those that share a shard with a changed one.
    """

    store: Place
    exists: bool
    new: int
    changed: int
    removed: int
    unchanged: int
    left_out: int
    decode: int

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {**self.__dict__, "store": str(self.store)}

    def __str__(self) -> str:
        """Describe the plan in one line."""
        words = ("new", "changed", "removed", "unchanged")
        counts = ", ".join(f"{getattr(self, word):,} {word}" for word in words)
        omitted = f", {self.left_out:,} left out" if self.left_out else ""
        state = "" if self.exists else " (to be created)"
        return f"{self.store}{state}: {counts}{omitted}; {self.decode:,} to decode"


def dry_run(
    dataset: Dataset,
    specs: Sequence[FeatureSpec],
    out: Place,
    options: Options,
    echo: Callable[[str], None],
) -> tuple[list[StorePlan], estimate.Estimate | None]:
    """Plan an extraction and write nothing; the arguments are those of `extract`.

    Args:
        dataset: the dataset, opened without a folder for caches.
        specs: the features.
        out: folder or URL of the stores.
        options: settings of the extraction.
        echo: function that prints a line for the user.

    Returns:
        A plan per spec, in their order; the estimate, None if there is nothing to decode.

    Raises:
        SpecError: the options ask for what cannot be planned without writing.
        MgcError: a store belongs to another dataset, or cannot be read.
    """
    if options.moved:
        raise SpecError("--dry-run does not go with --moved, which compares and records", "leave one of them out")
    if all(is_new(store_path(out, spec, options.variants)) for spec in specs):
        probe.require_room(dataset, specs, options)
    stores = [_open(out, spec, dataset, options) for spec in specs]
    tracks = duplicates.find(dataset, stores)
    for note in duplicates.describe(tracks, tracks["content_hash"].combine_chunks(), options.duplicates):
        echo(note)
    results, plans = [], []
    for store, spec in zip(stores, specs, strict=True):
        past = manifest.history(store, planning.PAST_COLUMNS)
        plan, notes = plan_store(store, dataset, tracks, past, {}, options)
        for note in notes:
            echo(f"{store.path.name}: {note}")
        plans.append(plan)
        path = store_path(out, spec, options.variants)
        exists = not is_new(path)
        if exists and options.rebuild:
            past = manifest.history(open_by_head(path), planning.PAST_COLUMNS)
        results.append(_count(path, exists, dataset, tracks, past, plan))
    for note in left_out.describe(dataset, plans[0].left_out):
        echo(note)
    batches = sharing.share_batches(stores, plans)
    if not batches:
        return results, None
    workers = sharing.count_workers(batches, dataset, options)
    return results, estimate.estimate(dataset, batches, stores, tracks, workers)


def _open(out: Place, spec: FeatureSpec, dataset: Dataset, options: Options) -> Store:
    """Open a store for reading; one that is not there, or that would be emptied, is an object without files."""
    path = store_path(out, spec, options.variants)
    if is_new(path):
        return Store(path, *head.Head(spec, describe(dataset, options.seed), {}, options.variants))
    store = open_by_head(path)
    require_same_root(store, dataset, "a dry run follows no moved files; else give this dataset a name with --name")
    # The store itself is then a sibling, from which the tracks have their splits.
    return Store(path.with_name(f"{path.name}.new"), *store.head) if options.rebuild else store


def _count(
    path: Place, exists: bool, dataset: Dataset, tracks: pa.Table, past: pa.Table, plan: planning.Plan
) -> StorePlan:
    """Count the files of a plan; a file with another time but the same bytes has not changed."""
    used = tracks
    if plan.left_out:
        omitted = pa.array(list(plan.left_out), pa.string())
        used = tracks.filter(pc.invert(pc.is_in(tracks["track_id"], value_set=omitted)))
    rows = Lookup(past["track_id"]).indices(used["track_id"])
    now, before = used.filter(rows.is_valid()), past.take(rows.drop_null())
    differs = rows_differ(before["size"], now["size"].combine_chunks())
    differs |= rows_differ(before["mtime_ns"], now["mtime_ns"].combine_chunks())
    absent = now["size"].is_null().to_numpy()
    suspects = np.flatnonzero(differs & ~absent)
    suspects = suspects[_are_decoded(now["track_id"].take(suspects), plan)]
    lookup = Lookup(tracks["track_id"])
    of_dataset = lookup.rows(now["track_id"].take(suspects))
    hashes = before["content_hash"].take(suspects).to_pylist()
    changed = sum(map(operator.ne, hashes, duplicates.digests(dataset, of_dataset)))
    gone = past.filter(pa.array(~lookup.contains(past["track_id"])))
    gone = pa.concat_tables([gone, before.filter(pa.array(absent))])
    known_as_missing = pc.fill_null(pc.equal(gone["reason"], "missing"), False)
    return StorePlan(
        store=path,
        exists=exists,
        new=len(used) - len(now),
        changed=changed,
        removed=len(gone.filter(pc.invert(known_as_missing))),
        unchanged=len(now) - changed - int(absent.sum()),
        left_out=len(plan.left_out),
        decode=plan.n_tracks,
    )


def _are_decoded(ids: pa.ChunkedArray, plan: planning.Plan) -> np.ndarray:
    """Return which tracks a plan decodes, bool `(ids,)`."""
    decoded = np.zeros(len(ids), bool)
    lookup = Lookup(ids)
    for tracks, _ in plan.batches if len(ids) else ():
        rows = lookup.rows(tracks.table()["track_id"])
        decoded[rows[rows >= 0]] = True
    return decoded


def report(plans: Sequence[StorePlan], total: estimate.Estimate | None) -> Mapping[str, Any]:
    """Return plans and their estimate as plain values."""
    return {"dry_run": True, "stores": [plan.as_dict() for plan in plans], "estimate": total and total.as_dict()}
