"""Loaders that read an epoch of slices: the stream of mgc, and the alternatives to compare it with."""

from __future__ import annotations

import functools
import importlib.util
import io
import itertools
import tarfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import common  # noqa: F401  before NumPy: it limits the threads of the libraries
import numpy as np
import torch
from noise import CLASSES

from mgc.models.data.stream import Batch, Batching, Residency, Stream
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.store.shard import read_frames
from mgc.pipeline.store.store import Store

#: Worker processes of the DataLoaders, and slices per tar file of WebDataset.
WORKERS, SLICES_PER_TAR = 2, 100


class UndecodedStream(Stream):
    """Stream of frames in the dtype of the store, without decoding to float32."""

    def _decode(self, windows: list[torch.Tensor]) -> torch.Tensor:
        return windows[0] if len(windows) == 1 else torch.cat(windows)


def open_stream(
    store: Store, device: torch.device, residency: Residency, batch_size: int, frames: int, kind: type[Stream]
) -> Stream:
    """Open a stream of all slices of a store.

    Args:
        store: store of noise.
        device: device of the batches.
        residency: location of the frames.
        batch_size: slices per batch.
        frames: frames per slice.
        kind: class of the stream.
    """
    labels = np.arange(len(store.slices)) % CLASSES
    stream = kind(store, store.slices, labels, frames, Batching(batch_size, device, seed=0))
    stream.residency = residency
    return stream


def endless_batches(stream: Stream, start: int = 0) -> Generator[Batch, None, None]:
    """Generate the batches of epoch after epoch, from batch number `start` of the first one on."""
    for epoch in itertools.count():
        yield from stream.batches(epoch, 0 if epoch else start)


class Slices(torch.utils.data.Dataset):
    """PyTorch dataset that reads each slice on its own from its Zarr shard.

    Args:
        store: store of noise.
        decode: whether to decode frames to float32; otherwise they keep the dtype of the store.
    """

    def __init__(self, store: Store, decode: bool) -> None:
        columns = ("shard", "first_frame", "n_frames")
        self._locations = np.stack([store.slices[name].to_numpy() for name in columns], axis=1)
        self._path, self._spec, self._decode = store.path, store.spec, decode

    def __len__(self) -> int:
        return len(self._locations)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        shard, first, n = map(int, self._locations[row])
        stored = read_frames(self._path / "shards" / f"{shard:05d}.zarr", self._spec, first, first + n)
        return torch.from_numpy(self._spec.decode(stored) if self._decode else stored), row % CLASSES


def write_tars(store: Store, folder: Path) -> None:
    """Write the slices to tar files for WebDataset, equally many to each, so that the workers share them evenly."""
    folder.mkdir()
    rows = store.slices.to_pylist()
    stored = {shard: store.read(shard) for shard in store.shards()}
    for first in range(0, len(rows), SLICES_PER_TAR):
        with tarfile.open(folder / f"{first:08d}.tar", "w") as tar:
            for number, row in enumerate(rows[first : first + SLICES_PER_TAR], first):
                buffer = io.BytesIO()
                np.save(buffer, stored[row["shard"]][row["first_frame"] : row["first_frame"] + row["n_frames"]])
                member = tarfile.TarInfo(f"{number:08d}.npy")
                member.size = buffer.tell()
                tar.addfile(member, io.BytesIO(buffer.getvalue()))


def _read_npy(sample: tuple[bytes], spec: FeatureSpec, decode: bool) -> torch.Tensor:
    """Read a sample of WebDataset."""
    stored = np.load(io.BytesIO(sample[0]))
    return torch.from_numpy(spec.decode(stored) if decode else stored)


def make_loaders(
    store: Store,
    folder: Path,
    decode: bool,
    device: torch.device,
    batch_size: int,
    residencies: Sequence[Residency] = ("device", "stream"),
    workers: int = WORKERS,
) -> dict[str, Callable[[], Iterable]]:
    """Create the loaders to compare. All deliver their batches on the device.

    Args:
        store: store of noise.
        folder: folder for WebDataset's tar files.
        decode: whether the loaders decode frames to float32.
        device: device of the stream's batches.
        batch_size: slices per batch.
        residencies: residencies of the stream to compare; `device` among them.
        workers: worker processes of each DataLoader.

    Returns:
        Functions that start an epoch, by name of the loader.
    """
    frames = int(store.slices["n_frames"][0].as_py())
    kind = Stream if decode else UndecodedStream
    streams = {name: open_stream(store, device, name, batch_size, frames, kind) for name in residencies}
    loaders: dict[str, Callable[[], Iterable]] = {name: stream.batches for name, stream in streams.items()}
    settings: dict[str, Any] = {"num_workers": workers, "multiprocessing_context": "spawn", "persistent_workers": True}
    settings["pin_memory"] = device.type == "cuda"
    slice_loader = torch.utils.data.DataLoader(Slices(store, decode), batch_size, shuffle=True, **settings)
    loaders["DataLoader"] = lambda: (to_device(frames, device) for frames, _ in slice_loader)
    if importlib.util.find_spec("webdataset"):
        import webdataset

        tars = folder / "tars"
        if not tars.exists():
            write_tars(store, tars)
        urls = sorted(map(str, tars.glob("*.tar")))
        dataset = webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False).shuffle(1000).to_tuple("npy")
        dataset = dataset.map(functools.partial(_read_npy, spec=store.spec, decode=decode))
        dataset = dataset.batched(batch_size, collation_fn=torch.utils.data.default_collate)
        tar_loader = torch.utils.data.DataLoader(dataset, None, **settings)
        loaders["WebDataset"] = lambda: (to_device(frames, device) for (frames,) in tar_loader)
    loaders["gather"] = functools.partial(gather, streams["device"], device, decode)
    return loaders


def to_device(frames: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Send a batch to the device, without waiting for it if its memory is pinned; on the CPU it is there already."""
    return frames.to(device, non_blocking=frames.is_pinned()) if device.type == "cuda" else frames


def gather(stream: Stream, device: torch.device, decode: bool) -> Iterator[torch.Tensor]:
    """Gather the windows of an epoch from a tensor on the device by indices on it: the lower limit of the stream."""
    order, pool, spec = stream.order(0), stream._resident_pool, stream._spec
    begins = torch.from_numpy(pool.base[stream.shard_of] + stream._first).to(device)
    for rows in torch.from_numpy(order.rows.astype(np.int64)).to(device).split(stream._bounds[1]):
        index = begins[rows][:, None] + stream._ramp
        windows = pool.frames.index_select(0, index.flatten()).view(len(rows), stream.frames, spec.bins)
        yield windows.float().mul_(spec.scale).add_(spec.offset) if decode else windows
