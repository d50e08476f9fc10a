"""The slices of a split in few bytes each, for as long as a training lasts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.runs.narrow import dtype_for, parts
from mgc.pipeline.store.slicing import SLICE_SCHEMA

#: Most different starts that are held as codes of 16 bits.
MOST_STARTS = 1 << 15

#: Columns of the slice index that a stream reads.
FRAME_COLUMNS = ("shard", "first_frame", "n_frames")


@dataclass(frozen=True)
class SliceColumns:
    """What the slice tables of a split say, without the text and the 64-bit numbers of `SLICE_SCHEMA`.

    `tracks` is int32, or int64 if there are too many; other integer columns may be int8 or int16.

    Attributes:
        split: split of all slices.
        track_ids: ids of the tracks, in the order in which slices of them come first.
        tracks: track of each slice as an index of `track_ids`, integers `(slices,)`.
        starts: different starts in seconds, float64; if there are too many, the start of each slice.
        start_codes: start of each slice as an index of `starts`, integers `(slices,)`; None if `starts` has it.
        variant_names: names of the variants.
        variants: variant of each slice as an index of `variant_names`, integers `(slices,)`; -1 for the track itself.
        labels: class index of each slice, integers `(slices,)`.
    """

    split: str
    track_ids: pa.Array
    tracks: np.ndarray
    starts: np.ndarray
    start_codes: np.ndarray | None
    variant_names: pa.Array
    variants: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.tracks)

    @property
    def n_variants(self) -> int:
        """Number of slices of variants."""
        return sum(int(np.count_nonzero(self.variants[rows] >= 0)) for rows in parts(len(self)))

    def table(self, rows: np.ndarray | None = None) -> pa.Table:
        """Return the columns `track_id`, `split`, `start_s` and `variant` of `SLICE_SCHEMA`.

        Args:
            rows: rows of the slices, int64; None for all.
        """
        chosen = slice(None) if rows is None else rows
        tracks, variants = self.tracks[chosen], self.variants[chosen]
        codes = self.start_codes
        starts = self.starts[chosen] if codes is None else self.starts[codes[chosen]]
        columns = {
            "track_id": self.track_ids.take(pa.array(tracks.astype(np.int64))),
            "split": pa.repeat(pa.scalar(self.split, pa.string()), len(tracks)),
            "start_s": pa.array(starts),
            "variant": self.variant_names.take(pa.array(variants.astype(np.int64), mask=variants < 0)),
        }
        return pa.table(columns, schema=pa.schema([SLICE_SCHEMA.field(name) for name in columns]))


class ColumnCollector:
    """Collects the slice tables of a split, block by block, into `SliceColumns`.

    Args:
        split: split of all slices.
        ids: ids of all tracks of the split.
        labels: class index of each of these tracks, int64 `(tracks,)`.
        n_stores: number of stores.
    """

    def __init__(self, split: str, ids: pa.Array, labels: np.ndarray, n_stores: int) -> None:
        self._split, self._ids, self._labels_of = split, ids, labels
        self._tracks, self._labels, self._variants, self._starts = (_Column(np.int32), *(_Column() for _ in range(3)))
        self._frames = [
            {name: _Column() if name == "n_frames" else _Column(np.int32) for name in FRAME_COLUMNS}
            for _ in range(n_stores)
        ]
        self._code_of = np.full(len(ids), -1, dtype_for(0, len(ids)))
        self._n_tracks = 0
        self._variant_names: list[str] = []
        self._code_of_start: dict[float, int] | None = {}

    def add(self, tables: list[pa.Table], track: np.ndarray) -> None:
        """Append a block: the table (`SLICE_SCHEMA`) of each store, and the rows of `ids`, integers `(slices,)`."""
        first = tables[0]
        # Codes in the order of the first slice of each track.
        present, at = np.unique(track, return_index=True)
        new = track[np.sort(at[self._code_of[present] < 0])]
        self._code_of[new] = self._n_tracks + np.arange(len(new))
        self._n_tracks += len(new)
        names = pc.unique(first["variant"]).drop_null().to_pylist()
        self._variant_names += [name for name in names if name not in self._variant_names]
        variants = pc.index_in(first["variant"], value_set=pa.array(self._variant_names, pa.string()))
        self._tracks.append(self._code_of[track])
        self._variants.append(pc.fill_null(variants, -1).to_numpy())
        self._labels.append(self._labels_of[track])
        self._add_starts(first["start_s"].to_numpy())
        for table, frames in zip(tables, self._frames, strict=True):
            for name, column in frames.items():
                column.append(table[name].to_numpy())

    def _add_starts(self, starts: np.ndarray) -> None:
        """Append starts in seconds, float64, as codes as long as there are few different ones."""
        if self._code_of_start is not None:
            different, inverse = np.unique(starts, return_inverse=True)
            codes = self._code_of_start
            of_different = np.array([codes.setdefault(start, len(codes)) for start in different.tolist()], np.int64)
            if len(codes) <= MOST_STARTS:
                self._starts.append(of_different[inverse])
                return
            earlier, self._code_of_start, self._starts = self._starts.finish(), None, _Column(np.float64)
            self._starts.append(np.array(list(codes), np.float64)[earlier])
        self._starts.append(starts)

    def finish(self) -> tuple[SliceColumns, list[pa.Table]]:
        """Return the columns, and of each store a table of `FRAME_COLUMNS`; nothing can be added afterwards."""
        order = np.argsort(self._code_of)[len(self._code_of) - self._n_tracks :]
        starts, codes = self._starts.finish(), None
        if self._code_of_start is not None:
            starts, codes = np.array(list(self._code_of_start), np.float64), starts
        columns = SliceColumns(
            self._split,
            self._ids.take(pa.array(order)),
            self._tracks.finish(),
            starts,
            codes,
            pa.array(self._variant_names, pa.string()),
            self._variants.finish(),
            self._labels.finish(),
        )
        tables = [pa.table({name: column.finish() for name, column in frames.items()}) for frames in self._frames]
        return columns, tables


class _Column:
    """A column that grows in place, in the smallest type from `dtype` on that holds its values."""

    def __init__(self, dtype: type[np.number] = np.int8) -> None:
        self._values, self._n = np.empty(0, dtype), 0

    def append(self, values: np.ndarray) -> None:
        """Append numbers, `(n,)`."""
        if not len(values):
            return
        if self._values.dtype.kind == "i":
            fitting = np.promote_types(self._values.dtype, dtype_for(int(values.min()), int(values.max()), np.int8))
            self._values = self._values.astype(fitting, copy=False)
        stop = self._n + len(values)
        if stop > len(self._values):
            # Large arrays are moved by the system, not copied.
            self._values.resize(max(stop, len(self._values) * 33 // 32), refcheck=False)
        self._values[self._n : stop] = values
        self._n = stop

    def finish(self) -> np.ndarray:
        """Return the column; nothing can be appended afterwards."""
        self._values.resize(self._n, refcheck=False)
        return self._values
