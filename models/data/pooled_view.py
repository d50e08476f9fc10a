"""Embeddings pooled over time: a store of windows, read as a store of one frame per track."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.features import Embedding
from mgc.pipeline.store.cuts import Cut, derive_name
from mgc.pipeline.store.cutting import cut as cut_tracks
from mgc.pipeline.store.slicing import SLICE_SCHEMA, Slicing
from mgc.pipeline.store.store import Store

_WHOLE = Slicing(seconds=None, whole=True)


@dataclass(frozen=True)
class PooledView(Store):
    """A store of embeddings presented as one of their mean and standard deviation over each track.

    The deviation is that of the population. Frame i of a shard belongs to the i-th of its tracks that have a window.
    Augmentation variants are left out.

    Attributes:
        spec: the embedding, with `pool="track"`.
        source: the store of embeddings.
    """

    spec: Embedding
    source: Store = dataclasses.field(kw_only=True)

    @classmethod
    def of(cls, source: Store) -> PooledView:
        """View a store of embeddings."""
        assert isinstance(source.spec, Embedding)
        spec = dataclasses.replace(source.spec, pool="track", dtype="float32")
        return cls(source.path, spec, source.dataset, source.versions, source=source)

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Whole tracks."""
        return (Cut(derive_name(_WHOLE), _WHOLE),)

    @cached_property
    def _order(self) -> pa.Table:
        """Shard, first window and number of windows of each track that has one, in the order of their frames."""
        tracks = self.source.tracks.select(["track_id", "shard", "first_frame", "n_frames"])
        return tracks.filter(pc.greater(tracks["n_frames"], 0)).sort_by(
            [("shard", "ascending"), ("first_frame", "ascending")]
        )

    @cached_property
    def tracks(self) -> pa.Table:
        """The manifest, with one frame per track."""
        shards = self._order["shard"].to_numpy()
        places = np.arange(len(shards)) - np.searchsorted(shards, shards)
        tracks = self.source.tracks
        row = pc.index_in(tracks["track_id"], value_set=self._order["track_id"].combine_chunks())
        used = pc.is_valid(row)
        gaps = pc.fill_null(pc.greater(pc.list_value_length(tracks["gaps"]), 0), False).to_pylist()
        columns = {
            "first_frame": pc.fill_null(pa.array(places).take(row), 0),
            "n_frames": used.cast(pa.int64()),
            "gaps": pa.chunked_array([[[[0, 1]] if gap else None for gap in gaps]], tracks.schema.field("gaps").type),
            "variants": pa.nulls(len(tracks), tracks.schema.field("variants").type),
        }
        for name, column in columns.items():
            index = tracks.schema.get_field_index(name)
            tracks = tracks.set_column(index, tracks.schema.field(index), column)
        return tracks

    @cached_property
    def slices(self) -> pa.Table:
        """One slice per track."""
        return self._cut(_WHOLE)

    def read_slices(
        self, shards: Iterable[int], columns: list[str] = SLICE_SCHEMA.names, cut: Cut | None = None
    ) -> Iterator[pa.Table]:
        """Yield the slices of the given shards, as one table; see `Store.read_slices`."""
        slices = self.slices if cut is None else self._cut(cut.slicing)
        in_shards = pc.is_in(slices["shard"], value_set=pa.array(list(shards), pa.int32()))
        yield slices.filter(in_shards).select(columns)

    def _cut(self, slicing: Slicing) -> pa.Table:
        return cut_tracks(slicing, self.spec, self.tracks.filter(pc.greater(self.tracks["n_frames"], 0)))

    def read(self, shard: int, first: int = 0, stop: int | None = None) -> np.ndarray:
        """Read and pool the tracks `[first, stop)` of a shard, float32 `(tracks, 2 * width)`; see `Store.read`."""
        order = self._order.filter(pc.equal(self._order["shard"], shard)).slice(first)
        order = order if stop is None else order.slice(0, stop - first)
        pooled = np.empty((len(order), self.spec.bins), np.float32)
        if not len(order):
            return pooled
        starts, counts = order["first_frame"].to_numpy(), order["n_frames"].to_numpy()
        # Once for the whole shard: opening its files takes longer than reading a track of it.
        windows = self.source.read(shard, int(starts[0]), int(starts[-1] + counts[-1]))
        for row, (start, count) in enumerate(zip(starts - starts[0], counts, strict=True)):
            of_track = windows[start : start + count].astype(np.float64)
            pooled[row] = np.concatenate([of_track.mean(axis=0), of_track.std(axis=0)])
        return pooled


def as_read(store: Store) -> Store:
    """Return a store as systems read it: embeddings pooled over each track, all others as they are."""
    return PooledView.of(store) if isinstance(store.spec, Embedding) and store.spec.pool != "track" else store
