"""Several inputs at once: the streams of several stores, joined slice by slice, in the order of the first.

Row i of every stream's table is the same moment of the same track, as `runs.selection` makes them. Each store is
still read shard by shard, whole; a group of the others is what the slices of the first one's group need of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from mgc.models.data.stream import Batch, Order, Stream


class Joint:
    """Streams of one table's slices as one, whose batches hold a tuple of frames.

    Windows of all inputs begin at the same moment, to within a frame: the first one's are drawn among those that lie
    inside the slices of all stores.

    Args:
        streams: of the same number of slices and the same batch size; order and windows are those of the first.
        rates: frames a second of each.
    """

    def __init__(self, streams: Sequence[Stream], rates: Sequence[float]) -> None:
        self.streams = tuple(streams)
        first = self.streams[0]
        self.labels, self.device = first.labels, first.device
        self._ratios = [rate / rates[0] for rate in rates]
        rooms = [
            np.floor(stream.spare / ratio + 1e-9) for stream, ratio in zip(self.streams, self._ratios, strict=True)
        ]
        first.spare = np.min(rooms, axis=0).astype(np.int64)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.streams[0])

    @property
    def n_repeated(self) -> int:
        """Slices that are shorter than a window of some input."""
        return max(stream.n_repeated for stream in self.streams)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on, in the order of the first stream.

        Raises:
            StoreError: a shard is missing or damaged.
        """
        order = self.streams[0].order(epoch)
        with contextlib.ExitStack() as stack:
            parts = [
                stack.enter_context(contextlib.closing(stream.batches(epoch, start, _following(stream, order, ratio))))
                for stream, ratio in zip(self.streams, self._ratios, strict=True)
            ]
            for batches in zip(*parts, strict=True):
                yield dataclasses.replace(batches[0], frames=tuple(batch.frames for batch in batches))


def _following(stream: Stream, order: Order, ratio: float) -> Order:
    """The order of the first stream, for one with `ratio` times its frames a second and shards of its own."""
    groups = [np.unique(stream.shard_of[order.group == number]) for number in range(len(order.groups))]
    crops = np.floor(order.crops * ratio + 1e-9).astype(np.int64)
    return Order(order.rows, order.draws, crops, order.group, groups)
