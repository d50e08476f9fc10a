"""The slices of a split in few bytes each, for as long as a training lasts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.runs.narrow import narrow, parts
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
        starts: different starts in seconds, float64, ascending; if there are too many, the start of each slice.
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


@dataclass
class ColumnCollector:
    """Collects the slice tables of a split, block by block, into `SliceColumns`.

    Attributes:
        split: split of all slices.
        ids: ids of all tracks of the split.
        n_stores: number of stores.
    """

    split: str
    ids: pa.Array
    n_stores: int
    _columns: dict[str, list[np.ndarray]] = field(default_factory=dict)
    _frames: list[dict[str, list[np.ndarray]]] = field(default_factory=list)
    _variant_names: list[str] = field(default_factory=list)
    _n_tracks: int = 0
    _code_of: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self._columns = {name: [] for name in ("tracks", "start_s", "variants", "labels")}
        self._frames = [{name: [] for name in FRAME_COLUMNS} for _ in range(self.n_stores)]
        self._code_of = np.full(len(self.ids), -1, np.int32 if len(self.ids) < 2**31 else np.int64)

    def add(self, tables: list[pa.Table], labels: np.ndarray) -> None:
        """Append a block: the table (`SLICE_SCHEMA`) of each store, and class indices, int64 `(slices,)`."""
        first = tables[0]
        track = pc.index_in(first["track_id"], value_set=self.ids).to_numpy()
        # Codes in the order of the first slice of each track.
        present, at = np.unique(track, return_index=True)
        new = track[np.sort(at[self._code_of[present] < 0])]
        self._code_of[new] = self._n_tracks + np.arange(len(new))
        self._n_tracks += len(new)
        names = pc.unique(first["variant"]).drop_null().to_pylist()
        self._variant_names += [name for name in names if name not in self._variant_names]
        variants = pc.index_in(first["variant"], value_set=pa.array(self._variant_names, pa.string()))
        self._columns["tracks"].append(self._code_of[track])
        self._columns["variants"].append(_narrow(pc.fill_null(variants, -1).to_numpy(), codes=True))
        self._columns["labels"].append(_narrow(labels, codes=True))
        self._columns["start_s"].append(first["start_s"].to_numpy())
        for table, frames in zip(tables, self._frames, strict=True):
            for name in FRAME_COLUMNS:
                frames[name].append(_narrow(table[name].to_numpy()))

    def finish(self) -> tuple[SliceColumns, list[pa.Table]]:
        """Return the columns, and of each store a table of `FRAME_COLUMNS` in the smallest integer types."""
        order = np.flatnonzero(self._code_of >= 0)
        order = order[np.argsort(self._code_of[order])]
        frames = [
            pa.table({name: pa.array(np.concatenate(columns.pop(name))) for name in FRAME_COLUMNS})
            for columns in self._frames
        ]
        tracks = np.concatenate(self._columns.pop("tracks"))
        variants, labels = (
            _narrow(np.concatenate(self._columns.pop(name)), codes=True) for name in ("variants", "labels")
        )
        starts, codes = _encode_starts(np.concatenate(self._columns.pop("start_s")))
        columns = SliceColumns(
            self.split,
            self.ids.take(pa.array(order)),
            tracks,
            starts,
            codes,
            pa.array(self._variant_names, pa.string()),
            variants,
            labels,
        )
        return columns, frames


def _narrow(values: np.ndarray, *, codes: bool = False) -> np.ndarray:
    return narrow(len(values), values.__getitem__, codes=codes)


def _encode_starts(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the different starts and the index of each; the starts themselves and None if there are too many."""
    known = np.empty(0)
    for rows in parts(len(starts)):
        known = np.union1d(known, np.unique(starts[rows]))
        if len(known) > min(MOST_STARTS, max(1, len(starts) // 4)):
            return starts, None
    return known, narrow(len(starts), lambda rows: np.searchsorted(known, starts[rows]), codes=True)
