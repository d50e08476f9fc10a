"""Sampling: which slices an epoch reads, in which order, and which window of each.

The order is a pure function of seed and epoch; it does not depend on how much of the data stays in memory. Shards are
shuffled and packed into groups, then the slices of each group are shuffled. Since tracks are assigned to shards by a
hash, this equals a full shuffle for practical purposes.

With several processes, each reads one contiguous part of the epoch: the slices, ordered shard by shard in the order in
which the shards are drawn, are divided evenly. So no slice is read twice, the processes' counts differ by one slice at
most, and a shard is read by more than one process only if a boundary goes through it (at most one boundary fewer than
there are processes).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Raw bytes of the shards whose slices are shuffled together; streaming holds two such groups.
GROUP_BYTES = 256_000_000


@dataclass(frozen=True)
class Sampling:
    """Settings of drawing the training slices of an epoch. The defaults take every slice once, as it is cut.

    Attributes:
        variants: also draw the augmentation variants of the training tracks; ignored with several stores.
        balance: `class` or `track` to draw equally many slices of each class or track; `none` for every slice once.
        crop: draw windows from the whole track instead of from within each slice.
    """

    variants: bool = False
    balance: str = "none"
    crop: bool = False


#: Every slice once an epoch, as it is cut.
EVERY_SLICE = Sampling()


@dataclass(frozen=True)
class Order:
    """The slices that an epoch reads, in order.

    A draw is one occurrence of a slice in the epoch. Without balancing, every slice is drawn once and the draw is the
    slice's row; with balancing, a slice can be drawn several times, each time with another window.

    Attributes:
        rows: rows of the slice table in reading order, int64 `(n,)`: all slices, or the part of one process.
        draws: index of the draw of each of these rows, int64 `(n,)`.
        crops: first frame of the window of each draw, relative to its slice, int64 `(slices,)`.
        group_of: group of each row of the slice table, int64 `(slices,)`; -1 if its shard is not read.
        groups: shards of each group, as indices of `EpochSampler.shard_nbytes`.
    """

    rows: np.ndarray
    draws: np.ndarray
    crops: np.ndarray
    group_of: np.ndarray
    groups: list[np.ndarray]


@dataclass(frozen=True)
class EpochSampler:
    """Draws the order of each epoch.

    Attributes:
        shard_of: shard of each slice, int64 `(slices,)`, as an index of `shard_nbytes`.
        shard_nbytes: bytes to read of each shard, int64 `(shards,)`.
        seed: seed of the order and of the windows; None keeps the order of the slice table and takes windows from the
            centre of each slice.
        strata: stratum of each slice to balance by, such as its class, as indices from 0, int64 `(slices,)`; None for
            every slice once.
        share: this process and the number of processes, `(rank, world size)`.
    """

    shard_of: np.ndarray
    shard_nbytes: np.ndarray
    seed: int | None
    strata: np.ndarray | None
    share: tuple[int, int]

    def order(self, epoch: int, spare: np.ndarray) -> Order:
        """Draw the order of an epoch.

        Args:
            epoch: number of the epoch, from 0.
            spare: frames by which the window of each slice can be moved, int64 `(slices,)`.
        """
        n, n_shards = len(self.shard_of), len(self.shard_nbytes)
        if self.seed is None:
            drawn = keys = np.arange(n)
            shards, crops = np.arange(n_shards), spare // 2
        else:
            # Only `random`, whose stream NumPy has never changed: `permutation` and `integers` make no such promise.
            generator = np.random.default_rng([self.seed, epoch])
            shards = np.argsort(generator.random(n_shards))
            drawn = np.arange(n) if self.strata is None else sample_balanced(self.strata, generator)
            keys = np.argsort(generator.random(n))
            crops = (generator.random(n) * (spare[drawn] + 1)).astype(np.int64)
        position = np.argsort(shards)[self.shard_of]
        own_draws = np.lexsort((keys, position[drawn]))[process_slice(n, self.share)]
        groups = self._group_shards(shards[np.unique(position[drawn[own_draws]])])
        group_of_shard = np.full(n_shards, -1)
        for number, members in enumerate(groups):
            group_of_shard[members] = number
        group_of = group_of_shard[self.shard_of]
        draws = own_draws[np.lexsort((keys[own_draws], group_of[drawn[own_draws]]))]
        return Order(drawn[draws], draws, crops, group_of, groups)

    def _group_shards(self, shards: np.ndarray) -> list[np.ndarray]:
        """Pack shards, in their order, into groups of at most `GROUP_BYTES`."""
        groups: list[list[int]] = []
        filled = GROUP_BYTES
        for shard in shards:
            nbytes = int(self.shard_nbytes[shard])
            if filled + nbytes > GROUP_BYTES:
                groups.append([])
                filled = 0
            groups[-1].append(shard)
            filled += nbytes
        return [np.array(group) for group in groups]


def process_slice(n: int, share: tuple[int, int]) -> slice:
    """The part of `n` items that belongs to one process: contiguous, and of equal size to within one item.

    Args:
        n: number of items.
        share: this process and the number of processes, `(rank, world size)`.
    """
    rank, world_size = share
    return slice(n * rank // world_size, n * (rank + 1) // world_size)


def sample_balanced(strata: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw as many slices as there are, the same number from each stratum to within one.

    Systematic sampling (Madow, 1944): the slices are laid out by stratum, in random order within it, and visited at
    steps that cover the same share of every stratum. Within a stratum, the counts of two slices differ by one at most.

    Args:
        strata: stratum of each slice, such as its class or its track, as indices from 0, `(slices,)`.
        generator: source of random numbers; only its `random` is used, whose stream NumPy has never changed.

    Returns:
        Rows of the drawn slices, int64 `(slices,)`, in unspecified order.
    """
    n = len(strata)
    by_stratum = np.lexsort((generator.random(n), strata))
    edges = np.cumsum(1 / np.bincount(strata)[strata[by_stratum]])
    steps = np.searchsorted(edges * (n / edges[-1]), np.arange(n) + generator.random(), side="right")
    return by_stratum[np.minimum(steps, n - 1)]
