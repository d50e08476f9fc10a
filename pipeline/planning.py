"""What an extraction has to do: the dataset as it is now, held against what a store has seen."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import audio, files, manifest, verify
from pipeline.datasets import Dataset
from pipeline.errors import StoreError
from pipeline.features import FeatureSpec
from pipeline.store import Store
from pipeline.tracks import DATASET_SCHEMA, MANIFEST_SCHEMA, SPLITS, unescape

#: A deal is what one worker decodes: at most so many tracks, and so much audio as its file sizes suggest.
DEAL_TRACKS = 64
DEAL_SECONDS = 24 * 60
#: Raw frames of one shard; a feature with more of them per second cuts a deal into 2, 4, 8 ... shards.
SHARD_BYTES = 64_000_000
#: Bytes per second of audio that file names suggest where the metadata has no bit rate: 192 kbit/s, CD mono, FLAC.
_BYTES_PER_SECOND = {".wav": 88_200, ".aif": 88_200, ".aiff": 88_200, ".au": 88_200, ".flac": 100_000}
_COMPRESSED = 24_000

#: The journal's columns: manifest rows, and whether their shard is to be extracted or only its fragment rewritten.
PLAN_SCHEMA = pa.schema([*MANIFEST_SCHEMA, pa.field("extract", pa.bool_())])

Shards = list[tuple[int, int, int]]


@dataclass
class Plan:
    """What to do in one store.

    Attributes:
        deals: tracks (`DATASET_SCHEMA`) to decode together, and the shards `(shard, first, stop)` they fill.
        fragments: rewritten manifest rows (`MANIFEST_SCHEMA`) of shards whose frames stay, by shard.
        notes: what changed, for people.
    """

    deals: list[tuple[pa.Table, Shards]] = field(default_factory=list)
    fragments: dict[int, pa.Table] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def tracks(self) -> int:
        """Tracks to decode."""
        return sum(len(tracks) for tracks, _ in self.deals)

    def __bool__(self) -> bool:
        return bool(self.deals or self.fragments)


def history(store: Store) -> pa.Table:
    """Every track the store has seen (`MANIFEST_SCHEMA`).

    That is the manifest; where an extraction is unfinished, the fragments, the journal, then an earlier manifest.
    """
    if not store.unfinished:
        with contextlib.suppress(StoreError):
            return store.tracks.replace_schema_metadata()
    known = [manifest.read_fragment(store, shard) for shard in store.fragments()]
    known += [_readable(store.plan_path), _readable(store.path / "tracks.parquet")]
    tables = [table.select(MANIFEST_SCHEMA.names).replace_schema_metadata() for table in known if table is not None]
    rows = pa.concat_tables([MANIFEST_SCHEMA.empty_table(), *tables]).combine_chunks()
    ids = rows["track_id"].combine_chunks()
    return rows.filter(pc.equal(pc.index_in(ids, ids), pa.array(range(len(ids)), pa.int32())))  # the first of each


def compare(store: Store, dataset: Dataset, tracks: pa.Table, *, thorough: bool = False) -> Plan:
    """The work that makes the store agree with the dataset.

    Args:
        store: the store, locked by the caller.
        dataset: for its root.
        tracks: the dataset's track table with splits assigned.
        thorough: check every byte of every shard, not only that its files are there at their full size.
    """
    past, seed = history(store), store.dataset["seed"]
    plan = Plan()
    at = pc.index_in(past["track_id"], tracks["track_id"].combine_chunks())
    changes, redo = _changed_tracks(dataset, tracks, past, at)
    broken = _broken_shards(store, past, thorough)
    redo |= broken
    if broken and not store.unfinished:
        plan.notes.append(f"{len(broken)} damaged or incomplete shards are extracted again")
    _count(plan, changes)
    by_shard: dict[int, dict[str, dict]] = {}
    for track_id, (shard, values) in changes.items():
        by_shard.setdefault(shard, {})[track_id] = values
    for shard in sorted(by_shard.keys() - redo):
        fragment = manifest.read_fragment(store, shard)
        if fragment is None:
            redo.add(shard)
        else:
            rows = [row | by_shard[shard].get(row["track_id"], {}) for row in fragment.to_pylist()]
            plan.fragments[shard] = pa.Table.from_pylist(rows, MANIFEST_SCHEMA)
    for shard in sorted(redo):
        held = past.filter(pc.equal(past["shard"], shard))
        plan.deals.append((_refreshed(held, tracks, seed), [(shard, 0, len(held))]))
    new = tracks.filter(pc.invert(pc.is_in(tracks["track_id"], value_set=past["track_id"].combine_chunks())))
    if len(past) and len(new):
        plan.notes.append(f"{len(new)} new tracks")
    following = 1 + (pc.max(past["shard"]).as_py() if len(past) else -1)
    for dealt in deal(new, _signatures(dataset, new)[0], seed):
        shards = _shards(len(dealt), store.spec, following)
        following = shards[-1][0] + 1
        plan.deals.append((dealt, shards))
    return plan


def write_journal(store: Store, plan: Plan) -> None:
    """Write down what is going to be done, then forget the fragments of the shards that are to be extracted."""
    tables = [rows.append_column("extract", pa.repeat(False, len(rows))) for rows in plan.fragments.values()]
    pending = []
    for tracks, shards in plan.deals:
        for shard, first, stop in shards:
            pending.append(shard)
            rows = tracks.slice(first, stop - first).to_pylist()
            rows = [dict.fromkeys(MANIFEST_SCHEMA.names) | row | {"shard": shard, "extract": True} for row in rows]
            tables.append(pa.Table.from_pylist(rows, PLAN_SCHEMA))
    files.write_table(
        store.plan_path, pa.concat_tables([PLAN_SCHEMA.empty_table(), *(t.cast(PLAN_SCHEMA) for t in tables)])
    )
    for shard in pending:
        store.fragment_path(shard).unlink(missing_ok=True)


def rewrite_fragments(store: Store, fragments: dict[int, pa.Table]) -> None:
    """Give shards their new manifest rows; their frames stay."""
    for shard, rows in fragments.items():
        old = manifest.read_fragment(store, shard)
        if old is not None:
            manifest.write_fragment(store, shard, rows, manifest.fragment_files(old))


def finish_rewrites(store: Store) -> None:
    """Do what an interrupted run had written down to do without decoding: each rewrite may be done again."""
    journal = _readable(store.plan_path)
    if journal is None:
        return
    rows = journal.filter(pc.invert(journal["extract"])).select(MANIFEST_SCHEMA.names)
    shards = pc.unique(rows["shard"]).to_pylist()
    rewrite_fragments(store, {shard: rows.filter(pc.equal(rows["shard"], shard)) for shard in shards})


def deal(tracks: pa.Table, sizes: list[int | None], seed: int) -> list[pa.Table]:
    """Cut tracks into deals: by split, then in an order that depends on seed and track alone."""
    rows = tracks.to_pylist()
    order = sorted(range(len(rows)), key=lambda i: _deal_key(rows[i], seed))
    deals: list[list[int]] = []
    for _, group in itertools.groupby(order, key=lambda i: rows[i]["split"]):
        held: list[int] = []
        seconds = 0.0
        for i in group:
            estimate = _estimated_seconds(rows[i], sizes[i])
            if held and (len(held) == DEAL_TRACKS or seconds + estimate > DEAL_SECONDS):
                deals.append(held)
                held, seconds = [], 0.0
            held.append(i)
            seconds += estimate
        deals.append(held)
    return [tracks.take(pa.array(held, pa.int64())) for held in deals]


def _shards(n_tracks: int, spec: FeatureSpec, first_shard: int) -> Shards:
    """A deal's shards: one, or 2, 4, 8 ... equal parts where the feature is heavy."""
    itemsize = np.dtype(spec.dtype).itemsize
    parts = 1
    while DEAL_SECONDS * spec.frame_rate * spec.bins * itemsize > parts * SHARD_BYTES and parts < n_tracks:
        parts *= 2
    edges = [n_tracks * part // parts for part in range(parts + 1)]
    return [(first_shard + k, a, b) for k, (a, b) in enumerate((a, b) for a, b in itertools.pairwise(edges) if b > a)]


def _estimated_seconds(row: dict, size: int | None) -> float:
    if row["bit_rate"]:
        return (size or 0) * 8 / row["bit_rate"]
    return (size or 0) / _BYTES_PER_SECOND.get(os.path.splitext(row["path"])[1].lower(), _COMPRESSED)  # noqa: PTH122


def _deal_key(row: dict, seed: int) -> tuple[int, bytes]:
    split = SPLITS.index(row["split"]) if row["split"] in SPLITS else len(SPLITS)
    return split, hashlib.sha256(f"{seed}/{row['track_id']}".encode()).digest()


def _changed_tracks(
    dataset: Dataset, tracks: pa.Table, past: pa.Table, at: pa.ChunkedArray
) -> tuple[dict[str, tuple[int, dict]], set[int]]:
    """What is different: `{track_id: (shard, new values)}` where frames stay, and the shards to be extracted again."""
    changes: dict[str, tuple[int, dict]] = {}
    redo: set[int] = set()
    here = pc.is_valid(at)
    known, now = past.filter(here), tracks.take(at.drop_null())
    sizes, times = _signatures(dataset, now)
    moved = _differ(known["path"], now["path"])
    moved |= _differ(known["size"], pa.array(sizes, pa.int64())) | _differ(
        known["mtime_ns"], pa.array(times, pa.int64())
    )
    missing = pc.indices_nonzero(pc.fill_null(pc.equal(known["reason"], "missing"), False)).to_pylist()
    moved |= {i for i in missing if sizes[i] is not None}
    relabelled = set().union(*(_differ(known[name], now[name]) for name in DATASET_SCHEMA.names))
    retried = set(pc.indices_nonzero(pc.fill_null(pc.equal(known["reason"], "unreadable"), False)).to_pylist())
    for i in sorted(moved | relabelled | retried):
        row, labels = known.slice(i, 1).to_pylist()[0], now.slice(i, 1).to_pylist()[0]
        values = labels if i in relabelled else {}
        if i in moved or i in retried:
            path = os.path.join(os.fsencode(dataset.root), unescape(labels["path"]))  # noqa: PTH118  need not be text
            values = _moved(path, row, sizes[i], times[i], values, retried=i in retried and i not in moved)
        if values is None:
            redo.add(row["shard"])
        elif values:
            changes[row["track_id"]] = row["shard"], values
    for row in past.filter(pc.invert(here)).select(["track_id", "shard", "reason", "n_frames"]).to_pylist():
        if row["reason"] != "missing":
            changes[row["track_id"]] = row["shard"], _missing(row)
    return changes, redo


def _missing(row: dict) -> dict:
    """New values of a track that is no longer there. Where its frames stay, so does what is known of them."""
    gone = {"status": "dropped", "reason": "missing"}
    return gone if row["n_frames"] else gone | {"detail": None}


def _moved(path: bytes, row: dict, size: int | None, mtime: int | None, values: dict, *, retried: bool) -> dict | None:
    """New values of a track whose file has another name, size or time; None where it must be decoded again."""
    if retried:
        return None if os.access(path, os.R_OK) else values
    if size is None:
        if row["reason"] == "missing":
            return values
        return values | (_missing(row) if row["n_frames"] else {"size": None, "mtime_ns": None})
    if row["reason"] == "missing" and not row["n_frames"]:
        return None
    try:
        content_hash = audio.inspect(path).content_hash
    except audio.Unusable:
        return None
    if content_hash != row["content_hash"]:
        return None
    back = {"status": "ok", "reason": None} if row["reason"] == "missing" else {}
    return values | back | {"size": size, "mtime_ns": mtime}


def _broken_shards(store: Store, past: pa.Table, thorough: bool) -> set[int]:
    """Shards without a fragment, or with files that are missing, cut short or (if `thorough`) changed."""
    fragments = set(store.fragments())
    recorded = {}
    if not store.unfinished:
        with contextlib.suppress(StoreError):
            recorded = store.shard_files()
    broken = set()
    for shard in pc.unique(past["shard"]).to_pylist():
        shard_files = recorded.get(f"{shard:05d}")
        if shard_files is None:
            fragment = manifest.read_fragment(store, shard)
            shard_files = manifest.fragment_files(fragment) if fragment is not None else {}
        intact = shard in fragments and manifest.intact(store, shard_files)
        if not intact or (thorough and any(verify.shard_problems(store, shard, shard_files))):
            broken.add(shard)
    return broken


def _refreshed(rows: pa.Table, tracks: pa.Table, seed: int) -> pa.Table:
    """Rows of a shard with the labels of today, in the order in which they were dealt."""
    today = tracks.filter(pc.is_in(tracks["track_id"], value_set=rows["track_id"].combine_chunks()))
    by_id = {row["track_id"]: row for row in rows.select(DATASET_SCHEMA.names).to_pylist()}
    by_id |= {row["track_id"]: row for row in today.to_pylist()}
    # By hash alone: a split may have been reassigned since, which must not reorder the shard.
    ordered = sorted(by_id.values(), key=lambda row: _deal_key(row, seed)[1])
    return pa.Table.from_pylist(ordered, DATASET_SCHEMA)


def _count(plan: Plan, changes: dict[str, tuple[int, dict]]) -> None:
    gone = sum(values.get("reason") == "missing" for _, values in changes.values())
    if gone:
        plan.notes.append(f"{gone} tracks are no longer there")


def _signatures(dataset: Dataset, tracks: pa.Table) -> tuple[list[int | None], list[int | None]]:
    """Size and modification time of each track's file; None where there is no regular file."""
    root = os.fsencode(dataset.root)
    sizes: list[int | None] = []
    times: list[int | None] = []
    for path in tracks["path"].to_pylist():
        try:
            found = audio.status(os.path.join(root, unescape(path)))  # noqa: PTH118  names need not be text
        except audio.Unusable:
            sizes.append(None)
            times.append(None)
        else:
            sizes.append(found.st_size)
            times.append(found.st_mtime_ns)
    return sizes, times


def _differ(left: pa.ChunkedArray, right: Iterable) -> set[int]:
    """Rows in which two columns differ; two nulls are equal."""
    a, b = left.combine_chunks(), right.combine_chunks() if isinstance(right, pa.ChunkedArray) else right
    equal = pc.fill_null(pc.equal(a, b), False)
    both_null = pc.and_(pc.is_null(a), pc.is_null(b))
    return set(pc.indices_nonzero(pc.invert(pc.or_(equal, both_null))).to_pylist())


def _readable(path: Path) -> pa.Table | None:
    """A table of manifest rows; None where there is none to be had."""
    try:
        table = files.read_table(path)
    except OSError:
        return None
    return table if set(MANIFEST_SCHEMA.names) <= set(table.schema.names) else None


def relabel(store: Store, tracks: pa.Table) -> Plan:
    """The fragments that give a store's tracks the labels and splits of a track table (`DATASET_SCHEMA`).

    Raises:
        StoreError: a fragment is missing or damaged.
    """
    rows = {row["track_id"]: row for row in tracks.to_pylist()}
    plan = Plan()
    for shard in manifest.known_shards(store):
        old = manifest.require_fragment(store, shard).to_pylist()
        new = [row | rows.get(row["track_id"], {}) for row in old]
        if new != old:
            plan.fragments[shard] = pa.Table.from_pylist(new, MANIFEST_SCHEMA)
    return plan
