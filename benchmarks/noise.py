"""Feature stores of noise for the training benchmarks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.storage import files
from mgc.pipeline.store.manifest import publish, write_fragment
from mgc.pipeline.store.shard import ShardWriter
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

#: Length of a track in seconds, number of genres, tracks per full shard.
SECONDS, CLASSES, TRACKS_PER_SHARD = 30.0, 8, 48
#: Number of full shards with different noise; further ones are links to these.
DISTINCT_SHARDS = 4


def make_store(folder: Path, spec: FeatureSpec, slicing: Slicing, n_tracks: int, n_validation: int = 0) -> Store:
    """Create a store of noise.

    Args:
        folder: path of the store.
        spec: feature of the store.
        slicing: slicing of the store.
        n_tracks: number of training tracks.
        n_validation: number of validation tracks, in a shard of their own.
    """
    dataset = {"name": "noise", "root": str(folder), "genres": [str(genre) for genre in range(CLASSES)]}
    store = Store.create(folder, spec, dataset)
    n_shards = -(-n_tracks // TRACKS_PER_SHARD)
    for shard in range(n_shards):
        first = shard * TRACKS_PER_SHARD
        write_shard(store, shard, range(first, min(first + TRACKS_PER_SHARD, n_tracks)), "training")
    if n_validation:
        write_shard(store, n_shards, range(n_tracks, n_tracks + n_validation), "validation")
    publish(store, slicing)
    return Store.open(folder)


def write_shard(store: Store, shard: int, tracks: range, split: str) -> None:
    """Write a shard of noise; from the fifth full shard on, hard links to one of the first four."""
    spec, path = store.spec, store.shard_path(shard)
    n_frames = spec.frames(SECONDS)
    if shard >= DISTINCT_SHARDS and len(tracks) == TRACKS_PER_SHARD:
        shutil.copytree(store.shard_path(shard % DISTINCT_SHARDS), path, copy_function=os.link)
    else:
        rng, writer = np.random.default_rng(shard), ShardWriter(path, spec)
        for _ in tracks:
            levels = rng.normal(-30, 8, (n_frames, spec.bins)).astype(np.float32)
            writer.append(levels / 300 if spec.name == "waveform" else levels)
        writer.close()
    rows = []
    for position, number in enumerate(tracks):
        row = {"track_id": f"{number:06d}", "path": f"{number}", "genre": str(number % CLASSES)}
        row |= {"split": split, "content_hash": str(number), "duration_s": SECONDS, "status": "ok"}
        row |= {"shard": shard, "first_frame": position * n_frames, "n_frames": n_frames}
        rows.append(dict.fromkeys(MANIFEST_SCHEMA.names) | row)
    write_fragment(store, shard, pa.Table.from_pylist(rows, MANIFEST_SCHEMA), files.folder_checksums(path, path.name))
