"""The slices of a store for PyTorch: batches on a device, and a map-style dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mgc.models.data.fit import typical_length
from mgc.models.data.split_data import RunInputs, SplitData, set_residency
from mgc.models.data.stream import Batch, Batching
from mgc.models.parallel.device import choose_device
from mgc.models.runs.selection import Selection, classes_of, usable_tracks
from mgc.pipeline.datasets.tracks import SPLITS
from mgc.pipeline.errors import SpecError, StoreError
from mgc.pipeline.store.store import Store


class Batches:
    """The slices of a split, batch by batch; `FeatureStore.torch` returns them. Each loop over them is an epoch.

    Attributes:
        classes: genres in the order of the labels.
        slices: one row per slice (`track_id`, `start_s`, ...); `Batch.rows` counts in it.
        epoch: number of the next epoch, from 0. With a seed, slices come in another order in each.

    >>> batches = store.torch("training", batch_size=32, device="cpu")
    >>> len(batches), batches.epoch
    (1, 0)
    """

    def __init__(self, data: SplitData, classes: tuple[str, ...]) -> None:
        self.classes, self.slices, self.epoch = classes, data.slices, 0
        self._stream = data.stream

    @classmethod
    def of(
        cls, store: Store, split: str, batch_size: int, device: str, frames: int | None, seed: int | None
    ) -> Batches:
        """Open the batches of a split; for the arguments see `FeatureStore.torch`."""
        if batch_size < 1:
            raise SpecError(f"batch_size={batch_size}", "it must be at least 1")
        if seed is not None and seed < 0:
            raise SpecError(f"seed={seed}", "it must be 0 or more")
        chosen = choose_device(device)
        selection, slices, _ = split_slices(store, split)
        inputs = RunInputs(selection, [store], store.slicing, [window(slices, frames)])
        data = inputs.split(split, Batching(batch_size, chosen, seed))
        set_residency([data], chosen)
        return cls(data, selection.classes)

    def __len__(self) -> int:
        """Number of batches per epoch."""
        return len(self._stream)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the next epoch.

        Raises:
            MgcError: a shard is missing or damaged.
        """
        number, self.epoch = self.epoch, self.epoch + 1
        yield from self._stream.batches(number)


class SliceDataset(Dataset[tuple[Tensor, int]]):
    """The slices of a split by number, each with its label; `FeatureStore.dataset` returns it.

    It can be pickled, and read in the workers of a `DataLoader`, be they forked or spawned. Each slice is read from the
    store when it is asked for, which takes a few milliseconds; `FeatureStore.torch` reads shards as a whole instead.

    Args:
        store: a finished store.
        split: `training`, `validation` or `test`.
        frames: frames that are shown of a slice, from its centre; None shows the whole slice.

    Attributes:
        classes: genres in the order of the labels.
        slices: one row per slice (`track_id`, `start_s`, ...), in the order of the dataset.
        labels: class index of each slice, int64 `(slices,)`.
        frames: frames of each item.

    Raises:
        MgcError: there is no such split, or no slice in it.

    >>> from torch.utils.data import DataLoader
    >>> loader = DataLoader(store.dataset("training"), batch_size=4, shuffle=True)
    >>> frames, labels = next(iter(loader))
    >>> frames.shape, labels.dtype
    (torch.Size([4, 130, 128]), torch.int64)
    """

    def __init__(self, store: Store, split: str, frames: int | None = None) -> None:
        selection, self.slices, self.labels = split_slices(store, split)
        self.classes, self.frames = selection.classes, window(self.slices, frames)
        self._store = dataclasses.replace(store)  # without the tables that it has read, which workers do not need
        self._shards = self.slices["shard"].to_numpy()
        self._first = self.slices["first_frame"].to_numpy()
        self._length = self.slices["n_frames"].to_numpy().astype(np.int64)

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Read a slice.

        Args:
            index: number of the slice; negative ones count from the end.

        Returns:
            Frames in dB, or in the feature's own unit, float32 `(frames, bins)`, and the class index.

        Raises:
            IndexError: there is no slice of this number.
            MgcError: the shard is missing or damaged.
        """
        number = range(len(self))[index]
        length = int(self._length[number])
        # The same window as a stream without a seed shows: the centre of a long slice, a short one repeated.
        begin = int(self._first[number]) + max(length - self.frames, 0) // 2
        stored = self._store.read(int(self._shards[number]), begin, begin + min(length, self.frames))
        values = self._store.spec.decode(stored)
        if length < self.frames:
            values = values[np.arange(self.frames) % length]
        return torch.from_numpy(values), int(self.labels[number])


def split_slices(store: Store, split: str) -> tuple[Selection, pa.Table, np.ndarray]:
    """List the slices of a split of a store, cut by its default cut, without variants.

    Returns:
        The usable tracks of all splits; slice table (`SLICE_SCHEMA`); class index of each slice, int64 `(slices,)`.

    Raises:
        SpecError: there is no such split.
        StoreError: the split has no slices.
    """
    require_split(split)
    tracks = usable_tracks(store).sort_by("track_id").combine_chunks()
    selection = Selection(classes_of(store, tracks), tracks)
    slices, labels = selection.slices(store, store.slicing, split)
    if not len(slices):
        raise StoreError(f"{store.path}: no slice of a labelled track in the {split} split", "`mgc split` shows them")
    return selection, slices, labels


def require_split(split: str) -> None:
    """Raise `SpecError` if there is no split of this name."""
    if split not in SPLITS:
        raise SpecError(f"split {split!r}: there is no such split", f"choose from {', '.join(SPLITS)}")


def window(slices: pa.Table, frames: int | None) -> int:
    """Return the number of frames to show of each slice: those asked for, or else the length of the slices."""
    if frames is not None and frames < 1:
        raise SpecError(f"frames={frames}", "it must be at least 1")
    return typical_length(slices["n_frames"].to_numpy()) if frames is None else frames
