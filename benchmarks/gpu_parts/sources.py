"""Stores of noise for the systems that are measured, and streams of their slices.

All parts use the same stores: the first one that needs a store makes it. A store holds four full shards of noise, and
hard links to them, so it takes little room on the disk and is read from the page cache.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from loaders import open_stream as open_stream_of
from noise import DISTINCT_SHARDS, SECONDS, TRACKS_PER_SHARD, make_store

from gpu_parts.measurement import Setup
from mgc.models.data.stream import Residency, Stream
from mgc.models.data.waveform_view import FrontEndStream, WaveformView
from mgc.models.registry import systems
from mgc.models.registry.systems import System
from mgc.pipeline.features import FeatureSpec, Waveform
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

#: The systems that are measured: two small networks of mel bands, one of samples, a deep one of STFT pictures.
SYSTEMS = ("vit2021/cnn", "kth2020/cnn", "padova2023/cnn1d", "xu2022/resnet-3-4-23-3")
#: The smallest of them, which comes first, and the deepest, which comes last: its steps take longest.
SMALLEST, DEEPEST = SYSTEMS[0], SYSTEMS[-1]
RESIDENCIES: tuple[Residency, ...] = ("device", "host", "stream")
#: Tracks of FMA-small, and of its training and validation split.
FMA_SMALL = (6400, 800)
#: Frames of a store for steps and loaders, in bytes: four to five of the groups that the stream loads at a time.
STORE_BYTES = 1_200_000_000


@dataclass(frozen=True)
class Source:
    """A store of noise that a system reads, with the sizes that its recipe names.

    Attributes:
        id: id of the system.
        store: store of noise; its length is a multiple of the batch size, so all batches are equally large.
        batch_size: slices per batch.
        frames: frames of a window.
    """

    id: str
    store: Store
    batch_size: int
    frames: int

    @property
    def system(self) -> System:
        """The system."""
        return systems.get(self.id)

    @property
    def bytes_per_slice(self) -> float:
        """Bytes of frames in the store for each of its slices; slices may overlap."""
        spec, tracks = self.store.spec, self.store.tracks
        return sum(tracks["n_frames"].to_pylist()) * frame_bytes(spec) / len(self.store.slices)

    def stream(self, setup: Setup, residency: Residency, kind: type[Stream] = Stream) -> Stream:
        """Open a stream of all slices."""
        return open_stream_of(self.store, setup.device, residency, self.batch_size, self.frames, kind)


def open_source(setup: Setup, id: str) -> Source:
    """Open the store of a system for steps and loaders, with up to as many tracks as FMA-small's training split."""
    recipe = systems.get(id).recipe
    assert recipe.training is not None
    batch_size = setup.size(recipe.training.batch_size, 2)
    tracks = min(FMA_SMALL[0], int(STORE_BYTES / track_bytes(recipe.features)))
    store = noise_store(setup, id, setup.size(tracks - tracks % batch_size, 4))
    return Source(id, store, batch_size, window(id, store))


def window(id: str, store: Store) -> int:
    """Frames of a window: the system's, or those of a slice of the store."""
    return systems.get(id).input.frames or int(store.slices["n_frames"][0].as_py())


def noise_store(setup: Setup, id: str, n_tracks: int, n_validation: int = 0) -> Store:
    """Open a store of noise for a system, with the feature and the slicing of its recipe; make it if there is none."""
    recipe = systems.get(id).recipe
    return _noise_store(setup, id.replace("/", "-"), recipe.features, recipe.slicing, n_tracks, n_validation)


def waveform_view(setup: Setup, id: str, n_tracks: int) -> WaveformView:
    """Open a store of samples as the feature of a system, which the front end computes on the device."""
    recipe = systems.get(id).recipe
    spec = Waveform(sr=recipe.features.sr)
    store = _noise_store(setup, f"{id.replace('/', '-')}-samples", spec, recipe.slicing, n_tracks, 0)
    return WaveformView.of(store, dataclasses.replace(recipe.features, dtype="float32"))


def open_front_end(setup: Setup, view: WaveformView, batch_size: int, frames: int) -> FrontEndStream:
    """Open a stream of spectrograms that are computed of samples on the device."""
    stream = open_stream_of(view, setup.device, "device", batch_size, frames, FrontEndStream)
    assert isinstance(stream, FrontEndStream)
    return stream


def sizes(stream: Stream) -> Iterator[int]:
    """Read an epoch; yield the number of slices of each batch."""
    for batch in stream.batches():
        yield len(batch.labels)


def track_bytes(spec: FeatureSpec) -> int:
    """Bytes of the frames of a track of noise."""
    return spec.frames(SECONDS) * frame_bytes(spec)


def frame_bytes(spec: FeatureSpec) -> int:
    """Bytes of a frame as stored."""
    return spec.bins * getattr(torch, spec.dtype).itemsize


def _noise_store(
    setup: Setup, name: str, spec: FeatureSpec, slicing: Slicing, n_tracks: int, n_validation: int
) -> Store:
    distinct = DISTINCT_SHARDS * TRACKS_PER_SHARD
    folder = setup.folder / "stores" / f"{name}-{n_tracks}-{n_validation}"
    if (folder / "published.json").exists():
        return Store.open(folder)
    donor = None
    if n_tracks + n_validation > distinct:
        donor = _noise_store(setup, name, spec, slicing, distinct, 0)
    shutil.rmtree(folder, ignore_errors=True)  # of a part that was ended while it made the store
    return make_store(folder, spec, slicing, n_tracks, n_validation, donor)
