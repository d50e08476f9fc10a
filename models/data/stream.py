"""The stream: slices of a store as batches of frames on the device.

Shards are read whole and in their stored dtype, which is what crosses to the device: a quarter of float32. Windows are
cut and turned into dB there. What fits in the memory of the device is read once and kept there; else a thread makes
groups of shards ready, from the host's memory or from disk, while the batches of the group before are in use.

The order is a pure function of seed and epoch. Shards are drawn, dealt into groups, and the slices of a group shuffled:
since tracks come to shards by a hash this equals a full shuffle for practical purposes, whatever is kept in memory.

Of several processes each has a stretch of the epoch: its slices, laid out shard by shard in the order the shards are
drawn, are cut evenly. So every slice comes once, all processes have as many, to within one, in as many batches, and
read shards of their own but for those that a cut goes through, at most one fewer than there are processes.
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

from mgc.models.data.sampling import balanced
from mgc.models.parallel.device import free_memory
from mgc.pipeline.errors import StoreError
from mgc.pipeline.store.store import Store

#: Raw bytes of the shards whose slices are shuffled together; streaming holds two such groups.
GROUP_BYTES = 256_000_000
#: Share of the free memory that frames may fill; the rest is for weights and activations.
RESIDENT_SHARE = 0.5

#: Where frames are between the batches that they are part of: in the device's memory, the host's, or on disk.
Residency = Literal["device", "host", "stream"]


@dataclass(frozen=True)
class Batch:
    """A few slices on the device.

    Attributes:
        frames: float32 `(batch, frames, bins)`, dB or MFCCs; of several inputs, a tuple of these.
        labels: class indices, int64 `(batch,)`.
        rows: which rows of the slice table they are, int64 `(batch,)`, on the host.
        draws: which draws of the epoch, each of which is another one: the rows, unless some come twice.
        number: of the batch in its epoch, from 0.
    """

    frames: Tensor | tuple[Tensor, ...]
    labels: Tensor
    rows: np.ndarray
    draws: np.ndarray
    number: int


@dataclass(frozen=True)
class Order:
    """What an epoch reads.

    Attributes:
        rows: rows of the slice table in the order of the epoch, int64 `(n,)`; all slices, or a process's stretch.
        draws: the draw that each of them is, int64 `(n,)`; the row itself where every row is drawn once.
        crops: where in its slice the window of each draw begins, int64 `(slices,)`, by draw.
        group: which group each row belongs to, int64 `(slices,)`, by row; -1 where its shard is not read.
        groups: the shards of each group, as indices of `Stream.shards`.
    """

    rows: np.ndarray
    draws: np.ndarray
    crops: np.ndarray
    group: np.ndarray
    groups: list[np.ndarray]


@dataclass(frozen=True)
class Pool:
    """Frames of some shards on the device.

    Attributes:
        frames: `(n, bins)`, in the stored dtype.
        base: row where each shard begins, int64 `(shards,)`; meaningless for shards that are not in the pool.
        lost: which shards could not be read, bool `(shards,)`.
        ready: on CUDA, the event after which they are there.
    """

    frames: Tensor
    base: np.ndarray
    lost: np.ndarray
    ready: torch.cuda.Event | None


class Stream:
    """The slices of a table, batch by batch.

    Batches differ by one slice in size at most: none is left with a lone slice, which batch normalisation cannot take.
    A slice shorter than a window is repeated until it fills it, one that is longer gives a part; or all of it is
    squeezed into the window. With `--whole`, slices are of any length.

    Args:
        store: where the frames are.
        slices: rows of `SLICE_SCHEMA`.
        labels: class index of each slice, int64 `(slices,)`.
        frames: frames of a window.
        batch_size: slices per batch at most.
        device: where batches are wanted.
        seed: of the order and of the windows, which are drawn anew each epoch; None for the order of the table and
            windows from the centre of each slice.
        strata: what an epoch has as much of as of anything else, such as the class of each slice, as indices from 0,
            int64 `(slices,)`; None for each slice once.
        squeeze: show all of each slice, frames left out or repeated evenly.
        share: number of this process and how many there are, which share each epoch; `batch_size` is that of all.

    Attributes:
        residency: where frames stay once they are read; changes no batch.
        skip_damaged: whether to go on without a shard that cannot be read. Batches lack its slices, and those that are
            left without any, or in training with a lone one, are left out; the others keep their numbers.
        damaged: what is wrong with each shard that could not be read, by its place in `shards`.
        spare: frames by which the window of each slice can be moved, int64 `(slices,)`.
        shards: numbers of the shards that hold the slices, ascending.
        shard_of: where in `shards` that of each slice is, int64 `(slices,)`.
    """

    def __init__(
        self,
        store: Store,
        slices: pa.Table,
        labels: np.ndarray,
        *,
        frames: int,
        batch_size: int,
        device: torch.device,
        seed: int | None = None,
        strata: np.ndarray | None = None,
        squeeze: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.labels, self.frames, self.device = labels, frames, device
        self.residency: Residency = "device"
        self.skip_damaged = False
        self.damaged: dict[int, StoreError] = {}
        self._host: dict[int, np.ndarray] = {}
        self._strata = strata
        self._store, self._spec, self._seed, self._squeeze = store, store.spec, seed, squeeze
        self.shards, self.shard_of = np.unique(slices["shard"].to_numpy(), return_inverse=True)
        self._first = slices["first_frame"].to_numpy()
        self._length = slices["n_frames"].to_numpy().astype(np.int64)
        self.spare = np.zeros_like(self._length) if squeeze else np.maximum(self._length - frames, 0)
        self._stop = np.zeros(len(self.shards), np.int64)  # what is needed of each shard ends here
        np.maximum.at(self._stop, self.shard_of, self._first + self._length)
        n_batches = -(-len(slices) // batch_size)
        rank, size = share
        self._stretch = slice(len(slices) * rank // size, len(slices) * (rank + 1) // size)
        n = self._stretch.stop - self._stretch.start
        self._bounds = [n * batch // n_batches for batch in range(n_batches + 1)] if n_batches else [0]
        self._ramp = torch.arange(frames, device=device)
        # Copies run beside the computation on a CUDA stream of their own; elsewhere None, which changes nothing.
        self._side_stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._bounds) - 1

    @property
    def bins(self) -> int:
        """Values of a frame."""
        return self._spec.bins

    @property
    def nbytes(self) -> int:
        """Bytes of all frames as stored."""
        return int(self._stop.sum()) * self._frame_bytes

    @property
    def n_repeated(self) -> int:
        """Slices that are shorter than a window and repeated."""
        return 0 if self._squeeze else int(np.count_nonzero(self._length < self.frames))

    def order(self, epoch: int) -> Order:
        """What an epoch reads: a pure function of the seed and `epoch`."""
        n = len(self.shard_of)
        if self._seed is None:
            drawn = keys = np.arange(n)
            shards, crops = np.arange(len(self.shards)), self.spare // 2
        else:
            # Only `random`, whose stream NumPy has never changed: `permutation` and `integers` make no such promise.
            generator = np.random.default_rng([self._seed, epoch])
            shards = np.argsort(generator.random(len(self.shards)))
            drawn = np.arange(n) if self._strata is None else balanced(self._strata, generator)
            keys = np.argsort(generator.random(n))
            crops = (generator.random(n) * (self.spare[drawn] + 1)).astype(np.int64)
        place = np.argsort(shards)[self.shard_of]
        stretch = np.lexsort((keys, place[drawn]))[self._stretch]
        groups = self._deal(shards[np.unique(place[drawn[stretch]])])
        group_of = np.full(len(self.shards), -1)
        for number, members in enumerate(groups):
            group_of[members] = number
        group = group_of[self.shard_of]
        draws = stretch[np.lexsort((keys[stretch], group[drawn[stretch]]))]
        return Order(drawn[draws], draws, crops, group, groups)

    def batches(self, epoch: int = 0, start: int = 0, order: Order | None = None) -> Generator[Batch, None, None]:
        """The batches of an epoch from number `start` on: (epoch, batch) is all the state there is.

        Args:
            epoch: number of the epoch, from 0.
            start: number of the first batch.
            order: what to read instead of `order(epoch)`.

        Raises:
            StoreError: a shard is missing or damaged.
        """
        if start >= len(self):
            return
        order = order or self.order(epoch)
        current = order.group[order.rows[self._bounds[start]]]
        with contextlib.closing(self._pools(order.groups[current:])) as pools:
            pool = next(pools)
            for number, (begin, end) in enumerate(itertools.pairwise(self._bounds[start:]), start):
                parts, kept = [], []
                group = order.group[order.rows[begin:end]]
                for places in np.split(np.arange(begin, end), np.flatnonzero(np.diff(group)) + 1):
                    if order.group[order.rows[places[0]]] != current:
                        pool, current = next(pools), order.group[order.rows[places[0]]]
                    readable = places[~pool.lost[self.shard_of[order.rows[places]]]]
                    parts.append(self._cut(pool, order.rows[readable], order.crops[order.draws[readable]]))
                    kept.append(readable)
                left = np.concatenate(kept)
                if not len(left) or (len(left) == 1 < end - begin and self._seed is not None):
                    continue
                rows = order.rows[left]
                labels = torch.from_numpy(self.labels[rows]).to(self.device)
                shown = self._shown(self._values(parts), epoch, rows, order.draws[left])
                yield Batch(shown, labels, rows, order.draws[left], number)

    def _deal(self, drawn: np.ndarray) -> list[np.ndarray]:
        """The shards in groups of at most `GROUP_BYTES`, in the order they were drawn."""
        groups: list[list[int]] = []
        filled = GROUP_BYTES
        for shard in drawn:
            nbytes = int(self._stop[shard]) * self._frame_bytes
            if filled + nbytes > GROUP_BYTES:
                groups.append([])
                filled = 0
            groups[-1].append(shard)
            filled += nbytes
        return [np.array(group) for group in groups]

    def _pools(self, groups: list[np.ndarray]) -> Generator[Pool, None, None]:
        """The pool of each group. Two exist at a time: one in use and one that a thread reads meanwhile."""
        if self.residency == "device":
            yield from itertools.repeat(self._everything, len(groups))
            return
        with ThreadPoolExecutor(1, "shards") as reader:
            following: Future[Pool] = reader.submit(self._load, groups[0])
            for group in [*groups[1:], None]:
                pool = following.result()
                if group is not None:
                    following = reader.submit(self._load, group)
                yield self._received(pool)

    @cached_property
    def _everything(self) -> Pool:
        return self._received(self._load(np.arange(len(self.shards))))

    def release(self) -> None:
        """Forget what has been read and kept."""
        self.__dict__.pop("_everything", None)
        self._host.clear()

    def _load(self, shards: np.ndarray) -> Pool:
        """Read shards and send them to the device."""
        stop = self._stop[shards]
        base = np.zeros(len(self.shards), np.int64)
        base[shards] = np.cumsum(stop) - stop
        lost = np.zeros(len(self.shards), bool)
        shape = int(stop.sum()), self._spec.bins
        with torch.cuda.stream(self._side_stream):
            frames = torch.empty(shape, dtype=getattr(torch, self._spec.dtype), device=self.device)
            for shard in shards:
                try:
                    stored = torch.from_numpy(self._stored(int(shard)))
                except StoreError as error:
                    if not self.skip_damaged:
                        raise
                    self.damaged[int(shard)] = error
                    lost[shard] = True
                    continue
                if self._side_stream:
                    stored = stored.pin_memory()
                frames[base[shard] : base[shard] + len(stored)].copy_(stored, non_blocking=stored.is_pinned())
            return Pool(frames, base, lost, self._side_stream.record_event() if self._side_stream else None)

    def _stored(self, shard: int) -> np.ndarray:
        """The frames of a shard, from the host's memory where they stay there."""
        if shard in self._host:
            return self._host[shard]
        stored = self._read(shard)
        if self.residency == "host":
            self._host[shard] = stored
        return stored

    def _read(self, shard: int) -> np.ndarray:
        number, stop = int(self.shards[shard]), int(self._stop[shard])
        stored = self._store.read(number, 0, stop)
        if stored.shape != (stop, self._spec.bins):
            raise StoreError(
                f"{self._store.shard_path(number)}: {stored.shape} values where the manifest has frames up to {stop}",
                "run the same `mgc extract` again: it repairs what is broken",
            )
        return stored

    def _received(self, pool: Pool) -> Pool:
        """The pool, once the device's current stream may use it."""
        if pool.ready is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(pool.ready)
            # It was allocated on the side stream: its memory must outlive what this one still does with it.
            pool.frames.record_stream(stream)
        return pool

    def _cut(self, pool: Pool, rows: np.ndarray, crops: np.ndarray) -> Tensor:
        """Windows of the slices in `rows`, `crops` frames into them, in the stored dtype, gathered on the device."""
        begins = pool.base[self.shard_of[rows]] + self._first[rows]
        columns = np.stack([begins, crops, self._length[rows]])[..., None]
        begin, crop, length = torch.from_numpy(columns).to(self.device)
        within = self._ramp * length // self.frames if self._squeeze else (crop + self._ramp) % length
        index = begin + within
        # On the CPU this is 4 times faster than frames[index].
        return pool.frames.index_select(0, index.flatten()).view(len(rows), self.frames, self._spec.bins)

    def _values(self, parts: list[Tensor]) -> Tensor:
        """What `FeatureSpec.decode` makes of stored values, on the device."""
        values = (parts[0] if len(parts) == 1 else torch.cat(parts)).float()
        return values.mul_(self._spec.scale).add_(self._spec.offset) if self._spec.quantised else values

    def _shown(self, values: Tensor, epoch: int, rows: np.ndarray, draws: np.ndarray) -> Tensor:
        """What a batch shows of the values of its rows and draws in an epoch: all of them, where they are frames."""
        return values

    @property
    def _frame_bytes(self) -> int:
        return self._spec.bins * np.dtype(self._spec.dtype).itemsize


def fits(nbytes: int, device: torch.device) -> bool:
    """Whether this many bytes of frames can stay on the device."""
    return nbytes <= RESIDENT_SHARE * free_memory(device)
