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


def make_store(
    folder: Path,
    spec: FeatureSpec,
    slicing: Slicing,
    n_tracks: int,
    n_validation: int = 0,
    donor: Store | None = None,
) -> Store:
    """Create a store of noise.

    Args:
        folder: path of the store.
        spec: feature of the store.
        slicing: slicing of the store.
        n_tracks: number of training tracks.
        n_validation: number of validation tracks, in shards of their own.
        donor: a store of noise of the same feature, whose first full shards are linked instead of drawn anew.
    """
    dataset = {"name": "noise", "root": str(folder), "genres": [str(genre) for genre in range(CLASSES)]}
    store = Store.create(folder, spec, dataset)
    full = full_shards(donor) if donor else {}
    splits = {"training": range(n_tracks), "validation": range(n_tracks, n_tracks + n_validation)}
    shards = [
        (split, tracks[first : first + TRACKS_PER_SHARD])
        for split, tracks in splits.items()
        for first in range(0, len(tracks), TRACKS_PER_SHARD)
    ]
    for shard, (split, tracks) in enumerate(shards):
        write_shard(store, shard, tracks, split, full)
    publish(store, slicing)
    return Store.open(folder)


def full_shards(store: Store) -> dict[Path, dict[str, list]]:
    """Sizes and digests of the files of the first full shards of a store of noise, by the path of the shard."""
    numbers = range(min(DISTINCT_SHARDS, len(store.tracks) // TRACKS_PER_SHARD))
    return {path: files.folder_checksums(path, "") for path in map(store.shard_path, numbers)}


def write_shard(store: Store, shard: int, tracks: range, split: str, full: dict[Path, dict[str, list]]) -> None:
    """Write a shard of noise; a full one is a hard link to one of `full`, once these are as many as are distinct."""
    spec, path = store.spec, store.shard_path(shard)
    n_frames = spec.frames(SECONDS)
    if len(full) == DISTINCT_SHARDS and len(tracks) == TRACKS_PER_SHARD:
        source = list(full)[shard % DISTINCT_SHARDS]
        shutil.copytree(source, path, copy_function=os.link)
        checksums = {f"{path.name}{name}": value for name, value in full[source].items()}
    else:
        rng, writer = np.random.default_rng(shard), ShardWriter(path, spec)
        for _ in tracks:
            levels = rng.normal(-30, 8, (n_frames, spec.bins)).astype(np.float32)
            writer.append(levels / 300 if spec.name == "waveform" else levels)
        writer.close()
        checksums = files.folder_checksums(path, path.name)
        if len(tracks) == TRACKS_PER_SHARD:
            full[path] = files.folder_checksums(path, "")
    rows = []
    for position, number in enumerate(tracks):
        row = {"track_id": f"{number:06d}", "path": f"{number}", "genre": str(number % CLASSES)}
        row |= {"split": split, "content_hash": str(number), "duration_s": SECONDS, "status": "ok"}
        row |= {"shard": shard, "first_frame": position * n_frames, "n_frames": n_frames}
        rows.append(dict.fromkeys(MANIFEST_SCHEMA.names) | row)
    write_fragment(store, shard, pa.Table.from_pylist(rows, MANIFEST_SCHEMA), checksums)
