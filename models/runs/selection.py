"""Selection: the classes and tracks of a run and their splits; made once, recorded in the run, never changed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.runs.narrow import PART
from mgc.models.runs.slice_columns import ColumnCollector, SliceColumns
from mgc.models.runs.slice_splits import slice_splits
from mgc.pipeline.datasets.lookup import Lookup
from mgc.pipeline.datasets.tracks import SPLITS
from mgc.pipeline.errors import RunError, StoreError
from mgc.pipeline.storage import mapped
from mgc.pipeline.store.cutting import cut, cut_alike, widened
from mgc.pipeline.store.slicing import SLICE_SCHEMA, Slicing
from mgc.pipeline.store.store import Store

#: One row per track of a run. `content_hash` is the digest of its file: another file with the same id is another track.
TRACK_SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("genre", pa.string(), nullable=False),
        pa.field("artist_id", pa.string()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("content_hash", pa.string()),
    ]
)


@dataclass(frozen=True)
class Selection:
    """The classes and tracks of a run.

    Attributes:
        classes: genres in the order of the model's outputs.
        tracks: track table (`TRACK_SCHEMA`), sorted by track id. A row per track; if slices are split instead of
            tracks, a row for each split that a track has slices in.
        split_seed: seed of the splits of slices, see `slice_splits`; None if all slices have the split of their track.
    """

    classes: tuple[str, ...]
    tracks: pa.Table
    split_seed: int | None = None

    def heard_tracks(self, split: str) -> list[str]:
        """List the tracks of a split that the model is chosen by, too, or whose file is one of these, byte for byte.

        Args:
            split: `test`: copies among the training and validation tracks; `validation`: among the training tracks;
                `training`: none.

        Returns:
            Track ids, sorted. Files without a content hash count as unique.
        """
        earlier = {"test": ["training", "validation"], "validation": ["training"]}.get(split, [])
        known = self.tracks.filter(pc.is_in(self.tracks["split"], value_set=pa.array(earlier, pa.string())))
        heard = pc.or_(
            pc.is_in(self.tracks["content_hash"], value_set=known["content_hash"].drop_null().combine_chunks()),
            pc.is_in(self.tracks["track_id"], value_set=known["track_id"].combine_chunks()),
        )
        return self.tracks["track_id"].filter(pc.and_(pc.equal(self.tracks["split"], split), heard)).to_pylist()

    def merged(self) -> Selection:
        """Return the same tracks with those of the validation split in the training split."""
        splits = self.tracks["split"]
        return replace(
            self, tracks=with_splits(self.tracks, pc.if_else(pc.equal(splits, "validation"), "training", splits))
        )

    def slices(
        self, store: Store, slicing: Slicing, split: str, *, variants: bool = False
    ) -> tuple[pa.Table, np.ndarray]:
        """List the slices of a split, cut by the run's slicing even if the store has another one by now.

        Augmentation variants are included only for the training split of the run. A track that has left the store's
        training split has no slices of variants any more.

        Args:
            store: the run's store, or another one of the same tracks.
            slicing: slicing of the run.
            split: training, validation or test.
            variants: include the slices of variants if the split is training.

        Returns:
            Slice table (`SLICE_SCHEMA`), and the class index of each slice, int64 `(slices,)`.

        Raises:
            RunError: the store no longer holds one of the tracks, or another file under its id.
        """
        slices, rows = _concatenate(self._read(store, slicing, split, variants=variants))
        return slices, self._track_labels(split)[rows]

    def _track_labels(self, split: str) -> np.ndarray:
        """Class index of each track of a split, int64 `(tracks,)`."""
        genres = self.tracks["genre"].filter(pc.equal(self.tracks["split"], split))
        return pc.index_in(genres, value_set=pa.array(self.classes)).to_numpy().astype(np.int64)

    def join_slices(
        self, stores: Sequence[Store], slicing: Slicing, split: str, *, variants: bool = False
    ) -> tuple[list[pa.Table], np.ndarray]:
        """List the slices of a split in several stores, joined by track and time.

        Args:
            stores: stores of the same tracks; `slicing` cuts the first one, the others are cut at the same moments.
            slicing: slicing of the run.
            split: training, validation or test.
            variants: see `slices`; ignored with several stores.

        Returns:
            Slice table (`SLICE_SCHEMA`) of each store, whose rows i are the same moment of the same track; and the
            class index of each row, int64 `(slices,)`.

        Raises:
            RunError: a store no longer holds one of the tracks, or another file under its id.
        """
        block = _concatenate(self._read(stores[0], slicing, split, variants=variants and len(stores) == 1))
        ((tables, rows),) = self._join([block], stores, slicing, split)
        return tables, self._track_labels(split)[rows]

    def join_columns(
        self, stores: Sequence[Store], slicing: Slicing, split: str, *, variants: bool = False, crop: bool = False
    ) -> tuple[SliceColumns, list[pa.Table]]:
        """List the slices of a split as `join_slices` does, in few bytes a slice.

        Args:
            stores, slicing, split, variants: see `join_slices`.
            crop: extend each slice to its whole track; see `widened`.

        Returns:
            What all stores say of the slices, and of each store a table with the columns `shard`, `first_frame` and
            `n_frames`, in the smallest integer types.

        Raises:
            RunError: see `join_slices`.
        """
        first, *others = stores
        ids = self.tracks["track_id"].filter(pc.equal(self.tracks["split"], split)).combine_chunks()
        collector = ColumnCollector(split, ids, self._track_labels(split), len(stores))
        # Joining and extending look up all tracks for each block: row groups are too small for that.
        blocks = _merge(
            self._read(first, slicing, split, variants=variants and not others), PART if others or crop else 0
        )
        for tables, rows in self._join(blocks, stores, slicing, split):
            collector.add(widened(tables, [store.tracks for store in stores]) if crop else tables, rows)
        # The track table was copied column by column, and Arrow's memory pool keeps that memory.
        pa.default_memory_pool().release_unused()
        return collector.finish()

    def _join(
        self, blocks: Iterable[tuple[pa.Table, np.ndarray]], stores: Sequence[Store], slicing: Slicing, split: str
    ) -> Iterator[tuple[list[pa.Table], np.ndarray]]:
        """Join blocks that `_read` yields of the first store with the other stores.

        Yields:
            Slice table (`SLICE_SCHEMA`) of each store, and the track of each row as `_read` yields it.
        """
        first, *others = stores
        seconds = None if slicing.whole else slicing.length_s(first.spec)
        for other in others:
            self._require_unchanged(other, split)
        for table, track_rows in blocks:
            tables = [table]
            for other in others:
                alike, common_rows = cut_alike(tables[0], seconds, other.spec, _tracks_with_frames(other))
                tables = [*(earlier.take(common_rows) for earlier in tables), alike]
                track_rows = track_rows[common_rows]
            yield tables, track_rows

    def _read(
        self, store: Store, slicing: Slicing, split: str, *, variants: bool
    ) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Yield the slices of a split, row group by row group of the slice index; see `slices`.

        Yields:
            Slice table (`SLICE_SCHEMA`), and the track of each slice as a row of the split's tracks, int64 `(slices,)`.
        """
        self._require_unchanged(store, split)
        lookup = Lookup(self.tracks["track_id"].filter(pc.equal(self.tracks["split"], split)))
        if (stored := store.cut_of(slicing)) is not None:
            # Row group by row group, most of which hold other splits: 100 million slices are never in memory at once.
            tables = store.read_slices(_shards_of(store, lookup), cut=stored)
            # The columns of the track table that were read above; Arrow's memory pool keeps their memory.
            pa.default_memory_pool().release_unused()
        else:
            in_split = lookup.contains(store.tracks["track_id"])
            tables = iter([cut(slicing, store.spec, store.tracks.filter(pa.array(in_split)))])
        split_column = SLICE_SCHEMA.get_field_index("split")
        for table in tables:
            if not (variants and split == "training"):
                table = table.filter(pc.is_null(table["variant"]))
            track = _rows_of(table["track_id"], lookup)
            table, track = table.filter(pa.array(track >= 0)), track[track >= 0]
            if self.split_seed is not None:
                drawn = slice_splits(table["track_id"], table["start_s"].to_numpy(), self.split_seed)
                in_split_too = drawn == SPLITS.index(split)
                table, track = table.filter(pa.array(in_split_too)), track[in_split_too]
            # The split that the run recorded: the store's may have changed since.
            split_values = pa.repeat(split, len(table))
            yield table.set_column(split_column, SLICE_SCHEMA.field(split_column), split_values), track

    def _require_unchanged(self, store: Store, split: str) -> None:
        """Raise `RunError` if the store lacks a track of a split, or has another file under its id."""
        columns = ["track_id", "content_hash"]
        tracks = self.tracks.select(columns).filter(pc.equal(self.tracks["split"], split))
        stored = store.read_tracks([*columns, "n_frames"])
        stored = stored.select(columns).filter(pc.greater(stored["n_frames"], 0))
        rows = Lookup(stored["track_id"]).indices(tracks["track_id"])
        same = pc.equal(stored["content_hash"].take(rows), tracks["content_hash"])
        missing = tracks["track_id"].filter(pc.invert(pc.fill_null(same, False))).to_pylist()
        if missing:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise RunError(
                f"{store.path}: track {missing[0]}{others} of the run is gone or has changed",
                "restore its file and run `mgc extract` again, or train a new run",
            )


def _shards_of(store: Store, tracks: Lookup) -> list[int]:
    """Return the shards that hold frames of tracks."""
    stored = store.read_tracks(["track_id", "shard"])
    return pc.unique(stored["shard"].filter(pa.array(tracks.contains(stored["track_id"])))).to_pylist()


def _rows_of(track_ids: pa.ChunkedArray, tracks: Lookup) -> np.ndarray:
    """Return the row in `tracks` of each of a row group's track ids, int64 `(slices,)`; -1 if it is not there."""
    encoded = track_ids.combine_chunks().dictionary_encode()
    return tracks.rows(encoded.dictionary)[encoded.indices.to_numpy()]


def _concatenate(blocks: Iterable[tuple[pa.Table, np.ndarray]]) -> tuple[pa.Table, np.ndarray]:
    """Concatenate blocks that `Selection._read` yields."""
    tables, rows = [SLICE_SCHEMA.empty_table()], [np.empty(0, np.int64)]
    for table, block_rows in blocks:
        tables.append(table)
        rows.append(block_rows)
    return pa.concat_tables(tables), np.concatenate(rows)


def _merge(blocks: Iterable[tuple[pa.Table, np.ndarray]], n: int) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Merge blocks that `Selection._read` yields to blocks of at least `n` slices; the last one may be smaller."""
    waiting: list[tuple[pa.Table, np.ndarray]] = []
    for block in blocks:
        waiting.append(block)
        if sum(len(rows) for _, rows in waiting) >= n:
            yield _concatenate(waiting)
            waiting = []
    if waiting:
        yield _concatenate(waiting)


def select_tracks(
    store: Store,
    further: Sequence[Store] = (),
    *,
    slicing: Slicing | None = None,
    limit: int | None = None,
    seed: int = 0,
    unsplit: bool = False,
) -> Selection:
    """Select the tracks of a new run: the usable tracks of its stores that have a genre and a split.

    Args:
        store: first store of the run; its extraction is finished.
        further: further stores of the same dataset; a track must be usable in all of them.
        slicing: slicing of the run; None for the store's.
        limit: maximum number of tracks of each genre for training, and for validation; None for all.
        seed: seed of the draw of that many tracks.
        unsplit: put all tracks into the training split, whatever their splits in the store.

    Raises:
        StoreError: there are no training or validation tracks, a genre has no training tracks, or the stores do not
            hold the same dataset with the same labels.
    """
    tracks = usable_tracks(store, slicing)
    for other in further:
        other_tracks = usable_tracks(other, other.slicing if slicing == store.slicing else slicing)
        _require_same_labels(store, tracks, other, other_tracks)
        tracks = tracks.filter(pc.is_in(tracks["track_id"], value_set=other_tracks["track_id"].combine_chunks()))
    tracks = mapped.take(tracks, pc.sort_indices(tracks["track_id"]))
    if unsplit:
        tracks = with_splits(tracks, pa.repeat("training", len(tracks)))
    if limit is not None:
        tracks = limit_tracks(tracks, limit, seed)
    classes = classes_of(store, tracks)
    if not len(tracks) and len(_tracks_with_frames(store)):
        slices = (slicing or store.slicing).fitted(store.spec)
        raise StoreError(f"{store.path}: no track holds {slices}", "cut shorter ones: `mgc slice`")
    _require_classes(store, tracks, classes, unsplit=unsplit)
    return Selection(classes, tracks.combine_chunks())


def with_splits(tracks: pa.Table, splits: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return a track table (`TRACK_SCHEMA`) with other splits, strings `(tracks,)`."""
    column = TRACK_SCHEMA.get_field_index("split")
    return tracks.set_column(column, TRACK_SCHEMA.field(column), splits)


def classes_of(store: Store, tracks: pa.Table) -> tuple[str, ...]:
    """Return the genres of tracks in the order of a model's outputs: as the dataset lists them, then others by name."""
    present = set(pc.unique(tracks["genre"]).to_pylist())
    known = [genre for genre in store.dataset["genres"] if genre in present]
    return (*known, *sorted(present.difference(known)))


def n_usable_tracks(store: Store, slicing: Slicing | None = None) -> int:
    """Count the tracks that a run could use if this were its only store; see `select_tracks`."""
    return len(usable_tracks(store, slicing))


def usable_tracks(store: Store, slicing: Slicing | None = None) -> pa.Table:
    """Tracks of a store that have a genre, a split and, cut by `slicing` (None for the store's), a slice."""
    if slicing is None or slicing == store.slicing:
        # Not `store.tracks`: a training would hold the whole manifest, 250 MB of a million tracks, to its end.
        tracks = store.read_tracks([*TRACK_SCHEMA.names, "status"])
        tracks = tracks.filter(pc.equal(tracks["status"], "ok"))
    else:
        tracks = _tracks_to_cut(store)
        if (stored := store.cut_of(slicing)) is not None:
            tables = store.read_slices(pc.unique(tracks["shard"]).to_pylist(), ["track_id"], stored)
            ids = [pa.array([], pa.string()), *(pc.unique(table["track_id"]) for table in tables)]
        else:
            ids = [cut(slicing, store.spec, tracks)["track_id"].combine_chunks()]
        tracks = tracks.filter(pc.is_in(tracks["track_id"], value_set=pa.concat_arrays(ids)))
    tracks = tracks.filter(pc.and_(pc.is_valid(tracks["genre"]), pc.is_valid(tracks["split"])))
    return tracks.select(TRACK_SCHEMA.names).cast(TRACK_SCHEMA)


def _require_same_labels(store: Store, tracks: pa.Table, other: Store, other_tracks: pa.Table) -> None:
    """Check that two stores hold the same dataset, with the same file, split and genre of each track in both.

    Args:
        store, other: the stores.
        tracks, other_tracks: their track tables (`TRACK_SCHEMA`).

    Raises:
        StoreError: the datasets differ, or a track's file or labels.
    """
    pair = f"{store.path} and {other.path}"
    for key in ("name", "root"):
        one, two = store.dataset.get(key), other.dataset.get(key)
        if one != two:
            raise StoreError(f"{pair} hold different datasets, {one} and {two}", "name stores of one dataset")
    rows = pc.index_in(tracks["track_id"], value_set=other_tracks["track_id"].combine_chunks())
    shared, other_shared = tracks.filter(pc.is_valid(rows)), other_tracks.take(rows.drop_null())
    remedies = {
        "content_hash": "run `mgc extract` for both again: changed files are extracted anew",
        "split": f"give both the same: `mgc split {other.path} --splits {store.path / 'tracks.parquet'}`",
        "genre": "run `mgc extract` for both again: it takes over new labels",
    }
    for column, remedy in remedies.items():
        differ = pc.fill_null(pc.not_equal(shared[column], other_shared[column]), False).to_numpy()
        if differ.any():
            row = int(differ.argmax())
            difference = f"has another {column}: {shared[column][row]} and {other_shared[column][row]}"
            if column == "content_hash":
                difference = "was extracted from different files"
            raise StoreError(f"{pair}: track {shared['track_id'][row]} {difference}", remedy)


def _require_classes(store: Store, tracks: pa.Table, classes: tuple[str, ...], *, unsplit: bool) -> None:
    """Raise `StoreError` if there are fewer than two genres, one has no training track, or no track validates."""
    if len(classes) < 2:
        available = f"only tracks of {classes[0]}" if classes else "no labelled tracks"
        raise StoreError(f"{store.path}: {available} to train on", "a classifier needs tracks of two genres or more")
    if unsplit:
        return
    training = set(pc.unique(tracks["genre"].filter(pc.equal(tracks["split"], "training"))).to_pylist())
    missing = [genre for genre in classes if genre not in training]
    remedy = f"add tracks, or assign the splits anew: `mgc split {store.path} --redo`"
    if missing:
        raise StoreError(f"{store.path}: no training track of {', '.join(missing)}", remedy)
    if not pc.any(pc.equal(tracks["split"], "validation")).as_py():
        raise StoreError(f"{store.path}: no validation tracks to choose the best epoch by", remedy)


def limit_tracks(tracks: pa.Table, limit: int, seed: int) -> pa.Table:
    """Draw `limit` tracks of each genre for training, as many for validation, and all test tracks.

    Args:
        tracks: table with the columns of `TRACK_SCHEMA`; `content_hash` may be absent.
        limit: maximum number of tracks of each genre and split but test.
        seed: seed of the draw. Of more tracks it draws the same ones, unless others come before them.

    Returns:
        The drawn tracks (`TRACK_SCHEMA`), sorted by track id.
    """
    counts: Counter[tuple[str, str]] = Counter()
    drawn = []
    for track in sorted(tracks.to_pylist(), key=lambda track: _hash(seed, track["track_id"])):
        key = track["split"], track["genre"]
        counts[key] += 1
        if track["split"] == "test" or counts[key] <= limit:
            drawn.append(track)
    return pa.Table.from_pylist(drawn, TRACK_SCHEMA).sort_by("track_id")


def _hash(seed: int, track_id: str) -> bytes:
    return hashlib.sha256(json.dumps([seed, track_id]).encode()).digest()


def _tracks_to_cut(store: Store) -> pa.Table:
    """Return the tracks in use, and those that only the default cut leaves out."""
    tracks = _tracks_with_frames(store)
    uncut = pc.is_in(tracks["reason"], value_set=pa.array(["too-short", "non-finite"]))
    return tracks.filter(pc.or_(pc.equal(tracks["status"], "ok"), uncut))


def _tracks_with_frames(store: Store) -> pa.Table:
    return store.tracks.filter(pc.greater(store.tracks["n_frames"], 0))
