"""The data of a run: the slices of each split in every store that it reads, as one stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from models.joint import Joint
from models.selection import Selection
from models.stream import Stream, fits
from pipeline.slicing import Slicing
from pipeline.store import Store


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
        seed: see `Stream`.
        variants: see `Selection.slices`; of one store only.

    Raises:
        RunError: a store no longer holds one of the tracks as it was.
    """
    tables, labels = selection.joined(stores, slicing, split, variants=variants)
    streams = tuple(
        Stream(store, table, labels, frames=window, batch_size=batch_size, device=device, seed=seed)
        for store, table, window in zip(stores, tables, frames, strict=True)
    )
    stream = streams[0] if len(streams) == 1 else Joint(streams, [store.spec.frame_rate for store in stores])
    tracks = tables[0]["track_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    return Part(tables[0], streams, stream, tracks)


def keep_resident(parts: Sequence[Part], device: torch.device) -> list[tuple[int, bool]]:
    """Have every store whose frames fit stay on the device, the smallest first; the others are streamed.

    Returns:
        Bytes of the frames of each store, and whether they stay.
    """
    by_store = list(zip(*(part.streams for part in parts), strict=True))
    sizes = [sum(stream.nbytes for stream in streams) for streams in by_store]
    stay = [False] * len(sizes)
    taken = 0
    for which in sorted(range(len(sizes)), key=sizes.__getitem__):
        stay[which] = fits(taken + sizes[which], device)
        taken += sizes[which] if stay[which] else 0
        for stream in by_store[which]:
            stream.resident = stay[which]
    return list(zip(sizes, stay, strict=True))
