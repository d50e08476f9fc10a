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

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mgc.models.runs.narrow import dtype_for, narrow, narrowed, parts

#: Raw bytes of the shards whose slices are shuffled together; streaming holds two such groups.
GROUP_BYTES = 256_000_000

#: Draws that are sorted at a time.
BLOCK = 1 << 21


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
        rows: rows of the slice table in reading order, integers `(n,)`: all slices, or the part of one process.
        draws: index of the draw of each of these rows, integers `(n,)`.
        crops: first frame of the window of each draw, relative to its slice, integers `(slices,)`.
        shard_of: shard of each row of the slice table, integers `(slices,)`.
        group_of_shard: group of each shard, int64 `(shards,)`; -1 if it is not read.
        groups: shards of each group, as indices of `EpochSampler.shard_nbytes`.
    """

    rows: np.ndarray
    draws: np.ndarray
    crops: np.ndarray
    shard_of: np.ndarray
    group_of_shard: np.ndarray
    groups: list[np.ndarray]

    def group_of(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return the group of rows of the slice table, int64; -1 if their shard is not read."""
        return self.group_of_shard[self.shard_of[rows]]


@dataclass(frozen=True)
class EpochSampler:
    """Draws the order of each epoch.

    Attributes:
        shard_of: shard of each slice, integers `(slices,)`, as an index of `shard_nbytes`.
        shard_nbytes: bytes to read of each shard, int64 `(shards,)`.
        seed: seed of the order and of the windows; None keeps the order of the slice table and takes windows from the
            centre of each slice.
        strata: stratum of each slice to balance by, such as its class, as indices from 0, integers `(slices,)`; None
            for every slice once.
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
            spare: frames by which the window of each slice can be moved, integers `(slices,)`.
        """
        n, n_shards = len(self.shard_of), len(self.shard_nbytes)
        drawn = keys = None  # every row once, in the order of the rows
        if self.seed is None:
            shards, crops = np.arange(n_shards), narrow(n, lambda part: spare[part] // 2)
        else:
            # Only `random`, whose stream NumPy has never changed: `permutation` and `integers` make no such promise.
            generator = np.random.default_rng([self.seed, epoch])
            shards = np.argsort(generator.random(n_shards))
            if self.strata is not None:
                drawn = narrowed(sample_balanced(self.strata, generator))
            keys = draw_permutation(n, generator)
            crops = _draw_crops(spare, drawn, generator)
        shard_of = self.shard_of if drawn is None else narrow(n, lambda part: self.shard_of[drawn[part]])
        draws = _Draws(shard_of, keys)
        left_out, used = draws.share(shards, process_slice(n, self.share))
        groups = self._group_shards(used)
        group_of_shard = np.full(n_shards, -1)
        for number, members in enumerate(groups):
            group_of_shard[members] = number
        own_draws = draws.by_group(group_of_shard, left_out)
        rows = own_draws if drawn is None else narrow(len(own_draws), lambda part: drawn[own_draws[part]])
        return Order(rows, own_draws, crops, self.shard_of, group_of_shard, groups)

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


@dataclass(frozen=True)
class _Draws:
    """The draws of an epoch, to be sorted block by block, so that sorting takes little memory beside the result.

    Attributes:
        shard_of: shard of each draw, integers `(slices,)`.
        keys: draws of a group come in the order of these, which are all different, integers `(slices,)`; None for the
            order of the draws themselves.
    """

    shard_of: np.ndarray
    keys: np.ndarray | None

    def share(self, shards: np.ndarray, own: slice) -> tuple[np.ndarray, np.ndarray]:
        """Divide the draws, laid out shard by shard and by key within each, between processes.

        Args:
            shards: shards in the order in which they are laid out.
            own: part of the process.

        Returns:
            Draws of other processes in shards that this one reads, int64, ascending; shards that this process reads,
            in their order.
        """
        counts = np.zeros(len(shards), np.int64)
        for part in parts(len(self.shard_of)):
            counts += np.bincount(self.shard_of[part], minlength=len(shards))
        counts = counts[shards]
        begin = np.cumsum(counts) - counts
        low, high = np.clip(own.start - begin, 0, counts), np.clip(own.stop - begin, 0, counts)
        position, left_out = np.argsort(shards), [np.empty(0, np.int64)]
        for at in np.flatnonzero((low < high) & (high - low < counts)).tolist():
            members = self._of(position, at)
            members = members[np.argsort(self._keys(members))]
            left_out += [members[: low[at]], members[high[at] :]]
        return np.sort(np.concatenate(left_out)), shards[low < high]

    def by_group(self, group_of_shard: np.ndarray, left_out: np.ndarray) -> np.ndarray:
        """Sort draws by group, and by key within each.

        Args:
            group_of_shard: group of each shard, int64 `(shards,)`; -1 for shards to leave out.
            left_out: draws to leave out, int64.

        Returns:
            Draws, integers `(n,)`.
        """
        n_groups = int(group_of_shard.max(initial=-1)) + 1
        counts = np.zeros(n_groups + 1, np.int64)
        for part in parts(len(self.shard_of)):
            counts += np.bincount(group_of_shard[self.shard_of[part]] + 1, minlength=n_groups + 1)
        # Consecutive groups are sorted together, up to `BLOCK` draws if they are small.
        block_of_group = (np.cumsum(counts[1:]) - counts[1:]) // BLOCK
        block_of_shard = np.where(group_of_shard < 0, -1, np.append(block_of_group, -1)[group_of_shard])
        result = np.empty(counts[1:].sum() - len(left_out), dtype_for(0, len(self.shard_of)))
        filled = 0
        for block in np.unique(block_of_group).tolist():
            draws = self._of(block_of_shard, block)
            if len(left_out):
                draws = draws[~np.isin(draws, left_out)]
            group = group_of_shard[self.shard_of[draws]]
            result[filled : filled + len(draws)] = draws[np.lexsort((self._keys(draws), group))]
            filled += len(draws)
        return result

    def _of(self, values: np.ndarray, value: int) -> np.ndarray:
        """Return the draws whose shards have a value in an array of one value for each shard, int64, ascending."""
        n = len(self.shard_of)
        found = [np.flatnonzero(values[self.shard_of[part]] == value) + part.start for part in parts(n)]
        return np.concatenate([np.empty(0, np.int64), *found])

    def _keys(self, draws: np.ndarray) -> np.ndarray:
        return draws if self.keys is None else self.keys[draws]


def draw_permutation(n: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a random permutation: `argsort(generator.random(n))`, in half the memory, or a tenth if `n` is large.

    The numbers are sorted in blocks of equal ranges; for each, they are drawn anew.

    Args:
        n: number of values.
        generator: source of random numbers, which ends as after one call of `random(n)`.

    Returns:
        Integers `(n,)`.
    """
    result = np.empty(n, dtype_for(0, n))
    state, n_blocks = generator.bit_generator.state, -(-n // BLOCK)
    filled = 0
    for block in range(n_blocks):
        generator.bit_generator.state = state
        found, numbers = [], []
        for part in parts(n):
            values = generator.random(part.stop - part.start)
            # The product is monotonic, so each value is in one block, and blocks follow each other.
            inside = np.flatnonzero((values * n_blocks).astype(np.int64) == block)
            found.append(inside + part.start)
            numbers.append(values[inside])
        sorted_draws = np.concatenate(found)[np.argsort(np.concatenate(numbers))]
        result[filled : filled + len(sorted_draws)] = sorted_draws
        filled += len(sorted_draws)
    return result


def _draw_crops(spare: np.ndarray, drawn: np.ndarray | None, generator: np.random.Generator) -> np.ndarray:
    """Draw the first frame of each draw's window, evenly from 0 to the spare frames of its slice.

    Args:
        spare: see `EpochSampler.order`.
        drawn: slice of each draw, integers `(slices,)`; None for each slice once.
        generator: source of random numbers; not used if no window can be moved.

    Returns:
        Integers `(slices,)`.
    """
    most = int(spare.max(initial=0))
    if most == 0:
        return np.broadcast_to(np.int32(0), len(spare))
    crops = np.empty(len(spare), dtype_for(0, most))
    for part in parts(len(spare)):
        of_draws = spare[part] if drawn is None else spare[drawn[part]]
        crops[part] = generator.random(len(of_draws)) * (of_draws.astype(np.int64) + 1)
    return crops


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
        Rows of the drawn slices, integers `(slices,)`, in unspecified order.
    """
    n, counts = len(strata), np.bincount(strata)
    by_stratum = _sort_by_stratum(strata, counts, draw_permutation(n, generator))
    total = 0.0
    for _, edges in _edges(by_stratum, strata, counts):
        total = edges[-1]
    start, scale = generator.random(), n / total
    # Visit k goes to the slice before the first edge beyond k + start. Edges and visits ascend.
    drawn, visited = np.empty_like(by_stratum), 0
    for part, edges in _edges(by_stratum, strata, counts):
        edges *= scale
        visits = np.arange(visited, min(n, int(edges[-1]) + 2)) + start
        visits = visits[: np.searchsorted(visits, edges[-1])]
        steps = np.searchsorted(edges, visits, side="right")
        drawn[visited : visited + len(steps)] = by_stratum[part][steps]
        visited += len(steps)
    drawn[visited:] = by_stratum[-1]  # by rounding, the last edge may lie before the last visit
    return drawn


def _sort_by_stratum(strata: np.ndarray, counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sort rows by stratum; those of a stratum stay in their order. A counting sort, part by part.

    Args:
        strata: see `sample_balanced`.
        counts: number of slices of each stratum, int64.
        rows: all rows, integers `(slices,)`.
    """
    result, filled = np.empty_like(rows), np.cumsum(counts) - counts
    for part in parts(len(rows)):
        order = np.argsort(strata[rows[part]], kind="stable")
        members = rows[part][order]
        stratum, first, n_members = np.unique(strata[members], return_index=True, return_counts=True)
        result[np.arange(len(members)) + np.repeat(filled[stratum] - first, n_members)] = members
        filled[stratum] += n_members
    return result


def _edges(by_stratum: np.ndarray, strata: np.ndarray, counts: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the end of each slice's share when slices are laid out by stratum and all strata have the same size of 1.

    Args:
        by_stratum: rows, sorted by stratum, integers `(slices,)`.
        strata, counts: see `_sort_by_stratum`.

    Yields:
        Part of the rows, and the ends, float64, ascending over all parts: bit for bit `cumsum` of all shares.
    """
    end = 0.0
    for part in parts(len(by_stratum)):
        shares = 1 / counts[strata[by_stratum[part]]]
        shares[0] += end
        edges = np.cumsum(shares)
        end = edges[-1]
        yield part, edges
