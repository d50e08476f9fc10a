"""Feature stores for scripts and notebooks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.runs.selection import classes_of, usable_tracks
from mgc.pipeline import suggestions
from mgc.pipeline.errors import StoreError
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.storage.urls import parse_place
from mgc.pipeline.store.store import Store

if TYPE_CHECKING:
    from xarray import DataArray

    from mgc.models.interface.slices import Batches, SliceDataset

#: A path on this machine or, as text, a URL.
PathLike: TypeAlias = str | os.PathLike[str]


def open_store(path: PathLike) -> FeatureStore:
    """Open a feature store, as `mgc extract` and `mgc.extract` make them.

    Args:
        path: folder or URL of the store.

    Raises:
        MgcError: there is no store, it is damaged, or its extraction is unfinished.

    >>> import mgc
    >>> store = mgc.open_store("features/mel")
    >>> store.genres
    ('blues', 'techno')
    >>> mgc.open_store("features/mfcc")
    Traceback (most recent call last):
    mgc.pipeline.errors.StoreError: features/mfcc: no feature store; make one with `mgc extract`, or name another folder
    """
    store = Store.open(parse_place(os.fspath(path)))
    store.require_finished()
    return FeatureStore(store)


@dataclass(frozen=True, repr=False)
class FeatureStore:
    """A finished feature store, open for reading; `open_store` returns it.

    Attributes:
        core: the store as mgc's own modules use it.
    """

    core: Store

    def __repr__(self) -> str:
        return f"mgc.open_store({str(self.path)!r})"

    @property
    def path(self) -> Place:
        """Folder or URL of the store."""
        return self.core.path

    @property
    def spec(self) -> FeatureSpec:
        """The feature with its parameters.

        >>> str(store.spec)
        'mel sr=22050 n_fft=2048 hop_length=512 dtype=uint8 n_mels=128 fmin=0.0'
        """
        return self.core.spec

    @property
    def tracks(self) -> pa.Table:
        """One row per track, dropped ones included: id, path, genre, artist, split, status, reason, duration ...

        >>> frame = store.tracks.to_pandas()
        >>> sorted(frame["split"].unique())
        ['test', 'training', 'validation']

        Raises:
            MgcError: the table is damaged.
        """
        return self.core.tracks

    @property
    def slices(self) -> pa.Table:
        """One row per slice of the default cut: track id, split, start in seconds, frames, variant ...

        >>> store.slices.column_names
        ['track_id', 'split', 'start_s', 'shard', 'first_frame', 'n_frames', 'variant']

        Raises:
            MgcError: the table is damaged.
        """
        return self.core.slices

    @cached_property
    def genres(self) -> tuple[str, ...]:
        """Genres of the tracks that have a split and a slice, in the order of labels and of a model's outputs."""
        return classes_of(self.core, usable_tracks(self.core))

    def read(self, track_id: str) -> np.ndarray:
        """Read all frames of a track.

        Args:
            track_id: id of the track, as in `tracks`.

        Returns:
            Frames in dB, or in the feature's own unit, float32 `(frames, bins)`.

        Raises:
            MgcError: the store has no such track, has dropped it, or its frames are damaged.

        >>> frames = store.read("blues/blues00")
        >>> frames.shape, frames.dtype
        ((173, 128), dtype('float32'))
        """
        tracks = self.core.read_tracks(["track_id", "status", "reason", "shard", "first_frame", "n_frames"])
        found = tracks.filter(pc.equal(tracks["track_id"], str(track_id))).to_pylist()
        if not found:
            near = suggestions.question(suggestions.nearest(str(track_id), tracks["track_id"].to_pylist()))
            raise StoreError(f"{self.path}: no track {track_id}", f"{near}`.tracks` lists the ids")
        row = found[0]
        if not row["n_frames"]:
            problem = f"{self.path}: no frames of {track_id}, which was dropped ({row['reason']})"
            raise StoreError(problem, "choose a track whose status is ok")
        stored = self.core.read(row["shard"], row["first_frame"], row["first_frame"] + row["n_frames"])
        return self.spec.decode(stored)

    def xarray(self) -> DataArray:
        """Return all tracks as one labelled array; nothing is read before values are computed.

        The dimensions are `track`, `time` (in seconds) and the bins of the feature: `frequency` in Hz where it has
        frequencies. Shorter tracks end in NaN. Genre, artist and split are coordinates of the tracks.

        Raises:
            MgcError: xarray is not installed.

        >>> array = store.xarray()
        >>> array.dims
        ('track', 'time', 'frequency')
        >>> excerpt = array[0].sel(time=slice(1, 2), frequency=slice(0, 4000)).compute()
        """
        from mgc.models.interface.labelled import labelled

        return labelled(self.core)

    def torch(
        self,
        split: str,
        batch_size: int = 32,
        device: str = "auto",
        *,
        frames: int | None = None,
        seed: int | None = None,
    ) -> Batches:
        """Return the slices of a split as batches on a device.

        This is how mgc trains: shards are read whole and stay on the device if they fit, and windows are cut there.

        Args:
            split: `training`, `validation` or `test`.
            batch_size: maximum number of slices per batch.
            device: `auto` (the GPU if there is one), `cpu`, `cuda`, `cuda:N` or `mps`.
            frames: frames that are shown of a slice; None shows the whole slice. A shorter slice is repeated.
            seed: seed of the order of slices and of the place of shorter windows, both drawn anew in each epoch; None
                keeps the order of `slices`, and takes windows from the centre.

        Raises:
            MgcError: there is no such split or device, or no slice in the split.

        >>> for batch in store.torch("training", batch_size=16, device="cpu", seed=0):
        ...     shape, labels = batch.frames.shape, batch.labels
        >>> shape[1:]
        torch.Size([130, 128])
        """
        from mgc.models.interface.slices import Batches

        return Batches.of(self.core, split, batch_size, device, frames, seed)

    def dataset(self, split: str, *, frames: int | None = None) -> SliceDataset:
        """Return the slices of a split as a map-style dataset, for `torch.utils.data.DataLoader` and other loops.

        Args:
            split: `training`, `validation` or `test`.
            frames: frames that are shown of a slice, from its centre; None shows the whole slice.

        Raises:
            MgcError: there is no such split, or no slice in it.

        >>> data = store.dataset("training")
        >>> frames, label = data[0]
        >>> frames.shape, data.classes[label] in store.genres
        (torch.Size([130, 128]), True)
        """
        from mgc.models.interface.slices import SliceDataset

        return SliceDataset(self.core, split, frames)
