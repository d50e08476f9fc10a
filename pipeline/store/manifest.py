"""The manifest: fragments of finished shards joined, cut into slices, and published as one."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA, completed, stored
from mgc.pipeline.errors import StoreError
from mgc.pipeline.storage import files, remote
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.storage.servers import ServerError
from mgc.pipeline.store.slicing import SLICE_SCHEMA, Slicing, cut
from mgc.pipeline.store.store import FILES_KEY, Store

#: Tracks of a row group of the manifest, at least; the slice index has a row group for each of these.
GROUP_TRACKS = 8192


def write_fragment(store: Store, shard: int, rows: pa.Table, shard_files: Mapping[str, list]) -> None:
    """Record a finished shard: its manifest rows, and size and digest of each of its files."""
    metadata = {FILES_KEY: json.dumps(shard_files)}
    rows = rows.cast(MANIFEST_SCHEMA).select(_columns(store, MANIFEST_SCHEMA).names)
    files.write_table(store.fragment_path(shard), rows.replace_schema_metadata(metadata))


def _columns(store: Store, schema: pa.Schema) -> pa.Schema:
    return stored(schema, variants=bool(store.variants))


def read_fragment(store: Store, shard: int) -> pa.Table | None:
    """Manifest rows of a shard, its files in the schema metadata; None where the fragment is missing or damaged."""
    return _read(store, shard)[0]


def read_fragments(store: Store, shards: Iterable[int]) -> Iterator[pa.Table | None]:
    """What `read_fragment` returns for each of some shards."""
    return remote.several(lambda shard: read_fragment(store, shard), shards, store.path)


def require_fragments(store: Store, shards: Iterable[int]) -> Iterator[tuple[pa.Table, list]]:
    """What `read_fragment` returns for each of some shards, and `[size, digest]` of the fragment itself.

    Raises:
        StoreError: a fragment is missing or damaged.
    """

    def require(shard: int) -> tuple[pa.Table, list]:
        fragment, described = _read(store, shard)
        if fragment is None:
            problem = "damaged" if store.fragment_path(shard).exists() else "missing"
            raise StoreError(f"{store.fragment_path(shard)}: {problem}", "run `mgc extract --verify`: it repairs it")
        return fragment, described

    return remote.several(require, shards, store.path)


def _read(store: Store, shard: int) -> tuple[pa.Table | None, list]:
    """A fragment, None where it is missing or damaged; `[size, digest]` of its bytes, empty where there are none.

    One request: of a store at a URL there are as many as fragments.
    """
    path, described = store.fragment_path(shard), []
    try:
        data = path.read_bytes()
        described = [len(data), files.digest(data)]
        fragment = completed(files.read_table_bytes(data, path), MANIFEST_SCHEMA)
        fragment_files(fragment)
        return fragment if set(MANIFEST_SCHEMA.names) <= set(fragment.schema.names) else None, described
    except ServerError:  # there may be one
        raise
    except (OSError, KeyError, TypeError, ValueError):  # a damaged footer can be read as anything
        return None, described


def fragment_files(fragment: pa.Table) -> dict[str, list]:
    """`{file: [size, digest]}` of the shard that a fragment describes."""
    return json.loads(fragment.schema.metadata[FILES_KEY])


def intact(store: Store, shard_files: Mapping[str, list], sizes: Mapping[str, int] | None = None) -> bool:
    """Whether all files of a shard are there at their full size: what a look without reading can tell.

    Args:
        store: the store.
        shard_files: `{file: [size, digest]}`.
        sizes: of every file among the shards, where they have been listed; by default the file system is asked.
    """
    if sizes is not None:
        return bool(shard_files) and all(sizes.get(name) == size for name, (size, _) in shard_files.items())
    folder = f"{store.path}/shards"
    for name, (size, _) in shard_files.items():
        try:
            if os.stat(f"{folder}/{name}").st_size != size:  # noqa: PTH116  three times as fast as Path.stat
                return False
        except OSError:
            return False
    return bool(shard_files)


def publish(store: Store, slicing: Slicing, *, require_slices: bool = False) -> None:
    """Join all fragments, cut them, and write manifest and slice index; the journal of the extraction goes last.

    Memory holds the tracks of one row group, whatever the size of the store.

    Args:
        store: the store, locked by the caller.
        slicing: how to cut; what has one frame per track is not cut.
        require_slices: change nothing and raise where no track is long enough for one slice.

    Raises:
        StoreError: a fragment is damaged, or `require_slices` does not hold.
    """
    slicing = slicing.fitted(store.spec)
    shard_files: dict[str, dict[str, list]] = {}
    n_slices = n_framed = 0
    longest = 0.0
    of_tracks, of_slices = (_columns(store, schema) for schema in (MANIFEST_SCHEMA, SLICE_SCHEMA))
    with (
        files.TableWriter(store.path / "tracks.parquet", of_tracks) as manifest,
        files.TableWriter(store.path / "slices.parquet", of_slices) as index,
    ):
        for tracks, slices, found in join(store, slicing):
            manifest.write(tracks.select(of_tracks.names))
            index.write(slices.select(of_slices.names))
            shard_files |= found
            n_slices += len(slices)
            framed = tracks["duration_s"].filter(pc.greater(tracks["n_frames"], 0))
            longest = max(longest, pc.max(framed).as_py() or 0.0)
            n_framed += len(framed)
        if require_slices and n_framed and not n_slices:
            problem = f"{store.path}: no track holds one slice ({slicing}); the longest has {longest:.1f} s"
            raise StoreError(problem, "choose a shorter slice")
        digests = {"tracks.parquet": manifest.finish({FILES_KEY: json.dumps(shard_files)})}
        digests["slices.parquet"] = index.finish()
        manifest.install()
        index.install()
    # Last: a kill between these writes leaves digests that do not match, which is noticed when the store is read.
    files.write_sealed(store.path / "published.json", {"slicing": slicing.as_dict(), "digests": digests})
    store.plan_path.unlink(missing_ok=True)
    files.sync_folder(store.path)


def join(store: Store, slicing: Slicing) -> Iterator[tuple[pa.Table, pa.Table, dict[str, dict[str, list]]]]:
    """The manifest and its slices, by some shards at a time: what becomes a row group of either.

    A track whose frames hold no slice is dropped as `too-short`, or as `non-finite` where a gap is why.

    Yields:
        Tracks (`MANIFEST_SCHEMA`) of shards that follow each other, their slices (`SLICE_SCHEMA`), and the files of
        each shard: `{shard: {file: [size, digest]}}`.

    Raises:
        StoreError: a fragment is missing or damaged.
    """
    for tracks, shard_files in _gathered(store):
        slices = cut(slicing, store.spec, tracks.filter(pc.equal(tracks["status"], "ok")))
        yield _drop_uncut(tracks, slices, slicing, store), slices, shard_files


def _gathered(store: Store) -> Iterator[tuple[pa.Table, dict[str, dict[str, list]]]]:
    """The fragments, joined until they have `GROUP_TRACKS` tracks: that depends on nothing but what they hold."""
    tables: list[pa.Table] = []
    shard_files = {}
    waiting = 0
    shards = known_shards(store)
    for shard, (fragment, described) in zip(shards, require_fragments(store, shards), strict=True):
        tables.append(fragment.replace_schema_metadata())
        shard_files[f"{shard:05d}"] = fragment_files(fragment) | {store.fragment_path(shard).name: described}
        waiting += len(fragment)
        if waiting >= GROUP_TRACKS:
            yield pa.concat_tables(tables).combine_chunks(), shard_files
            tables, shard_files, waiting = [], {}, 0
    if tables:
        yield pa.concat_tables(tables).combine_chunks(), shard_files


def known_shards(store: Store) -> list[int]:
    """Shards with a fragment, and those that should have one: in the manifest so far, or with frames on disk.

    At a URL, frames without a fragment are what an interrupted upload left, and mean nothing.
    """
    recorded: set[int] = set()
    with contextlib.suppress(StoreError):
        recorded = {int(shard) for shard in store.shard_files()}
    framed = [] if isinstance(store.path, RemotePath) else store.shards()
    return sorted({*store.fragments(), *framed, *recorded})


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


def history(store: Store, columns: list[str] = MANIFEST_SCHEMA.names) -> pa.Table:
    """Every track the store has seen (`MANIFEST_SCHEMA`, or some of its columns, `track_id` among them).

    That is the manifest; where an extraction is unfinished, the fragments, the journal, then an earlier manifest.
    """
    if not store.unfinished:
        with contextlib.suppress(StoreError):
            return store.read_tracks(columns).replace_schema_metadata()
    known = list(read_fragments(store, store.fragments()))
    known += [readable_rows(store.plan_path), readable_rows(store.path / "tracks.parquet")]
    tables = [table.select(columns).replace_schema_metadata() for table in known if table is not None]
    rows = pa.concat_tables([MANIFEST_SCHEMA.empty_table().select(columns), *tables]).combine_chunks()
    ids = rows["track_id"].combine_chunks()
    return rows.filter(pc.equal(pc.index_in(ids, ids), np.arange(len(ids), dtype=np.int32)))  # the first of each


def readable_rows(path: Place) -> pa.Table | None:
    """A table of manifest rows; None where there is none to be had."""
    try:
        table = files.read_table(path)
    except ServerError:  # there may be one
        raise
    except OSError:
        return None
    table = completed(table, MANIFEST_SCHEMA)
    return table if set(MANIFEST_SCHEMA.names) <= set(table.schema.names) else None
