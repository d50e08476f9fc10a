"""Waveform stores as stores of a spectrogram that the device computes: `mgc train --frontend device`.

The manifest is told in the spectrogram's frames, so that all that cuts, draws and joins slices does so as with stored
ones. A stream reads the samples under each window with half a transform more at both ends; where the track ends there
are zeros. So frames are those of the track, also at the ends of a slice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.nn import functional as F

from mgc.models.data.frontend import FrontEnd
from mgc.models.data.stream import Pool, Stream
from mgc.pipeline.features import FeatureSpec, Spectral
from mgc.pipeline.store.slicing import SLICE_SCHEMA, Slicing, cut
from mgc.pipeline.store.store import Store

#: What changes the samples of a batch, `(batch, samples)`, in an epoch, given its draws.
Change = Callable[[Tensor, int, np.ndarray], Tensor]


@dataclass(frozen=True)
class Computed(Store):
    """A waveform store, seen as one of a spectrogram at its sample rate.

    A track has `spec.frames(seconds)` frames. Those of a shard are numbered from `stride` times its first block on,
    which leaves numbers unused between tracks. Gaps are the frames that touch a block with a bad sample.

    Attributes:
        spec: the spectrogram.
        source: the store of the samples.
    """

    spec: Spectral
    source: Store = dataclasses.field(kw_only=True)

    @classmethod
    def of(cls, source: Store, spec: FeatureSpec) -> Computed:
        """The view of a waveform store; there is a front end for `spec`, which has its sample rate."""
        assert isinstance(spec, Spectral)
        return cls(source.path, spec, source.dataset, source.versions, source.variants, source=source)

    @property
    def block(self) -> int:
        """Samples of a frame of the store."""
        return self.source.spec.bins

    @property
    def stride(self) -> int:
        """More frames than begin in a block, for each block of a track."""
        return -(-self.block // self.spec.hop_length) + 1

    @property
    def slicing(self) -> Slicing:
        """How the store is cut; a length in blocks becomes one in frames, of the same seconds."""
        slicing = self.source.slicing
        if slicing.frames is None:
            return slicing
        return dataclasses.replace(slicing, frames=self.spec.frames(slicing.length_s(self.source.spec)))

    @cached_property
    def tracks(self) -> pa.Table:
        """The manifest, its frames and gaps those of the spectrogram."""
        tracks = self.source.tracks
        for name, column in self._framed({name: tracks[name].combine_chunks() for name in _FRAMED}).items():
            at = tracks.schema.get_field_index(name)
            tracks = tracks.set_column(at, tracks.schema.field(at), column)
        variants = tracks["variants"].combine_chunks()
        if variants.null_count == len(variants):
            return tracks
        made = pc.list_flatten(variants)
        columns = {field.name: pc.struct_field(made, field.name) for field in made.type}
        columns |= self._framed({name: columns[name] for name in _FRAMED})
        counts = pc.fill_null(pc.list_value_length(variants), 0).to_numpy(zero_copy_only=False)
        values = pa.StructArray.from_arrays(list(columns.values()), fields=list(made.type))
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        lists = pa.ListArray.from_arrays(offsets, values, type=variants.type, mask=pc.is_null(variants))
        at = tracks.schema.get_field_index("variants")
        return tracks.set_column(at, tracks.schema.field(at), lists)

    def _framed(self, of: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """Columns of the manifest, or of its variants, in frames."""
        blocks = _numbers(of["n_frames"])
        # Exact lengths in samples are not recorded: what is decoded of a file is, in seconds.
        seconds = pc.fill_null(of["duration_s"], 0.0).to_numpy(zero_copy_only=False)
        frames = np.floor(seconds * self.spec.frame_rate + 1e-9).astype(np.int64) + 1
        frames = np.minimum(frames, 1 + blocks * self.block // self.spec.hop_length) * (blocks > 0)
        first = _numbers(of["first_frame"]) * self.stride
        made = {
            name: pa.array(values, pa.int64(), mask=pc.is_null(of[name]).to_numpy(zero_copy_only=False))
            for name, values in (("first_frame", first), ("n_frames", frames))
        }
        if of["gaps"].null_count < len(of["gaps"]):
            gaps = [gaps and [self._touched(*gap) for gap in gaps] for gaps in of["gaps"].to_pylist()]
            made["gaps"] = pa.array(gaps, of["gaps"].type)
        return made

    def _touched(self, first: int, stop: int) -> list[int]:
        start, end = self.spec.touched(first * self.block, stop * self.block)
        return [max(0, start), end]

    @cached_property
    def spans(self) -> np.ndarray:
        """Shard, first block and blocks of every track and variant, int64 `(spans, 3)`, ascending."""
        names = ("first_frame", "n_frames")
        tracks = self.source.tracks
        tracks = tracks.filter(pc.greater(tracks["n_frames"], 0))
        found = [np.stack([_numbers(tracks[name]) for name in ("shard", *names)], axis=1)]
        variants = tracks["variants"].combine_chunks()
        made = pc.list_flatten(variants)
        if len(made):
            columns = [tracks["shard"].take(pc.list_parent_indices(variants))]
            columns += [pc.struct_field(made, name) for name in names]
            table = np.stack([_numbers(column) for column in columns], axis=1)
            found.append(table[table[:, 2] > 0])
        spans = np.concatenate(found)
        return spans[np.lexsort((spans[:, 1], spans[:, 0]))]

    @cached_property
    def slices(self) -> pa.Table:
        """The slice index, in frames of the spectrogram."""
        return cut(self.slicing, self.spec, self.tracks.filter(pc.greater(self.tracks["n_frames"], 0)))

    def read_slices(self, shards: Iterable[int], columns: list[str] = SLICE_SCHEMA.names) -> Iterator[pa.Table]:
        """The slices of some shards."""
        wanted = pc.is_in(self.slices["shard"], value_set=pa.array(list(shards), pa.int32()))
        yield self.slices.filter(wanted).select(columns)

    def read(self, shard: int, first: int = 0, stop: int | None = None) -> np.ndarray:
        """Stored blocks of samples `[first, stop)` of a shard, `(n, samples)` in the stored dtype; see `Store.read`."""
        return self.source.read(shard, first, stop)


class ComputedStream(Stream):
    """The slices of a table, whose frames are computed of the samples under them.

    Args:
        store: where the samples are.
        slices: rows of `SLICE_SCHEMA`, in frames of the spectrogram.
        labels, frames, device, options: see `Stream`.

    Attributes:
        change: what happens to the samples before; None in validation and prediction.
    """

    def __init__(
        self,
        store: Computed,
        slices: pa.Table,
        labels: np.ndarray,
        *,
        frames: int,
        device: torch.device,
        **options: Any,
    ) -> None:
        super().__init__(store, slices, labels, frames=frames, device=device, **options)
        self.change: Change | None = None
        self._front_end = FrontEnd(store.spec).to(device).eval()
        self._spec, self._hop, self._n_fft = store.source.spec, store.spec.hop_length, store.spec.n_fft
        # The track or variant of each slice is the last one that begins before it.
        spans = store.spans
        shard = self.shards[self.shard_of].astype(np.int64)
        keys = (spans[:, 0] << 40) + spans[:, 1]
        owner = spans[np.searchsorted(keys, (shard << 40) + self._first // store.stride, "right") - 1]
        # In samples of the shard: the centre of a slice's first frame, and what its frames reach to in its track.
        self._centre = owner[:, 1] * store.block + (self._first - owner[:, 1] * store.stride) * self._hop
        last = self._centre + (self._length - 1) * self._hop
        self._low = np.maximum(self._centre - self._n_fft // 2, owner[:, 1] * store.block)
        self._high = np.minimum(last + self._n_fft // 2, (owner[:, 1] + owner[:, 2]) * store.block)
        self._high = np.maximum(self._high, self._low)
        self._stop = np.zeros(len(self.shards), np.int64)
        np.maximum.at(self._stop, self.shard_of, -(-self._high // store.block))

    @property
    def bins(self) -> int:
        """Values of a frame."""
        return self._front_end.spec.bins

    def _cut(self, pool: Pool, rows: np.ndarray, crops: np.ndarray) -> Tensor:
        """The samples under windows, `(rows, samples)` in the stored dtype, zeros where the slices reach no further."""
        frames = int(self._length[rows].max(initial=1)) if self._squeeze else self.frames
        begin = self._centre[rows] + crops * self._hop - self._n_fft // 2
        low = np.maximum(begin, self._low[rows])
        high = np.maximum(np.minimum(begin + (frames - 1) * self._hop + self._n_fft, self._high[rows]), low)
        base = pool.base[self.shard_of[rows]] * self._spec.bins
        samples = pool.frames.flatten()
        windows = samples.new_zeros(len(rows), (frames - 1) * self._hop + self._n_fft)
        # Row by row: an index for each sample would be four times as large as the samples.
        for window, shift, first, stop in zip(windows, low - begin, low + base, high + base, strict=True):
            window[shift : shift + stop - first] = samples[first:stop]
        return windows

    def _values(self, parts: list[Tensor]) -> Tensor:
        """Samples of all windows, those of squeezed slices as many as of the longest."""
        longest = max(part.shape[1] for part in parts)
        return super()._values([F.pad(part, (0, longest - part.shape[1])) for part in parts])

    def _shown(self, values: Tensor, epoch: int, rows: np.ndarray, draws: np.ndarray) -> Tensor:
        """The frames of each window, float32 `(batch, frames, bins)`."""
        with torch.no_grad():
            made = self._front_end(values if self.change is None else self.change(values, epoch, draws))
        length = torch.from_numpy(self._length[rows]).to(self.device)[:, None]
        if self._squeeze:
            return _frames_at(made, self._ramp * length // self.frames)
        if (self._length[rows] < self.frames).any():
            return _frames_at(made, self._ramp % length)
        return made


#: Columns of the manifest that tell of frames, and what they are told by.
_FRAMED = ("duration_s", "gaps", "first_frame", "n_frames")


def open_stream(store: Store, slices: pa.Table, labels: np.ndarray, **options: Any) -> Stream:
    """The stream of a store's slices, whether frames are stored or computed; for arguments see `Stream`."""
    kind: type[Stream] = ComputedStream if isinstance(store, Computed) else Stream
    return kind(store, slices, labels, **options)


def streams_of_samples(streams: Sequence[Stream]) -> list[ComputedStream]:
    """Those of some streams whose samples can be changed."""
    return [stream for stream in streams if isinstance(stream, ComputedStream)]


def _numbers(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(column, 0).to_numpy().astype(np.int64)


def _frames_at(frames: Tensor, index: Tensor) -> Tensor:
    return frames.take_along_dim(index[..., None], dim=1)
