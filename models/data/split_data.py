"""The data of a run: the slices of each split, read from all of its stores as one stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import torch

from mgc.models.data.joint import JointStream
from mgc.models.data.sampling import EVERY_SLICE, Sampling
from mgc.models.data.stream import Batching, Residency, Stream
from mgc.models.data.waveform_view import open_stream
from mgc.models.parallel.device import free_memory
from mgc.models.runs.selection import Selection
from mgc.models.runs.slice_columns import SliceColumns
from mgc.pipeline.store.slicing import SLICE_SCHEMA, Slicing
from mgc.pipeline.store.store import Store

#: Share of the free memory that frames may fill; the rest is for weights and activations.
RESIDENT_SHARE = 0.5


@dataclass(frozen=True)
class SplitData:
    """The slices of a split, and streams of their frames.

    Attributes:
        columns: the slices, in few bytes each.
        streams: one stream for each store.
        stream: the batches: the only stream, or all streams joined.
    """

    columns: SliceColumns
    streams: tuple[Stream, ...]
    stream: Stream | JointStream

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.columns)

    @property
    def tracks(self) -> np.ndarray:
        """Track of each slice, as indices from 0 in the order of their first slices, integers `(slices,)`."""
        return self.columns.tracks

    @property
    def slices(self) -> pa.Table:
        """Slice table of the first store (`SLICE_SCHEMA`). Made anew each time, of some 70 bytes a slice."""
        return self.take_slices(None)

    def take_slices(self, rows: np.ndarray | None) -> pa.Table:
        """Return rows of `slices`, int64; None for all."""
        table = self.columns.table(rows)
        for name, values in self.streams[0].frame_columns(rows).items():
            table = table.append_column(SLICE_SCHEMA.field(name), pa.array(values, SLICE_SCHEMA.field(name).type))
        return table.select(SLICE_SCHEMA.names)

    @property
    def unreadable(self) -> np.ndarray:
        """Whether each slice could not be read, bool `(slices,)`."""
        unreadable = np.zeros(len(self), bool)
        for stream in self.streams:
            unreadable |= np.isin(stream.shard_of, list(stream.shard_errors))
        return unreadable

    @property
    def damage_messages(self) -> list[str]:
        """For each shard that could not be read, the problem and how many slices are left out because of it."""
        return [
            f"{error.problem}: {np.count_nonzero(stream.shard_of == shard)} slices are left out"
            for stream in self.streams
            for shard, error in sorted(stream.shard_errors.items())
        ]


@dataclass(frozen=True)
class RunInputs:
    """The tracks of a run, the stores of their frames, and how they are cut.

    Attributes:
        selection: classes and tracks, with the split of each track.
        stores: one store for each input of the system.
        slicing: slicing of the run.
        frames: frames of a window in each store.
    """

    selection: Selection
    stores: Sequence[Store]
    slicing: Slicing
    frames: Sequence[int]

    def split(self, name: str, batching: Batching, sampling: Sampling = EVERY_SLICE) -> SplitData:
        """Open the streams of a split.

        Args:
            name: training, validation or test.
            batching: batch size, device, seed, and the part of this process.
            sampling: which slices an epoch draws; balancing needs a seed.

        Raises:
            RunError: a store no longer holds one of the tracks, or another file under its id.
        """
        columns, tables = self.selection.join_columns(
            self.stores, self.slicing, name, variants=sampling.variants, crop=sampling.crop
        )
        strata = {"none": None, "class": columns.labels, "track": columns.tracks}[sampling.balance]
        streams = tuple(
            open_stream(store, table, columns.labels, window, batching, strata)
            for store, table, window in zip(self.stores, tables, self.frames, strict=True)
        )
        if len(streams) == 1:
            return SplitData(columns, streams, streams[0])
        rates = [store.spec.frame_rate for store in self.stores]
        return SplitData(columns, streams, JointStream(streams, rates))


def set_residency(
    splits: Sequence[SplitData],
    device: torch.device,
    residency: Residency | Literal["auto"] = "auto",
    processes: int = 1,
) -> list[tuple[int, Residency]]:
    """Choose where the frames of each store stay between batches: on the device, on the host, or on disk.

    With `auto`, stores are placed in order of size, the smallest first, wherever they fit.

    Args:
        splits: the splits that are read at the same time.
        device: device of the batches. If it is the CPU, its memory is the host's.
        residency: `auto`, or the residency of all stores, whether they fit or not.
        processes: processes on this machine that do the same, each with a GPU and a copy of the frames of its own.

    Returns:
        Bytes of the frames of each store, and their residency.
    """
    by_store = list(zip(*(split.streams for split in splits), strict=True))
    sizes = [sum(stream.nbytes for stream in streams) for streams in by_store]
    host = torch.device("cpu")
    resident_bytes = {device: 0, host: 0}
    residencies: list[Residency] = ["stream"] * len(sizes)
    for store in sorted(range(len(sizes)), key=sizes.__getitem__):
        size = sizes[store]
        if residency != "auto":
            residencies[store] = residency
        elif fits_in_memory((resident_bytes[device] + size) * (processes if device == host else 1), device):
            residencies[store] = "device"
            resident_bytes[device] += size
        elif device != host and fits_in_memory((resident_bytes[host] + size) * processes, host):
            residencies[store] = "host"
            resident_bytes[host] += size
        if device == host and residencies[store] != "stream":
            residencies[store] = "host"
        for stream in by_store[store]:
            # If the device is the CPU, frames on the host are on the device already and need no copy.
            stream.residency = "device" if device == host and residencies[store] == "host" else residencies[store]
    return list(zip(sizes, residencies, strict=True))


def fits_in_memory(nbytes: int, device: torch.device) -> bool:
    """Whether frames of this size fit in half of the device's free memory."""
    return nbytes <= RESIDENT_SHARE * free_memory(device)
