"""Spectrograms computed on the device from a waveform store (`mgc train --frontend device`).

`WaveformView` presents a waveform store as a store of the spectrogram: its manifest counts the spectrogram's frames, so
that slices are cut, drawn and joined as with stored frames. `FrontEndStream` reads the samples under each window, with
half a transform more at both ends, zeros beyond the ends of the track. So frames equal those of the whole track, also
at the ends of a slice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.nn import functional as F

from mgc.models.data.frontend import FrontEnd
from mgc.models.data.stream import Batching, Pool, Stream
from mgc.models.parallel.transfer import send
from mgc.models.runs.narrow import parts
from mgc.pipeline.features import FeatureSpec, Spectral
from mgc.pipeline.store.cuts import Cut
from mgc.pipeline.store.cutting import cut as cut_tracks
from mgc.pipeline.store.slicing import SLICE_SCHEMA, Slicing
from mgc.pipeline.store.store import Store

#: Transforms the samples of a batch, float32 `(batch, samples)`, given the epoch and the draw of each slice.
SampleTransform = Callable[[Tensor, int, np.ndarray], Tensor]

#: Manifest columns that count frames or are needed to convert such counts.
_FRAME_COLUMNS = ("duration_s", "gaps", "first_frame", "n_frames")


@dataclass(frozen=True)
class WaveformView(Store):
    """A waveform store presented as a store of a spectrogram at its sample rate.

    A waveform store holds blocks of samples; a block is its "frame". Here a track has `spec.frames(seconds)` frames of
    the spectrogram. A track that begins with block b of its shard has its first frame at number `b * stride`, which
    leaves some numbers between tracks unused. Gaps are the frames that depend on a block with a bad sample.

    Attributes:
        spec: the spectrogram.
        source: the waveform store.
    """

    spec: Spectral
    source: Store = dataclasses.field(kw_only=True)

    @classmethod
    def of(cls, source: Store, spec: FeatureSpec) -> WaveformView:
        """View a waveform store as `spec`, which `mgc.models.data.frontend` supports and which has its sample rate."""
        assert isinstance(spec, Spectral)
        return cls(source.path, spec, source.dataset, source.versions, source.variants, source=source)

    @property
    def block_length(self) -> int:
        """Samples in a block of the waveform store."""
        return self.source.spec.bins

    @property
    def stride(self) -> int:
        """Frame numbers reserved for each block: one more than can begin in it."""
        return -(-self.block_length // self.spec.hop_length) + 1

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The store's cuts; lengths in blocks are converted to frames of the same duration."""
        return tuple(dataclasses.replace(cut, slicing=self._in_spectrogram(cut.slicing)) for cut in self.source.cuts)

    def _in_spectrogram(self, slicing: Slicing) -> Slicing:
        if slicing.frames is None:
            return slicing
        return dataclasses.replace(slicing, frames=self.spec.frames(slicing.length_s(self.source.spec)))

    @cached_property
    def tracks(self) -> pa.Table:
        """The manifest, with frames and gaps of the spectrogram."""
        tracks = self.source.tracks
        for name, column in self._in_frames({name: tracks[name].combine_chunks() for name in _FRAME_COLUMNS}).items():
            index = tracks.schema.get_field_index(name)
            tracks = tracks.set_column(index, tracks.schema.field(index), column)
        variants = tracks["variants"].combine_chunks()
        if variants.null_count == len(variants):
            return tracks
        flat = pc.list_flatten(variants)
        columns = {field.name: pc.struct_field(flat, field.name) for field in flat.type}
        columns |= self._in_frames({name: columns[name] for name in _FRAME_COLUMNS})
        counts = pc.fill_null(pc.list_value_length(variants), 0).to_numpy(zero_copy_only=False)
        values = pa.StructArray.from_arrays(list(columns.values()), fields=list(flat.type))
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        lists = pa.ListArray.from_arrays(offsets, values, type=variants.type, mask=pc.is_null(variants))
        index = tracks.schema.get_field_index("variants")
        return tracks.set_column(index, tracks.schema.field(index), lists)

    def _in_frames(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """Convert columns of the manifest, or of its variants, from blocks to frames.

        Args:
            columns: those named in `_FRAME_COLUMNS`.

        Returns:
            The columns `first_frame`, `n_frames` and, if any track has gaps, `gaps`.
        """
        blocks = _to_int64(columns["n_frames"])
        # The manifest has no exact length in samples; `duration_s` is the decoded length in seconds.
        seconds = pc.fill_null(columns["duration_s"], 0.0).to_numpy(zero_copy_only=False)
        frames = np.floor(seconds * self.spec.frame_rate + 1e-9).astype(np.int64) + 1
        frames = np.minimum(frames, 1 + blocks * self.block_length // self.spec.hop_length) * (blocks > 0)
        first = _to_int64(columns["first_frame"]) * self.stride
        converted = {
            name: pa.array(values, pa.int64(), mask=pc.is_null(columns[name]).to_numpy(zero_copy_only=False))
            for name, values in (("first_frame", first), ("n_frames", frames))
        }
        if columns["gaps"].null_count < len(columns["gaps"]):
            gaps = [gaps and [self._gap_in_frames(*gap) for gap in gaps] for gaps in columns["gaps"].to_pylist()]
            converted["gaps"] = pa.array(gaps, columns["gaps"].type)
        return converted

    def _gap_in_frames(self, first: int, stop: int) -> list[int]:
        start, end = self.spec.affected_frames(first * self.block_length, stop * self.block_length)
        return [max(0, start), end]

    @cached_property
    def spans(self) -> np.ndarray:
        """Shard, first block and number of blocks of each track and variant, int64 `(spans, 3)`, sorted."""
        names = ("first_frame", "n_frames")
        tracks = self.source.tracks
        tracks = tracks.filter(pc.greater(tracks["n_frames"], 0))
        tables = [np.stack([_to_int64(tracks[name]) for name in ("shard", *names)], axis=1)]
        variants = tracks["variants"].combine_chunks()
        flat = pc.list_flatten(variants)
        if len(flat):
            columns = [tracks["shard"].take(pc.list_parent_indices(variants))]
            columns += [pc.struct_field(flat, name) for name in names]
            table = np.stack([_to_int64(column) for column in columns], axis=1)
            tables.append(table[table[:, 2] > 0])
        spans = np.concatenate(tables)
        return spans[np.lexsort((spans[:, 1], spans[:, 0]))]

    @cached_property
    def slices(self) -> pa.Table:
        """The slice index of the default cut, in frames of the spectrogram."""
        return self._cut(self.slicing)

    def read_slices(
        self, shards: Iterable[int], columns: list[str] = SLICE_SCHEMA.names, cut: Cut | None = None
    ) -> Iterator[pa.Table]:
        """Yield the slices of the given shards, as one table; see `Store.read_slices`."""
        slices = self.slices if cut is None or cut.default else self._cut(cut.slicing)
        in_shards = pc.is_in(slices["shard"], value_set=pa.array(list(shards), pa.int32()))
        yield slices.filter(in_shards).select(columns)

    def _cut(self, slicing: Slicing) -> pa.Table:
        return cut_tracks(slicing, self.spec, self.tracks.filter(pc.greater(self.tracks["n_frames"], 0)))

    def read(self, shard: int, first: int = 0, stop: int | None = None) -> np.ndarray:
        """Read blocks `[first, stop)` of a shard, `(n, samples)` in the stored dtype; see `Store.read`."""
        return self.source.read(shard, first, stop)


class FrontEndStream(Stream):
    """The slices of a table, with frames that the front end computes from the samples under them.

    Args:
        store: view of the waveform store.
        slices: see `Stream`; in frames of the spectrogram.
        labels, frames, batching, strata: see `Stream`.

    Attributes:
        transform: applied to the samples before the front end; None in validation and prediction.
    """

    def __init__(
        self,
        store: WaveformView,
        slices: pa.Table,
        labels: np.ndarray,
        frames: int,
        batching: Batching,
        strata: np.ndarray | None = None,
    ) -> None:
        super().__init__(store, slices, labels, frames, batching, strata)
        self.transform: SampleTransform | None = None
        self._front_end = FrontEnd(store.spec).to(batching.device).eval()
        self._spec, self._hop, self._n_fft = store.source.spec, store.spec.hop_length, store.spec.n_fft
        self._spans, self._stride, self._block = store.spans, store.stride, store.block_length
        self._keys = (self._spans[:, 0] << 40) + self._spans[:, 1]
        self._stop = np.zeros(len(self.shards), np.int64)
        for part in parts(len(slices)):
            _, _, high = self._sample_ranges(part)
            np.maximum.at(self._stop, self.shard_of[part], -(-high // self._block))

    def _sample_ranges(self, rows: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return positions in samples of the shard for rows of the slice table, each int64 `(rows,)`.

        Returns:
            The centre of each slice's first frame; and first and stop of the samples of its track that the slice's
            frames depend on.
        """
        # The track or variant of each slice is the last one that begins before it.
        first, length = self._first[rows].astype(np.int64), self._length[rows].astype(np.int64)
        shard = self.shards[self.shard_of[rows]].astype(np.int64)
        owner = self._spans[np.searchsorted(self._keys, (shard << 40) + first // self._stride, "right") - 1]
        centre = owner[:, 1] * self._block + (first - owner[:, 1] * self._stride) * self._hop
        last = centre + (length - 1) * self._hop
        low = np.maximum(centre - self._n_fft // 2, owner[:, 1] * self._block)
        high = np.minimum(last + self._n_fft // 2, (owner[:, 1] + owner[:, 2]) * self._block)
        return centre, low, np.maximum(high, low)

    @property
    def bins(self) -> int:
        """Values per frame of a batch."""
        return self._front_end.spec.bins

    def _gather_windows(self, pool: Pool, rows: np.ndarray, crops: np.ndarray) -> Tensor:
        """Gather the samples under each window, `(rows, samples)` in the stored dtype; zeros beyond the slice."""
        frames = int(self._length[rows].max(initial=1)) if self._squeeze else self.frames
        centre, first, stop = self._sample_ranges(rows)
        begin = centre + crops * self._hop - self._n_fft // 2
        low = np.maximum(begin, first)
        high = np.maximum(np.minimum(begin + (frames - 1) * self._hop + self._n_fft, stop), low)
        base = pool.base[self.shard_of[rows]] * self._spec.bins
        samples = pool.frames.flatten()
        windows = samples.new_zeros(len(rows), (frames - 1) * self._hop + self._n_fft)
        # Row by row: an index for each sample would be four times as large as the samples.
        for window, shift, source, end in zip(windows, low - begin, low + base, high + base, strict=True):
            window[shift : shift + end - source] = samples[source:end]
        return windows

    def _decode(self, windows: list[Tensor]) -> Tensor:
        """Join and decode windows; windows of squeezed slices are padded to the longest of the batch."""
        longest = max(window.shape[1] for window in windows)
        return super()._decode([F.pad(window, (0, longest - window.shape[1])) for window in windows])

    def _to_frames(self, values: Tensor, epoch: int, rows: np.ndarray, draws: np.ndarray) -> Tensor:
        """Compute the frames of each window, float32 `(batch, frames, bins)`."""
        with torch.no_grad():
            frames = self._front_end(values if self.transform is None else self.transform(values, epoch, draws))
        lengths = self._length[rows].astype(np.int64)[:, None]
        if self._squeeze:
            return _take_frames(frames, self._ramp * send(lengths, self.device) // self.frames)
        if (lengths < self.frames).any():
            return _take_frames(frames, self._ramp % send(lengths, self.device))
        return frames


def open_stream(
    store: Store,
    slices: pa.Table,
    labels: np.ndarray,
    frames: int,
    batching: Batching,
    strata: np.ndarray | None = None,
) -> Stream:
    """Open the stream of a store's slices: a `FrontEndStream` for a `WaveformView`, else a `Stream`."""
    if isinstance(store, WaveformView):
        return FrontEndStream(store, slices, labels, frames, batching, strata)
    return Stream(store, slices, labels, frames, batching, strata)


def front_end_streams(streams: Sequence[Stream]) -> list[FrontEndStream]:
    """The streams that compute their frames from samples, which can be augmented before."""
    return [stream for stream in streams if isinstance(stream, FrontEndStream)]


def _to_int64(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """An integer column as int64, nulls as 0."""
    return pc.fill_null(column, 0).to_numpy().astype(np.int64)


def _take_frames(frames: Tensor, index: Tensor) -> Tensor:
    return frames.take_along_dim(index[..., None], dim=1)
