"""Which tracks of a store a run uses, and for what: decided once, recorded in the run, and never revised."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.errors import RunError, StoreError
from mgc.pipeline.store.slicing import SLICE_SCHEMA, Slicing, cut, cut_alike
from mgc.pipeline.store.store import Store

#: One row per track of a run. `content_hash` is its file's: another file under the same id is another track.
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
    """The classes of a run and its tracks.

    Attributes:
        classes: genres in the order of the model's outputs.
        tracks: table of TRACK_SCHEMA, sorted by track id.
    """

    classes: tuple[str, ...]
    tracks: pa.Table

    def slices(
        self, store: Store, slicing: Slicing, split: str, *, variants: bool = False
    ) -> tuple[pa.Table, np.ndarray]:
        """The slices of one split, cut as the run cuts them however the store is cut by now.

        Variants are for training: whatever a track has been since it was decoded, they are left out of the other splits
        of the run, and those of a track that the store no longer trains on are not cut.

        Args:
            store: where the frames are: the run's own store, or another one of the same tracks.
            slicing: the run's.
            split: training, validation or test.
            variants: of the training split, those of the variants, too.

        Returns:
            Rows of `SLICE_SCHEMA`, and the index of each one's class, int64 `(slices,)`.

        Raises:
            RunError: the store no longer holds one of the tracks as it was.
        """
        wanted = self.tracks.filter(pc.equal(self.tracks["split"], split))
        self._require_unchanged(store, wanted)
        ids = _values(wanted["track_id"])
        here = pc.is_in(store.tracks["track_id"], value_set=ids)
        if slicing == store.slicing:
            # By row groups, most of which hold other splits: of 100 million slices not all are held at once.
            tables = store.read_slices(pc.unique(store.tracks["shard"].filter(here)).to_pylist())
        else:
            tables = iter([cut(slicing, store.spec, store.tracks.filter(here))])
        of_track = pc.index_in(wanted["genre"], value_set=pa.array(self.classes)).to_numpy()
        found, labels = [SLICE_SCHEMA.empty_table()], [np.empty(0, np.int64)]
        where = SLICE_SCHEMA.get_field_index("split")
        for table in tables:
            if not (variants and split == "training"):
                table = table.filter(pc.is_null(table["variant"]))
            row = pc.index_in(table["track_id"], value_set=ids)
            table = table.filter(pc.is_valid(row))
            # The run's split, which the store's may have left since: the run keeps to what it was trained on.
            found.append(table.set_column(where, SLICE_SCHEMA.field(where), pa.repeat(split, len(table))))
            labels.append(of_track[row.drop_null().to_numpy()].astype(np.int64))
        return pa.concat_tables(found), np.concatenate(labels)

    def join_slices(
        self, stores: Sequence[Store], slicing: Slicing, split: str, *, variants: bool = False
    ) -> tuple[list[pa.Table], np.ndarray]:
        """The slices of one split in several stores, joined by track and time.

        Args:
            stores: where the frames are; `slicing` cuts those of the first, the others are cut at the same moments.
            slicing: the run's.
            split: training, validation or test.
            variants: see `slices`; of one store only.

        Returns:
            A table of each store, rows of `SLICE_SCHEMA` of which row i is the same moment of the same track; and the
            index of each row's class, int64 `(slices,)`.

        Raises:
            RunError: a store no longer holds one of the tracks as it was.
        """
        first, *others = stores
        table, labels = self.slices(first, slicing, split, variants=variants and not others)
        tables = [table]
        seconds = None if slicing.whole else slicing.length_s(first.spec)
        wanted = self.tracks.filter(pc.equal(self.tracks["split"], split))
        for other in others:
            self._require_unchanged(other, wanted)
            found, kept = cut_alike(tables[0], seconds, other.spec, _with_frames(other))
            tables = [*(table.take(kept) for table in tables), found]
            labels = labels[kept]
        return tables, labels

    def _require_unchanged(self, store: Store, wanted: pa.Table) -> None:
        tracks = _with_frames(store)
        found = pc.index_in(wanted["track_id"], value_set=_values(tracks["track_id"]))
        same = pc.equal(tracks["content_hash"].take(found), wanted["content_hash"])
        lost = wanted["track_id"].filter(pc.invert(pc.fill_null(same, False))).to_pylist()
        if lost:
            others = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise RunError(
                f"{store.path}: track {lost[0]}{others} of the run is gone or has changed",
                "restore its file and run `mgc extract` again, or train a new run",
            )


def select_tracks(
    store: Store,
    further: Sequence[Store] = (),
    *,
    slicing: Slicing | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Selection:
    """The tracks of a store that a new run uses: those in use that have a genre, each in its split.

    Args:
        store: the store; its extraction is finished.
        further: other stores of the same dataset; a track must be in use in all.
        slicing: how the run cuts tracks; as the store is cut if None.
        limit: at most this many tracks of each genre for training, and as many for validation.
        seed: of the draw that the limit makes.

    Raises:
        StoreError: nothing to train on or to validate with, a genre without training tracks, or the stores do not
            belong together.
    """
    tracks = _usable(store, slicing)
    for other in further:
        there = _usable(other, other.slicing if slicing == store.slicing else slicing)
        _require_alike(store, tracks, other, there)
        tracks = tracks.filter(pc.is_in(tracks["track_id"], value_set=_values(there["track_id"])))
    tracks = tracks.sort_by("track_id")
    if limit is not None:
        tracks = _draw(tracks, limit, seed)
    present = set(tracks["genre"].to_pylist())
    known = [genre for genre in store.dataset["genres"] if genre in present]
    classes = (*known, *sorted(present.difference(known)))
    if not len(tracks) and len(_with_frames(store)):
        cut_how = (slicing or store.slicing).fitted(store.spec)
        raise StoreError(f"{store.path}: no track holds {cut_how}", "cut shorter ones: `mgc slice`")
    _require_classes(store, tracks, classes)
    return Selection(classes, tracks.combine_chunks())


def n_usable_tracks(store: Store, slicing: Slicing | None = None) -> int:
    """How many tracks of a store a run could use that reads no other one."""
    return len(_usable(store, slicing))


def _usable(store: Store, slicing: Slicing | None = None) -> pa.Table:
    """Tracks in use, with a genre and a split. Which are too short depends on how they are cut."""
    if slicing is None or slicing == store.slicing:
        tracks = store.tracks.filter(pc.equal(store.tracks["status"], "ok"))
    else:
        tracks = _with_frames(store)
        tracks = tracks.filter(
            pc.is_in(tracks["track_id"], value_set=_values(cut(slicing, store.spec, tracks)["track_id"]))
        )
    tracks = tracks.filter(pc.and_(pc.is_valid(tracks["genre"]), pc.is_valid(tracks["split"])))
    return tracks.select(TRACK_SCHEMA.names).cast(TRACK_SCHEMA)


def _require_alike(store: Store, tracks: pa.Table, other: Store, there: pa.Table) -> None:
    """Raise `StoreError` where two stores do not know the tracks they share as the same ones."""
    pair = f"{store.path} and {other.path}"
    for key in ("name", "root"):
        one, two = store.dataset.get(key), other.dataset.get(key)
        if one != two:
            raise StoreError(f"{pair} hold different datasets, {one} and {two}", "name stores of one dataset")
    row = pc.index_in(tracks["track_id"], value_set=_values(there["track_id"]))
    shared, there = tracks.filter(pc.is_valid(row)), there.take(row.drop_null())
    remedies = {
        "content_hash": "run `mgc extract` for both again: changed files are extracted anew",
        "split": f"give both the same: `mgc split {other.path} --splits {store.path / 'tracks.parquet'}`",
        "genre": "run `mgc extract` for both again: it takes over new labels",
    }
    for column, remedy in remedies.items():
        differ = pc.fill_null(pc.not_equal(shared[column], there[column]), False).to_numpy()
        if differ.any():
            at = int(differ.argmax())
            what = "is of different files" if column == "content_hash" else f"has another {column}"
            if column != "content_hash":
                what += f": {shared[column][at]} and {there[column][at]}"
            raise StoreError(f"{pair}: track {shared['track_id'][at]} {what}", remedy)


def _require_classes(store: Store, tracks: pa.Table, classes: tuple[str, ...]) -> None:
    if len(classes) < 2:
        found = f"only tracks of {classes[0]}" if classes else "no labelled tracks"
        raise StoreError(f"{store.path}: {found} to train on", "a classifier needs tracks of two genres or more")
    training = set(tracks["genre"].filter(pc.equal(tracks["split"], "training")).to_pylist())
    missing = [genre for genre in classes if genre not in training]
    remedy = f"add tracks, or assign the splits anew: `mgc split {store.path} --redo`"
    if missing:
        raise StoreError(f"{store.path}: no training track of {', '.join(missing)}", remedy)
    if not pc.any(pc.equal(tracks["split"], "validation")).as_py():
        raise StoreError(f"{store.path}: no validation tracks, by which the best epoch is chosen", remedy)


def _draw(tracks: pa.Table, limit: int, seed: int) -> pa.Table:
    """`limit` tracks of each genre for training and for validation, and all test tracks."""
    drawn: Counter[tuple[str, str]] = Counter()
    kept = []
    for track in sorted(tracks.to_pylist(), key=lambda track: _hash(seed, track["track_id"])):
        kind = track["split"], track["genre"]
        drawn[kind] += 1
        if track["split"] == "test" or drawn[kind] <= limit:
            kept.append(track)
    return pa.Table.from_pylist(kept, TRACK_SCHEMA).sort_by("track_id")


def _hash(seed: int, track_id: str) -> bytes:
    return hashlib.sha256(json.dumps([seed, track_id]).encode()).digest()


def _with_frames(store: Store) -> pa.Table:
    return store.tracks.filter(pc.greater(store.tracks["n_frames"], 0))


def _values(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()
