"""Streams of several stores joined slice by slice, for systems of several inputs.

Row i of every stream's slice table is the same moment of the same track (`Selection.join_columns` builds such tables).
The batches follow the order of the first stream. Each store is still read shard by shard, whole; a group of another
store consists of the shards that hold the slices of the first store's group.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from mgc.models.data.sampling import Order
from mgc.models.data.stream import Batch, Stream
from mgc.models.runs.narrow import narrow, parts


class JointStream:
    """Several streams of the same slices as one stream, whose batches hold a tuple of frames.

    The windows of all inputs begin at the same moment, to within a frame: those of the first stream are drawn where
    the windows of all inputs lie inside their slices.

    Args:
        streams: streams with the same number of slices and the same batch size; the first one gives order and windows.
        rates: frames per second of each stream.
    """

    def __init__(self, streams: Sequence[Stream], rates: Sequence[float]) -> None:
        self.streams = tuple(streams)
        first = self.streams[0]
        self.device = first.device
        # Features with one frame per track have a rate of 0.
        self._ratios = [rate / rates[0] if rates[0] else 1.0 for rate in rates]
        pairs = list(zip(self.streams, self._ratios, strict=True))
        first.spare = narrow(
            len(first.spare),
            lambda part: np.min([np.floor(stream.spare[part] / ratio + 1e-9) for stream, ratio in pairs], axis=0),
        )

    @property
    def labels(self) -> np.ndarray:
        """Class index of each slice, int64 `(slices,)`; made anew each time."""
        return self.streams[0].labels

    def __len__(self) -> int:
        """Number of batches per epoch."""
        return len(self.streams[0])

    @property
    def n_repeated(self) -> int:
        """Number of slices that are shorter than the window of an input."""
        return max(stream.n_repeated for stream in self.streams)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on, in the order of the first stream.

        Raises:
            StoreError: a shard is missing or damaged.
        """
        order = self.streams[0].order(epoch)
        with contextlib.ExitStack() as stack:
            inputs = [
                stack.enter_context(
                    contextlib.closing(stream.batches(epoch, start, _convert_order(order, stream, ratio)))
                )
                for stream, ratio in zip(self.streams, self._ratios, strict=True)
            ]
            for batches in zip(*inputs, strict=True):
                yield dataclasses.replace(batches[0], frames=tuple(batch.frames for batch in batches))


def _convert_order(order: Order, stream: Stream, ratio: float) -> Order:
    """Convert the order of the first stream to another one, with its own shards and `ratio` times the frame rate."""
    n_shards = len(stream.shards)
    pairs = np.empty(0, np.int64)
    for part in parts(len(stream.shard_of)):
        group_of = order.group_of(part)
        read = np.flatnonzero(group_of >= 0)
        pairs = np.union1d(pairs, group_of[read] * n_shards + stream.shard_of[part][read])
    groups = np.split(pairs % n_shards, np.searchsorted(pairs // n_shards, np.arange(1, len(order.groups))))
    crops = narrow(len(order.crops), lambda part: np.floor(order.crops[part] * ratio + 1e-9))
    return dataclasses.replace(order, crops=crops, groups=groups)
