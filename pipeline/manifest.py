"""The manifest: fragments of finished shards joined, cut into slices, and published as one."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import files
from pipeline.errors import StoreError
from pipeline.slicing import Slicing, cut
from pipeline.store import FILES_KEY, Store
from pipeline.tracks import MANIFEST_SCHEMA


def write_fragment(store: Store, shard: int, rows: pa.Table, shard_files: Mapping[str, list]) -> None:
    """Record a finished shard: its manifest rows, and size and digest of each of its files."""
    metadata = {FILES_KEY: json.dumps(shard_files)}
    files.write_table(store.fragment_path(shard), rows.cast(MANIFEST_SCHEMA).replace_schema_metadata(metadata))


def read_fragment(store: Store, shard: int) -> pa.Table | None:
    """Manifest rows of a shard, its files in the schema metadata; None where the fragment is missing or damaged."""
    try:
        fragment = files.read_table(store.fragment_path(shard))
        fragment_files(fragment)
        return fragment if set(MANIFEST_SCHEMA.names) <= set(fragment.schema.names) else None
    except (OSError, KeyError, TypeError, ValueError):  # a damaged footer can be read as anything
        return None


def require_fragment(store: Store, shard: int) -> pa.Table:
    """What `read_fragment` returns.

    Raises:
        StoreError: the fragment is missing or damaged.
    """
    fragment = read_fragment(store, shard)
    if fragment is None:
        problem = "damaged" if store.fragment_path(shard).exists() else "missing"
        raise StoreError(f"{store.fragment_path(shard)}: {problem}", "run `mgc extract --verify`: it repairs it")
    return fragment


def fragment_files(fragment: pa.Table) -> dict[str, list]:
    """`{file: [size, digest]}` of the shard that a fragment describes."""
    return json.loads(fragment.schema.metadata[FILES_KEY])


def intact(store: Store, shard_files: Mapping[str, list]) -> bool:
    """Whether all files of a shard are there at their full size: what a look without reading can tell."""
    folder = os.fspath(store.path / "shards")
    for name, (size, _) in shard_files.items():
        try:
            if os.stat(f"{folder}/{name}").st_size != size:  # noqa: PTH116  three times as fast as Path.stat
                return False
        except OSError:
            return False
    return bool(shard_files)


def publish(store: Store, slicing: Slicing, *, require_slices: bool = False) -> None:
    """Join all fragments, cut them, and write manifest and slice index; the journal of the extraction goes last.

    Args:
        store: the store, locked by the caller.
        slicing: how to cut; what has one frame per track is not cut.
        require_slices: change nothing and raise where no track is long enough for one slice.

    Raises:
        StoreError: a fragment is damaged, or `require_slices` does not hold.
    """
    slicing = slicing.fitted(store.spec)
    tracks, slices = join(store, slicing)
    if require_slices and not len(slices) and pc.any(pc.greater(tracks["n_frames"], 0)).as_py():
        longest = pc.max(tracks["duration_s"]).as_py()
        problem = f"{store.path}: no track holds one slice ({slicing}); the longest has {longest:.1f} s"
        raise StoreError(problem, "choose a shorter slice")
    data = {"tracks.parquet": files.table_bytes(tracks), "slices.parquet": files.table_bytes(slices)}
    for name, content in data.items():
        files.write_bytes(store.path / name, content)
    # Last: a kill between these writes leaves digests that do not match, which is noticed when the store is read.
    digests = {name: files.digest(content) for name, content in data.items()}
    files.write_sealed(store.path / "published.json", {"slicing": slicing.as_dict(), "digests": digests})
    store.plan_path.unlink(missing_ok=True)
    files.sync_folder(store.path)


def join(store: Store, slicing: Slicing) -> tuple[pa.Table, pa.Table]:
    """The manifest (`MANIFEST_SCHEMA`, the files of each shard in its metadata) and its slices (`SLICE_SCHEMA`).

    A track whose frames hold no slice is dropped as `too-short`, or as `non-finite` where a gap is why.

    Raises:
        StoreError: a fragment is missing or damaged.
    """
    tables, shard_files = [MANIFEST_SCHEMA.empty_table()], {}
    for shard in known_shards(store):
        fragment = require_fragment(store, shard)
        tables.append(fragment.replace_schema_metadata())
        shard_files[f"{shard:05d}"] = _with_fragment(store, shard, fragment)
    tracks = pa.concat_tables(tables).combine_chunks()
    slices = cut(slicing, store.spec, tracks.filter(pc.equal(tracks["status"], "ok")))
    tracks = _drop_uncut(tracks, slices, slicing, store)
    return tracks.replace_schema_metadata({FILES_KEY: json.dumps(shard_files)}), slices


def known_shards(store: Store) -> list[int]:
    """Shards with a fragment, and those that should have one: in the manifest so far, or with frames on disk."""
    recorded: set[int] = set()
    with contextlib.suppress(StoreError):
        recorded = {int(shard) for shard in store.shard_files()}
    return sorted({*store.fragments(), *store.shards(), *recorded})


def _with_fragment(store: Store, shard: int, fragment: pa.Table) -> dict[str, list]:
    path = store.fragment_path(shard)
    return fragment_files(fragment) | {path.name: [path.stat().st_size, files.file_digest(path)]}


def _drop_uncut(tracks: pa.Table, slices: pa.Table, slicing: Slicing, store: Store) -> pa.Table:
    """The manifest with healthy tracks that hold no slice marked as dropped."""
    ok = pc.equal(tracks["status"], "ok")
    uncut = pc.and_(ok, pc.invert(pc.is_in(tracks["track_id"], value_set=slices["track_id"].combine_chunks())))
    if not pc.any(uncut).as_py():
        return tracks
    gaps = pc.fill_null(pc.greater(pc.list_value_length(tracks["gaps"]), 0), False)
    long_enough = pc.greater_equal(tracks["duration_s"], slicing.offset + slicing.length_s(store.spec))
    reason = pc.if_else(pc.and_(gaps, long_enough), "non-finite", "too-short")
    needed = f"no slice fits ({slicing})"
    detail = pc.if_else(
        pc.is_valid(tracks["detail"]), pc.binary_join_element_wise(tracks["detail"], pa.scalar(needed), "; "), needed
    )
    for name, value in (("status", pa.scalar("dropped")), ("reason", reason), ("detail", detail)):
        tracks = _set(tracks, name, pc.if_else(uncut, value, tracks[name]))
    return tracks


def _set(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
