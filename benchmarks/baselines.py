"""Memory of the classical systems: per slice while fitting, and in total while training on a streamed store.

    python benchmarks/baselines.py            every kind of classifier, and stores of up to 2 GB
    python benchmarks/baselines.py --smoke    smallest sizes; the figures mean nothing

Fitting is measured without a store, on random vectors that are generated batch by batch. The figure is how far
`mgc.models.classical.fit` raises the peak memory of a process of its own, for two numbers of slices. Training is
measured as `mgc train --residency stream` on a store of noise; its imports are part of the figure.
"""

from __future__ import annotations

import argparse
import multiprocessing
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

#: Two numbers of slices to fit each system on. The time of an SVM grows with the square of the number.
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


def vectors(y: np.ndarray) -> Iterator[classical.VectorBatch]:
    """Generate batches of noise; in each class, one of the values has a higher mean.

    Args:
        y: class of each slice, int `(n,)`.

    Yields:
        Row numbers `(batch,)` and float32 vectors `(batch, VALUES)`.
    """
    rng = np.random.default_rng(0)
    for first in range(0, len(y), BATCH):
        rows = np.arange(first, min(first + BATCH, len(y)))
        yield rows, (rng.standard_normal((len(rows), VALUES)) + 2 * np.eye(CLASSES, VALUES)[y[rows]]).astype(np.float32)


def fit(id: str, n: int) -> None:
    """Fit a system on `n` slices of noise."""
    y = np.arange(n) // SLICES_PER_TRACK % CLASSES
    tracks = [f"{row // SLICES_PER_TRACK:06d}" for row in range(n)]
    artists = [f"{int(track) // (CLASSES * TRACKS_PER_ARTIST)}-{int(track) % CLASSES}" for track in tracks]
    classical.fit(systems.get(id).build(CLASSES), lambda: vectors(y), y, tracks, artists)


def growth(id: str, n: int) -> float:
    """Measure how far fitting a system on `n` slices raises the peak memory of this process, in MB."""
    fit(id, 800)  # imports come before the measurement
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fit(id, n)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * common.RSS_UNIT / 1e6


def make_store(folder: Path, n_tracks: int) -> Store:
    """Create a store whose tracks all hold the same noise; the last tracks are for validation."""
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


def measure_training(folder: Path, n_tracks: int) -> tuple[object, ...]:
    """Train kNN on a store; return its number of slices, the frames in MB, the peak memory in MB, and CPU seconds."""
    store = make_store(folder / "noise", n_tracks)
    frames_mb = int(store.tracks["n_frames"].to_numpy().sum()) * store.spec.bins / 1e6
    options = ["--model", "moments/knn", "--store", store.path, "--data-dir", folder, "--residency", "stream"]
    usage, _ = call(sys.executable, "-m", "mgc", "train", *options)
    return len(store.slices), f"{frames_mb:.0f}", f"{usage['mb']:.0f}", f"{usage['cpu']:.0f}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--systems", nargs="*", default=list(SLICES), choices=list(SLICES), help="ids of systems")
    parser.add_argument("--tracks", type=int, nargs="*", help="numbers of tracks, one per store")
    parser.add_argument("--smoke", action="store_true", help="smallest sizes")
    arguments = parser.parse_args()
    if arguments.tracks is None:
        arguments.tracks = [80, 100] if arguments.smoke else [6_000, 12_000]
    return arguments


def main() -> None:
    arguments = parse_arguments()
    facts = {"command": common.command_line()}
    facts |= common.environment(("mgc", "numpy", "scikit-learn", "torch"))
    common.print_facts(facts)
    rows: list[tuple[object, ...]] = []
    for id in arguments.systems:
        sizes = (800, 1_600) if arguments.smoke else SLICES[id]
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            small, large = (pool.apply(growth, (id, n)) for n in sizes)
        bytes_per_slice = (large - small) * 1e6 / (sizes[1] - sizes[0])
        rows.append((id, f"{sizes[0]:,}", f"{small:.0f}", f"{sizes[1]:,}", f"{large:.0f}", f"{bytes_per_slice:.0f}"))
    print(f"\nFitting\n\n{table(('system', 'slices', 'MB', 'slices ', 'MB ', 'bytes a slice'), rows)}", flush=True)
    rows = []
    for n_tracks in arguments.tracks:
        with tempfile.TemporaryDirectory(prefix="mgc-baselines-") as scratch:
            rows.append((n_tracks, *measure_training(Path(scratch), n_tracks)))
    print(f"\nTraining\n\n{table(('tracks', 'slices', 'frames, MB', 'peak, MB', 'CPU s'), rows)}")


if __name__ == "__main__":
    main()
