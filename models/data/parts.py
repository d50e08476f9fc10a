"""The data of a run: the slices of each split in every store that it reads, as one stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import torch

from mgc.models.data.computed import open_stream
from mgc.models.data.joint import Joint
from mgc.models.data.stream import Residency, Stream, fits
from mgc.models.runs.selection import Selection
from mgc.pipeline.store.slicing import Slicing, widened
from mgc.pipeline.store.store import Store


@dataclass(frozen=True)
class Part:
    """The slices of a split.

    Attributes:
        slices: their rows in the first store.
        streams: their frames in each store.
        stream: their batches, of all stores together.
        tracks: which track each belongs to, as indices from 0.
    """

    slices: pa.Table
    streams: tuple[Stream, ...]
    stream: Stream | Joint
    tracks: np.ndarray

    @property
    def lost(self) -> np.ndarray:
        """Which slices could not be read, bool `(slices,)`."""
        lost = np.zeros(len(self.slices), bool)
        for stream in self.streams:
            lost |= np.isin(stream.shard_of, list(stream.damaged))
        return lost

    @property
    def damaged(self) -> list[str]:
        """What is wrong with shards that could not be read, and how many slices are left out for it."""
        return [
            f"{error.problem}: {np.count_nonzero(stream.shard_of == shard)} slices are left out"
            for stream in self.streams
            for shard, error in sorted(stream.damaged.items())
        ]


def open_part(
    selection: Selection,
    stores: Sequence[Store],
    slicing: Slicing,
    split: str,
    *,
    frames: Sequence[int],
    batch_size: int,
    device: torch.device,
    seed: int | None = None,
    variants: bool = False,
    balance: str = "none",
    crop: bool = False,
    squeeze: bool = False,
    share: tuple[int, int] = (0, 1),
) -> Part:
    """A split of the tracks of a run.

    Args:
        selection: the tracks.
        stores: where their frames are.
        slicing: how they are cut.
        split: training, validation or test.
        frames: frames of a window in each store.
        batch_size: slices per batch at most.
        device: where batches are wanted.
        seed, squeeze, share: see `Stream`.
        variants: see `Selection.slices`; of one store only.
        balance: see `mgc.models.registry.settings.Loop`; of a stream with a seed.
        crop: whether windows are drawn from the whole track instead of from each slice.

    Raises:
        RunError: a store no longer holds one of the tracks as it was.
    """
    tables, labels = selection.joined(stores, slicing, split, variants=variants)
    if crop:
        tables = widened(tables, [store.tracks for store in stores])
    tracks = tables[0]["track_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    strata = {"none": None, "class": labels, "track": tracks}[balance]
    streams = tuple(
        open_stream(
            store,
            table,
            labels,
            frames=window,
            batch_size=batch_size,
            device=device,
            seed=seed,
            strata=strata,
            squeeze=squeeze,
            share=share,
        )
        for store, table, window in zip(stores, tables, frames, strict=True)
    )
    stream = streams[0] if len(streams) == 1 else Joint(streams, [store.spec.frame_rate for store in stores])
    return Part(tables[0], streams, stream, tracks)


def keep_resident(
    parts: Sequence[Part],
    device: torch.device,
    wanted: Residency | Literal["auto"] = "auto",
    processes: int = 1,
) -> list[tuple[int, Residency]]:
    """Have the frames of every store stay where they fit, the smallest first: on the device, on the host, or on disk.

    Args:
        parts: what is read at the same time.
        device: where batches are wanted. Where that is the CPU, its memory is the host's.
        wanted: `auto`, or where the frames of all stores stay, whatever fits.
        processes: that do the same on this machine, each with a GPU of its own and frames of its own on the host.

    Returns:
        Bytes of the frames of each store, and where they stay.
    """
    by_store = list(zip(*(part.streams for part in parts), strict=True))
    sizes = [sum(stream.nbytes for stream in streams) for streams in by_store]
    host = torch.device("cpu")
    taken = {device: 0, host: 0}
    stay: list[Residency] = ["stream"] * len(sizes)
    for which in sorted(range(len(sizes)), key=sizes.__getitem__):
        if wanted != "auto":
            stay[which] = wanted
        elif fits((taken[device] + sizes[which]) * (processes if device == host else 1), device):
            stay[which] = "device"
            taken[device] += sizes[which]
        elif device != host and fits((taken[host] + sizes[which]) * processes, host):
            stay[which] = "host"
            taken[host] += sizes[which]
        if device == host and stay[which] != "stream":
            stay[which] = "host"
        for stream in by_store[which]:
            # Frames on the host need no copy to be on the device where that is the CPU.
            stream.residency = "device" if device == host and stay[which] == "host" else stay[which]
    return list(zip(sizes, stay, strict=True))
