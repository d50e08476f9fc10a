"""The stream: slices of a store as batches of frames on the device.

Shards are read whole and sent to the device in their stored dtype, a quarter of the bytes of float32. Windows are cut
and decoded to dB there. Frames that fit in the device's memory are read once and stay there; otherwise a thread loads
the next group of shards, from host memory or from disk, while the batches of the current group are in use.

`mgc.models.data.sampling` draws the order of an epoch.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from mgc.models.data.sampling import EpochSampler, Order, process_slice
from mgc.models.parallel.transfer import send
from mgc.models.runs.narrow import narrow, narrowed, parts
from mgc.pipeline.errors import StoreError
from mgc.pipeline.store.store import Store

#: Where frames stay between batches: in the device's memory, in the host's, or on disk.
Residency = Literal["device", "host", "stream"]


@dataclass(frozen=True)
class Batching:
    """Settings of making batches from the slices of a split.

    Attributes:
        batch_size: maximum number of slices per batch, over all processes.
        device: device of the batches.
        seed: seed of the order and of the windows, both drawn anew each epoch; None keeps the order of the slice table
            and takes windows from the centre of each slice.
        squeeze: show all of each slice: drop or repeat frames evenly until it fills the window.
        share: this process and the number of processes that share each epoch, `(rank, world size)`.
    """

    batch_size: int
    device: torch.device
    seed: int | None = None
    squeeze: bool = False
    share: tuple[int, int] = (0, 1)


@dataclass(frozen=True)
class Batch:
    """A batch of slices on the device.

    Attributes:
        frames: float32 `(batch, frames, bins)`: dB, MFCCs or samples; a tuple of these for systems of several inputs.
        labels: class indices, int64 `(batch,)`.
        rows: row of each slice in the slice table, int64 `(batch,)`, on the host.
        draws: draw of each slice in the epoch, int64 `(batch,)`, on the host; see `mgc.models.data.sampling.Order`.
        number: number of the batch in its epoch, from 0.
    """

    frames: Tensor | tuple[Tensor, ...]
    labels: Tensor
    rows: np.ndarray
    draws: np.ndarray
    number: int


@dataclass(frozen=True)
class Pool:
    """Frames of one or more shards in the device's memory.

    Attributes:
        frames: `(n, bins)`, in the stored dtype.
        base: row of `frames` where each shard begins, int64 `(shards,)`; meaningless for shards outside the pool.
        unreadable: whether each shard could not be read, bool `(shards,)`.
        ready: CUDA event after which the frames have arrived; None on the CPU.
    """

    frames: Tensor
    base: np.ndarray
    unreadable: np.ndarray
    ready: torch.cuda.Event | None


class Stream:
    """The slices of a table, batch by batch.

    Batch sizes differ by one slice at most, so that no batch has a lone slice, which batch normalisation cannot take.
    A slice shorter than the window is repeated to fill it, a longer one gives an excerpt; or all of it is squeezed into
    the window. Slices of whole tracks (`--whole`) can be of any length.

    Args:
        store: store of the frames.
        slices: table with the columns `shard`, `first_frame` and `n_frames` of `SLICE_SCHEMA`, in any integer types.
        labels: class index of each slice, integers `(slices,)`.
        frames: frames of a window.
        batching: batch size, device, seed, and the part of this process.
        strata: stratum of each slice to balance by, such as its class, as indices from 0, integers `(slices,)`; None
            for every slice once an epoch.

    Attributes:
        residency: where frames stay once they are read; the batches are the same for all.
        skip_damaged: leave out shards that cannot be read instead of raising. Batches then lack their slices. A batch
            that is left without slices, or in training with a lone one, is left out; the others keep their numbers.
        shard_errors: error of each shard that could not be read, by its index in `shards`.
        spare: frames by which the window of each slice can be moved, integers `(slices,)`.
        shards: numbers of the shards that hold the slices, ascending.
        shard_of: shard of each slice as an index of `shards`, integers `(slices,)`.
    """

    def __init__(
        self,
        store: Store,
        slices: pa.Table,
        labels: np.ndarray,
        frames: int,
        batching: Batching,
        strata: np.ndarray | None = None,
    ) -> None:
        self._labels, self.frames, self.device = labels, frames, batching.device
        self.residency: Residency = "device"
        self.skip_damaged = False
        self.shard_errors: dict[int, StoreError] = {}
        self._host: dict[int, np.ndarray] = {}
        self._batching, self._strata, self._squeeze = batching, strata, batching.squeeze
        self._store, self._spec = store, store.spec
        # The columns of a split of 100 million slices: held narrow, and computed part by part.
        n, shard = len(slices), slices["shard"].to_numpy()
        self._first, self._length = (narrowed(slices[name].to_numpy()) for name in ("first_frame", "n_frames"))
        held = np.zeros(int(shard.max(initial=-1)) + 1, bool)
        for part in parts(n):
            held[shard[part]] = True
        self.shards = np.flatnonzero(held)
        self.shard_of = narrow(n, lambda part: np.searchsorted(self.shards, shard[part]))
        spared = np.iinfo(np.int64).max if self._squeeze else frames
        self.spare = narrow(n, lambda part: np.maximum(self._length[part].astype(np.int64) - spared, 0))
        self._stop = np.zeros(len(self.shards), np.int64)  # frames to read of each shard: up to its last slice
        for part in parts(n):
            stop = self._first[part].astype(np.int64) + self._length[part]
            np.maximum.at(self._stop, self.shard_of[part], stop)
        n_batches = -(-len(slices) // batching.batch_size)
        own_part = process_slice(len(slices), batching.share)
        n = own_part.stop - own_part.start
        self._bounds = [n * batch // n_batches for batch in range(n_batches + 1)] if n_batches else [0]
        self._ramp = torch.arange(frames, device=self.device)
        # Copies run beside the computation on a CUDA stream of their own; elsewhere None, which changes nothing.
        self._side_stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def __len__(self) -> int:
        """Number of batches per epoch."""
        return len(self._bounds) - 1

    @property
    def labels(self) -> np.ndarray:
        """Class index of each slice, int64 `(slices,)`; made anew each time."""
        return self._labels.astype(np.int64)

    def frame_columns(self, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return the columns `shard`, `first_frame` and `n_frames` of rows of the slice table; None for all."""
        chosen = slice(None) if rows is None else rows
        shard = self.shards[self.shard_of[chosen]]
        return {"shard": shard, "first_frame": self._first[chosen], "n_frames": self._length[chosen]}

    @property
    def bins(self) -> int:
        """Values per frame of a batch."""
        return self._spec.bins

    @property
    def nbytes(self) -> int:
        """Bytes of all frames as stored."""
        return int(self._stop.sum()) * self._frame_bytes

    @property
    def n_repeated(self) -> int:
        """Number of slices that are shorter than the window and repeated to fill it."""
        return 0 if self._squeeze else int(np.count_nonzero(self._length < self.frames))

    def order(self, epoch: int) -> Order:
        """Draw the order of an epoch, a pure function of the seed and `epoch`."""
        return self._sampler.order(epoch, self.spare)

    @cached_property
    def _sampler(self) -> EpochSampler:
        shard_nbytes = self._stop * self._frame_bytes
        return EpochSampler(self.shard_of, shard_nbytes, self._batching.seed, self._strata, self._batching.share)

    def batches(self, epoch: int = 0, start: int = 0, order: Order | None = None) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch from number `start` on; `(epoch, start)` is all the state a resume needs.

        Args:
            epoch: number of the epoch, from 0.
            start: number of the first batch.
            order: order to read in instead of `order(epoch)`.

        Raises:
            StoreError: a shard is missing or damaged.
        """
        if start >= len(self):
            return
        order = order or self.order(epoch)
        current = order.group_of(order.rows[self._bounds[start]])
        with contextlib.closing(self._pools(order.groups[current:])) as pools:
            pool = next(pools)
            for number, (begin, end) in enumerate(itertools.pairwise(self._bounds[start:]), start):
                windows, readable = [], []
                group_of = order.group_of(order.rows[begin:end])
                # The slices of a batch can come from two groups or more, each with a pool of its own.
                for positions in np.split(np.arange(begin, end), np.flatnonzero(np.diff(group_of)) + 1):
                    if group_of[positions[0] - begin] != current:
                        pool, current = next(pools), group_of[positions[0] - begin]
                    positions = positions[~pool.unreadable[self.shard_of[order.rows[positions]]]]
                    crops = order.crops[order.draws[positions]].astype(np.int64)
                    windows.append(self._gather_windows(pool, order.rows[positions], crops))
                    readable.append(positions)
                positions = np.concatenate(readable)
                if not len(positions) or (len(positions) == 1 < end - begin and self._batching.seed is not None):
                    continue
                rows, draws = (column[positions].astype(np.int64) for column in (order.rows, order.draws))
                labels = send(self._labels[rows].astype(np.int64), self.device)
                frames = self._to_frames(self._decode(windows), epoch, rows, draws)
                yield Batch(frames, labels, rows, draws, number)

    def _pools(self, groups: list[np.ndarray]) -> Generator[Pool, None, None]:
        """Yield the pool of each group. Two exist at a time: one in use and one that a thread is loading."""
        if self.residency == "device":
            yield from itertools.repeat(self._resident_pool, len(groups))
            return
        with ThreadPoolExecutor(1, "shards") as reader:
            following: Future[Pool] = reader.submit(self._load, groups[0])
            for group in [*groups[1:], None]:
                pool = following.result()
                if group is not None:
                    following = reader.submit(self._load, group)
                yield self._wait_for(pool)

    @cached_property
    def _resident_pool(self) -> Pool:
        """All shards of the split, for residency `device`."""
        return self._wait_for(self._load(np.arange(len(self.shards))))

    def release(self) -> None:
        """Free the frames that are kept on the device and on the host."""
        self.__dict__.pop("_resident_pool", None)
        self._host.clear()

    def _load(self, shards: np.ndarray) -> Pool:
        """Read shards and send them to the device."""
        stop = self._stop[shards]
        base = np.zeros(len(self.shards), np.int64)
        base[shards] = np.cumsum(stop) - stop
        unreadable = np.zeros(len(self.shards), bool)
        shape = int(stop.sum()), self._spec.bins
        with torch.cuda.stream(self._side_stream):
            frames = torch.empty(shape, dtype=getattr(torch, self._spec.dtype), device=self.device)
            for shard in shards:
                try:
                    stored = torch.from_numpy(self._shard_frames(int(shard)))
                except StoreError as error:
                    if not self.skip_damaged:
                        raise
                    self.shard_errors[int(shard)] = error
                    unreadable[shard] = True
                    continue
                if self._side_stream:
                    stored = stored.pin_memory()
                frames[base[shard] : base[shard] + len(stored)].copy_(stored, non_blocking=stored.is_pinned())
            ready = self._side_stream.record_event() if self._side_stream else None
            return Pool(frames, base, unreadable, ready)

    def _shard_frames(self, shard: int) -> np.ndarray:
        """Frames of a shard as stored: from host memory if they stay there, else from disk."""
        if shard in self._host:
            return self._host[shard]
        stored = self._read_shard(shard)
        if self.residency == "host":
            self._host[shard] = stored
        return stored

    def _read_shard(self, shard: int) -> np.ndarray:
        number, stop = int(self.shards[shard]), int(self._stop[shard])
        stored = self._store.read(number, 0, stop)
        expected = (stop, self._spec.bins)
        if stored.shape != expected:
            raise StoreError(
                f"{self._store.shard_path(number)}: frames of shape {stored.shape}, the manifest promises {expected}",
                self._store.repair_remedy,
            )
        return stored

    def _wait_for(self, pool: Pool) -> Pool:
        """Make the device's current stream wait until the frames of a pool have arrived."""
        if pool.ready is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(pool.ready)
            # The memory was allocated on the side stream; it must not be reused before the current stream is done.
            pool.frames.record_stream(stream)
        return pool

    def _gather_windows(self, pool: Pool, rows: np.ndarray, crops: np.ndarray) -> Tensor:
        """Gather one window per slice on the device, `(rows, frames, bins)` in the stored dtype.

        Args:
            pool: pool of the shards of these slices.
            rows: rows of the slice table, integers `(rows,)`.
            crops: first frame of each window, relative to its slice, int64 `(rows,)`.
        """
        begins = pool.base[self.shard_of[rows]] + self._first[rows]
        columns = np.stack([begins, crops, self._length[rows]])[..., None]
        begin, crop, length = send(columns, self.device)
        within = self._ramp * length // self.frames if self._squeeze else (crop + self._ramp) % length
        index = begin + within
        # On the CPU this is 4 times faster than frames[index].
        return pool.frames.index_select(0, index.flatten()).view(len(rows), self.frames, self._spec.bins)

    def _decode(self, windows: list[Tensor]) -> Tensor:
        """Join windows and decode their stored values to float32 on the device, as `FeatureSpec.decode` does."""
        values = (windows[0] if len(windows) == 1 else torch.cat(windows)).float()
        return values.mul_(self._spec.scale).add_(self._spec.offset) if self._spec.quantised else values

    def _to_frames(self, values: Tensor, epoch: int, rows: np.ndarray, draws: np.ndarray) -> Tensor:
        """Turn decoded values into the frames of a batch; here they are the frames. Subclasses may compute them."""
        return values

    @property
    def _frame_bytes(self) -> int:
        return self._spec.bins * np.dtype(self._spec.dtype).itemsize
