"""What classical systems hold in memory: by slice while they are fitted, and in all on a store that is streamed.

    python benchmarks/baselines.py            every kind of classifier, and a store of 2 GB
    python benchmarks/baselines.py --smoke    smallest sizes; the figures mean nothing

Fitting is measured apart from stores, each time in a process of its own, on vectors that are drawn when they are asked
for: by how much `mgc.models.classical.fit` raises the peak of the process, for two numbers of slices. The store holds
noise; `mgc train --residency stream` reads it, whose imports are part of the figure.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import common
import numpy as np
import pyarrow as pa
from common import table
from scale import call

from mgc.models import classical
from mgc.models.registry import systems
from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA
from mgc.pipeline.features import Mel
from mgc.pipeline.storage import files
from mgc.pipeline.store.manifest import publish, write_fragment
from mgc.pipeline.store.shard import ShardWriter
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

#: Slices to fit each system on. The time of an SVM grows with their square.
SLICES = {
    "moments/knn": (50_000, 100_000),
    "moments/knn-pca": (50_000, 100_000),
    "moments/logreg": (50_000, 100_000),
    "moments/mlp": (10_000, 20_000),
    "moments/svm": (2_000, 4_000),
    "moments/svm-pca": (2_000, 4_000),
}
CLASSES, VALUES, SLICES_PER_TRACK, TRACKS_PER_ARTIST, BATCH = 8, 140, 10, 5, 32
SECONDS, TRACKS_PER_SHARD, HELD_OUT = 30.0, 48, 64


def vectors(y: np.ndarray) -> Iterator[classical.Batch]:
    """Noise, a little more of one value in each class, batch by batch."""
    rng = np.random.default_rng(0)
    for first in range(0, len(y), BATCH):
        rows = np.arange(first, min(first + BATCH, len(y)))
        yield rows, (rng.standard_normal((len(rows), VALUES)) + 2 * np.eye(CLASSES, VALUES)[y[rows]]).astype(np.float32)


def fit(id: str, n: int) -> None:
    """Fit a system on `n` slices."""
    y = np.arange(n) // SLICES_PER_TRACK % CLASSES
    tracks = [f"{row // SLICES_PER_TRACK:06d}" for row in range(n)]
    artists = [f"{int(track) // (CLASSES * TRACKS_PER_ARTIST)}-{int(track) % CLASSES}" for track in tracks]
    classical.fit(systems.get(id).build(CLASSES), lambda: vectors(y), y, tracks, artists)


def growth(id: str, n: int) -> float:
    """MB by which fitting a system on `n` slices raises the peak of this process."""
    fit(id, 800)  # what it imports is not counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fit(id, n)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * common.RSS_UNIT / 1e6


def make_store(folder: Path, n_tracks: int) -> Store:
    """A store of noise, the same in each track; the last tracks are for validation."""
    spec = Mel()
    store = Store.create(folder, spec, {"name": "noise", "root": str(folder), "genres": list("01234567")})
    levels = np.random.default_rng(0).normal(-30, 8, (spec.frames(SECONDS), spec.bins)).astype(np.float32)
    for shard, first in enumerate(range(0, n_tracks, TRACKS_PER_SHARD)):
        writer, rows = ShardWriter(store.shard_path(shard), spec), []
        for number in range(first, min(first + TRACKS_PER_SHARD, n_tracks)):
            split = "training" if number < n_tracks - HELD_OUT else "validation"
            row = {"track_id": f"{number:06d}", "path": f"{number}", "genre": str(number % CLASSES), "split": split}
            row |= {"content_hash": str(number), "duration_s": SECONDS, "status": "ok"}
            row |= {"shard": shard, "first_frame": writer.n_frames, "n_frames": len(levels)}
            rows.append(dict.fromkeys(MANIFEST_SCHEMA.names) | row)
            writer.append(levels)
        writer.close()
        described = files.folder_checksums(store.shard_path(shard), store.shard_path(shard).name)
        write_fragment(store, shard, pa.Table.from_pylist(rows, MANIFEST_SCHEMA), described)
    publish(store, Slicing(seconds=4.0, overlap=0.0))
    return Store.open(folder)


def trained(folder: Path, n_tracks: int) -> tuple[object, ...]:
    """Slices and raw MB of a store, and the peak of training kNN on it."""
    store = make_store(folder / "noise", n_tracks)
    raw = int(store.tracks["n_frames"].to_numpy().sum()) * store.spec.bins / 1e6
    words = ["train", "--model", "moments/knn", "--store", store.path, "--data-dir", folder, "--residency", "stream"]
    used = call(sys.executable, "-m", "mgc", *words)
    return len(store.slices), f"{raw:.0f}", f"{used['mb']:.0f}", f"{used['cpu']:.0f}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--systems", nargs="*", default=list(SLICES), choices=list(SLICES), help="ids")
    parser.add_argument("--tracks", type=int, nargs="*", help="of the stores")
    parser.add_argument("--smoke", action="store_true", help="smallest sizes")
    chosen = parser.parse_args()
    if chosen.tracks is None:
        chosen.tracks = [80, 100] if chosen.smoke else [6_000, 12_000]
    return chosen


def main() -> None:
    chosen = parse_arguments()
    facts = {"command": f"python {os.path.relpath(__file__)} {' '.join(sys.argv[1:])}".rstrip()}
    facts |= common.environment(("mgc", "numpy", "scikit-learn", "torch"))
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), flush=True)
    rows: list[tuple[object, ...]] = []
    for id in chosen.systems:
        sizes = (800, 1_600) if chosen.smoke else SLICES[id]
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            less, more = (pool.apply(growth, (id, n)) for n in sizes)
        each = (more - less) * 1e6 / (sizes[1] - sizes[0])
        rows.append((id, f"{sizes[0]:,}", f"{less:.0f}", f"{sizes[1]:,}", f"{more:.0f}", f"{each:.0f}"))
    print(f"\nFitting\n\n{table(('system', 'slices', 'MB', 'slices ', 'MB ', 'bytes a slice'), rows)}", flush=True)
    rows = []
    for n_tracks in chosen.tracks:
        with tempfile.TemporaryDirectory(prefix="mgc-baselines-") as scratch:
            rows.append((n_tracks, *trained(Path(scratch), n_tracks)))
    print(f"\nTraining\n\n{table(('tracks', 'slices', 'frames, MB', 'peak, MB', 'CPU s'), rows)}")


if __name__ == "__main__":
    main()
