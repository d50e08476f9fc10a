"""The manifest of a store: fragments with the rows of one shard each, joined and published as one table."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA, stored_schema, with_optional_columns
from mgc.pipeline.errors import SpecError, StoreError
from mgc.pipeline.storage import concurrency, files, parquet
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.storage.servers import ServerError
from mgc.pipeline.store import head
from mgc.pipeline.store.cuts import Cut, describe_cuts, with_default
from mgc.pipeline.store.cutting import cut
from mgc.pipeline.store.slicing import SLICE_SCHEMA, Slicing
from mgc.pipeline.store.store import FILES_KEY, Store

#: Least number of tracks in a row group of the manifest. The slice index has one row group for each of these.
GROUP_TRACKS = 8192


def write_fragment(store: Store, shard: int, rows: pa.Table, shard_files: Mapping[str, list]) -> None:
    """Write the fragment of a finished shard.

    Args:
        store: the store.
        shard: number of the shard.
        rows: manifest rows (`MANIFEST_SCHEMA`) of the tracks in the shard.
        shard_files: `{file: [size, digest]}` of the shard.
    """
    metadata = {FILES_KEY: json.dumps(shard_files)}
    rows = rows.cast(MANIFEST_SCHEMA).select(_columns(store, MANIFEST_SCHEMA).names)
    parquet.write_table(store.fragment_path(shard), rows.replace_schema_metadata(metadata))


def _columns(store: Store, schema: pa.Schema) -> pa.Schema:
    """Return the part of a schema that this store's files have."""
    return stored_schema(schema, variants=bool(store.variants))


def read_fragment(store: Store, shard: int) -> pa.Table | None:
    """Read the fragment of a shard.

    Returns:
        Manifest rows (`MANIFEST_SCHEMA`), with the shard's files in the schema metadata (see `fragment_files`); None
        if the fragment is missing or damaged.
    """
    return _read(store, shard)[0]


def read_fragments(store: Store, shards: Iterable[int]) -> Iterator[pa.Table | None]:
    """Yield the result of `read_fragment` for each shard, in order; at a URL several are read at a time."""
    return concurrency.map_requests(lambda shard: read_fragment(store, shard), shards, store.path)


def require_fragments(store: Store, shards: Iterable[int]) -> Iterator[tuple[pa.Table, list]]:
    """Yield the fragment of each shard, in order, with `[size, digest]` of the fragment's own file.

    Raises:
        StoreError: a fragment is missing or damaged.
    """

    def require(shard: int) -> tuple[pa.Table, list]:
        fragment, size_and_digest = _read(store, shard)
        if fragment is None:
            problem = "damaged" if store.fragment_path(shard).exists() else "missing"
            raise StoreError(f"{store.fragment_path(shard)}: {problem}", store.repair_remedy)
        return fragment, size_and_digest

    return concurrency.map_requests(require, shards, store.path)


def _read(store: Store, shard: int) -> tuple[pa.Table | None, list]:
    """Read the fragment of a shard with a single request: a store at a URL can have thousands of fragments.

    Returns:
        The fragment, or None if it is missing or damaged; `[size, digest]` of its file, empty if it cannot be read.
    """
    path, size_and_digest = store.fragment_path(shard), []
    try:
        data = path.read_bytes()
        size_and_digest = [len(data), files.digest(data)]
        fragment = with_optional_columns(parquet.read_table_bytes(data, path), MANIFEST_SCHEMA)
        fragment_files(fragment)
        return fragment if set(MANIFEST_SCHEMA.names) <= set(fragment.schema.names) else None, size_and_digest
    except ServerError:  # does not tell whether the fragment exists
        raise
    except (OSError, KeyError, TypeError, ValueError):  # a damaged footer makes Parquet readers raise any of these
        return None, size_and_digest


def fragment_files(fragment: pa.Table) -> dict[str, list]:
    """Return `{file: [size, digest]}` of a fragment's shard, from the schema metadata of the fragment."""
    return json.loads(fragment.schema.metadata[FILES_KEY])


def has_complete_files(store: Store, shard_files: Mapping[str, list], sizes: Mapping[str, int] | None = None) -> bool:
    """Return whether all files of a shard exist and have their full size; no file is read.

    Args:
        store: the store.
        shard_files: `{file: [size, digest]}` of the shard. An empty mapping counts as incomplete.
        sizes: size in bytes of every file in the `shards` folder; None asks the file system for each file.
    """
    if sizes is not None:
        return bool(shard_files) and all(sizes.get(name) == size for name, (size, _) in shard_files.items())
    folder = f"{store.path}/shards"
    for name, (size, _) in shard_files.items():
        try:
            if os.stat(f"{folder}/{name}").st_size != size:  # noqa: PTH116  takes a third of the time of Path.stat
                return False
        except OSError:
            return False
    return bool(shard_files)


def known_cuts(store: Store) -> tuple[Cut, ...]:
    """Return the cuts of a store, the default first; empty for a new one.

    If `published.json` is lost or damaged, they are read from the copy of a store that is being rebuilt, or from the
    slice indices; of those that an earlier version wrote, nothing can be read, and the default may then be missing.
    """
    with contextlib.suppress(StoreError):
        return store.cuts
    with contextlib.suppress(StoreError):
        return Store.open(store.path.with_name(f"{store.path.name}.old")).cuts
    cuts = []
    indices: list[Place] = [store.path / "slices.parquet", *store.path.glob("slices-*.parquet")]
    for path in sorted(indices, key=str, reverse=True):  # `slices.parquet`, the default, first
        try:
            cut = Cut.from_metadata(parquet.read_metadata(path), default=path.name == "slices.parquet")
        except ServerError:  # does not tell whether the file exists
            raise
        except (OSError, KeyError, TypeError, ValueError, SpecError):
            continue
        if cut.file == path.name:
            cuts.append(cut)
    return tuple(cuts)


def publish(store: Store, slicing: Slicing) -> None:
    """Publish a store with this slicing as its default cut; other cuts than the default stay. See `publish_cuts`."""
    slicing = slicing.fitted(store.spec)
    others = [cut for cut in known_cuts(store) if cut.slicing == slicing or not cut.default]
    publish_cuts(store, with_default(others, slicing))


def publish_cuts(store: Store, cuts: Sequence[Cut], require_slices: Collection[str] = ()) -> None:
    """Join all fragments, cut the tracks into slices, and write manifest, slice indices and `published.json`.

    The journal of the extraction is removed last. Memory holds the tracks of one row group, whatever the size of the
    store.

    Args:
        store: the store, locked by the caller.
        cuts: how to cut the tracks; the first is the default. Slice indices of other cuts are removed.
        require_slices: names of cuts; if no track is long enough for a slice of one, raise, and change nothing.

    Raises:
        StoreError: a fragment is missing or damaged, or a cut of `require_slices` has no slices.
    """
    shard_files: dict[str, dict[str, list]] = {}
    n_slices, n_with_frames, longest = [0] * len(cuts), 0, 0.0
    track_schema, slice_schema = (_columns(store, schema) for schema in (MANIFEST_SCHEMA, SLICE_SCHEMA))
    with contextlib.ExitStack() as stack:
        manifest = stack.enter_context(parquet.TableWriter(store.path / "tracks.parquet", track_schema))
        indices = [stack.enter_context(parquet.TableWriter(store.path / cut.file, slice_schema)) for cut in cuts]
        for tracks, slices, group_files in join_fragments(store, [cut.slicing for cut in cuts]):
            manifest.write(tracks.select(track_schema.names))
            for number, (index, table) in enumerate(zip(indices, slices, strict=True)):
                index.write(table.select(slice_schema.names))
                n_slices[number] += len(table)
            shard_files |= group_files
            durations = tracks["duration_s"].filter(pc.greater(tracks["n_frames"], 0))
            longest = max(longest, pc.max(durations).as_py() or 0.0)
            n_with_frames += len(durations)
        for cut, count in zip(cuts, n_slices, strict=True):
            if cut.name in require_slices and n_with_frames and not count:
                problem = f"{store.path}: no track holds one slice ({cut.slicing}); the longest has {longest:.1f} s"
                raise StoreError(problem, "choose a shorter slice")
        digests = {"tracks.parquet": manifest.finish({FILES_KEY: json.dumps(shard_files)})}
        digests |= {cut.file: index.finish(cut.metadata()) for cut, index in zip(cuts, indices, strict=True)}
        for writer in (manifest, *indices):
            writer.commit()
    # Written after the tables: if the process is killed in between, the digests in the old `published.json` do not
    # match the new tables, and readers report that.
    publication = describe_cuts(cuts) | {"digests": digests, head.COPY_KEY: head.as_dict(store.head)}
    files.write_json_with_digest(store.path / "published.json", publication)
    store.journal_path.unlink(missing_ok=True)
    for path in store.path.glob("slices-*.parquet"):
        if path.name not in digests:
            path.unlink(missing_ok=True)
    files.sync_folder(store.path)


def join_fragments(
    store: Store, slicings: Sequence[Slicing]
) -> Iterator[tuple[pa.Table, list[pa.Table], dict[str, dict[str, list]]]]:
    """Join the fragments and cut their tracks into slices, one row group at a time.

    A track that is too short for a slice of the first slicing is dropped as `too-short`; one that is long enough, but
    has a gap in every possible slice, as `non-finite`.

    Yields:
        Tracks (`MANIFEST_SCHEMA`) of a few consecutive shards, their slices (`SLICE_SCHEMA`) by each slicing, and the
        files of each of these shards: `{shard: {file: [size, digest]}}`.

    Raises:
        StoreError: a fragment is missing or damaged.
    """
    for tracks, shard_files in _row_groups(store):
        usable = tracks.filter(pc.equal(tracks["status"], "ok"))
        slices = [cut(slicing, store.spec, usable) for slicing in slicings]
        yield drop_uncut(tracks, slices[0], slicings[0], store), slices, shard_files


def _row_groups(store: Store) -> Iterator[tuple[pa.Table, dict[str, dict[str, list]]]]:
    """Yield consecutive fragments joined to at least `GROUP_TRACKS` tracks, and their files by shard.

    The boundaries depend on the fragments alone, so the same fragments give the same manifest bytes.
    """
    tables: list[pa.Table] = []
    shard_files = {}
    n_tracks = 0
    shards = expected_shards(store)
    for shard, (fragment, size_and_digest) in zip(shards, require_fragments(store, shards), strict=True):
        tables.append(fragment.replace_schema_metadata())
        shard_files[f"{shard:05d}"] = fragment_files(fragment) | {store.fragment_path(shard).name: size_and_digest}
        n_tracks += len(fragment)
        if n_tracks >= GROUP_TRACKS:
            yield pa.concat_tables(tables).combine_chunks(), shard_files
            tables, shard_files, n_tracks = [], {}, 0
    if tables:
        yield pa.concat_tables(tables).combine_chunks(), shard_files


def expected_shards(store: Store) -> list[int]:
    """List the shards that have a fragment or should have one, ascending.

    A shard should have one if the last published manifest names it or, in a local store, if it has frames on disk. At a
    URL, frames without a fragment are the remains of an interrupted upload and do not count.
    """
    in_manifest: set[int] = set()
    with contextlib.suppress(StoreError):
        in_manifest = {int(shard) for shard in store.shard_files()}
    on_disk = [] if isinstance(store.path, RemotePath) else store.shards()
    return sorted({*store.fragments(), *on_disk, *in_manifest})


def drop_uncut(tracks: pa.Table, slices: pa.Table, slicing: Slicing, store: Store) -> pa.Table:
    """Mark the tracks without any slice as dropped, `too-short` or `non-finite`; see `join_fragments`.

    Args:
        tracks: rows of `MANIFEST_SCHEMA`.
        slices: all slices of the tracks in use.
        slicing: how they were cut.
        store: the store that holds the tracks.
    """
    ok = pc.equal(tracks["status"], "ok")
    uncut = pc.and_(ok, pc.invert(pc.is_in(tracks["track_id"], value_set=slices["track_id"].combine_chunks())))
    if not pc.any(uncut).as_py():
        return tracks
    gaps = pc.fill_null(pc.greater(pc.list_value_length(tracks["gaps"]), 0), False)
    long_enough = pc.greater_equal(tracks["duration_s"], slicing.offset + slicing.length_s(store.spec))
    reason = pc.if_else(pc.and_(gaps, long_enough), "non-finite", "too-short")
    remark = f"no slice fits ({slicing})"
    detail = pc.if_else(
        pc.is_valid(tracks["detail"]), pc.binary_join_element_wise(tracks["detail"], pa.scalar(remark), "; "), remark
    )
    for name, value in (("status", pa.scalar("dropped")), ("reason", reason), ("detail", detail)):
        tracks = _set_column(tracks, name, pc.if_else(uncut, value, tracks[name]))
    return tracks


def _set_column(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)


def history(store: Store, columns: list[str] = MANIFEST_SCHEMA.names) -> pa.Table:
    """Collect one row for every track that the store has ever recorded.

    These are the rows of the manifest. If an extraction is unfinished, they come from the fragments, then the journal,
    then the previous manifest; the first row of a track counts.

    Args:
        store: the store.
        columns: columns of `MANIFEST_SCHEMA` to return; must include `track_id`.
    """
    if not store.unfinished:
        with contextlib.suppress(StoreError):
            return store.read_tracks(columns).replace_schema_metadata()
    schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in columns])
    others = (read_rows_or_none(path, schema) for path in (store.journal_path, store.path / "tracks.parquet"))
    sources = itertools.chain(read_fragments(store, store.fragments()), others)
    tables = [table.select(columns).replace_schema_metadata() for table in sources if table is not None]
    rows = pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()
    ids = rows["track_id"].combine_chunks()
    return rows.filter(pc.equal(pc.index_in(ids, ids), np.arange(len(ids), dtype=np.int32)))  # first row of each track


def read_rows_or_none(path: Place, schema: pa.Schema = MANIFEST_SCHEMA) -> pa.Table | None:
    """Read a table of manifest rows; return None if the file is missing or damaged.

    Args:
        path: the Parquet file. No digest covers its footer, so what it says of columns and types is not trusted.
        schema: columns of MANIFEST_SCHEMA to read; those that some stores lack become null.
    """
    try:
        return with_optional_columns(parquet.read_table(path, schema.names), schema).select(schema.names).cast(schema)
    except ServerError:  # does not tell whether the file exists
        raise
    except (OSError, KeyError, TypeError, ValueError):
        return None
