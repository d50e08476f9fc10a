"""Memory that the slices of a split take in a process that trains: their tables, the stream's arrays, an epoch's order.

    python benchmarks/slices.py                      107,143 tracks (FMA-full) with 14 slices each
    python benchmarks/slices.py --tracks 1000000     14 million slices
    python benchmarks/slices.py --smoke              smallest sizes; the figures mean nothing

The store is made up: manifest and slice index as an extraction publishes them, 47 tracks of 30 s a shard, without
frames, which no measurement reads. Each row is a process of its own that opens one split as a training does: "slices"
is what `RunInputs.split` takes, "with an order" that and the order of an epoch. Kept is the private memory afterwards
beyond that before the split was opened, peak the largest on the way. Pages of the track table, which is mapped from a
file, are in neither. Both are in bytes per slice of the whole index, 80 % of which are of the training split. The last
peak is that of the whole process, with its libraries and what selecting the tracks took. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np
import pyarrow as pa
from common import table

from mgc.models.data.sampling import Sampling
from mgc.models.data.split_data import RunInputs, SplitData
from mgc.models.data.stream import Batching
from mgc.models.runs.selection import select_tracks
from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA
from mgc.pipeline.features import Mel
from mgc.pipeline.storage import files, parquet
from mgc.pipeline.store import head
from mgc.pipeline.store.cuts import describe_cuts, with_default
from mgc.pipeline.store.cutting import cut
from mgc.pipeline.store.manifest import GROUP_TRACKS
from mgc.pipeline.store.slicing import SLICE_SCHEMA, Slicing
from mgc.pipeline.store.store import FILES_KEY, Store

LIBRARIES = ("mgc", "numpy", "pyarrow", "torch")
GENRES = ("Blues", "Classical", "Electronic", "Folk", "Hip-Hop", "Jazz", "Pop", "Rock")
SECONDS, TRACKS_PER_SHARD = 30.0, 47
#: Split of a shard by its last digit.
SPLITS = ("training",) * 8 + ("validation", "test")

#: Split, frames of the window (slices have 173), and sampling, by the name of the row.
CASES = {
    "training": ("training", 173, Sampling()),
    "training, shorter windows": ("training", 128, Sampling()),
    "training, balanced by class": ("training", 173, Sampling(balance="class")),
    "validation": ("validation", 173, Sampling()),
}


def make_store(path: Path, n_tracks: int) -> Store:
    """Publish a store without shards; its tracks have 14 slices each.

    Args:
        path: a new folder.
        n_tracks: number of tracks.
    """
    spec = Mel()
    store = Store.create(path, spec, {"name": "made-up", "root": str(path), "genres": list(GENRES)})
    cuts = with_default([], Slicing())
    with (
        parquet.TableWriter(path / "tracks.parquet", MANIFEST_SCHEMA) as manifest,
        parquet.TableWriter(path / "slices.parquet", SLICE_SCHEMA) as index,
    ):
        for first in range(0, n_tracks, GROUP_TRACKS):
            tracks = _tracks(np.arange(first, min(first + GROUP_TRACKS, n_tracks)), spec.frames(SECONDS))
            manifest.write(tracks)
            index.write(cut(cuts[0].slicing, spec, tracks))
        digests = {"tracks.parquet": manifest.finish({FILES_KEY: "{}"})}
        digests["slices.parquet"] = index.finish(cuts[0].metadata())
        manifest.commit()
        index.commit()
    publication = describe_cuts(cuts) | {"digests": digests, head.COPY_KEY: head.as_dict(store.head)}
    files.write_json_with_digest(path / "published.json", publication)
    return Store.open(path)


def _tracks(numbers: np.ndarray, n_frames: int) -> pa.Table:
    """Rows of the manifest (`MANIFEST_SCHEMA`) of these tracks, numbered from 0."""
    shards = numbers // TRACKS_PER_SHARD
    columns = {
        "track_id": [f"{number:07d}" for number in numbers],
        "path": [f"{number:07d}.mp3" for number in numbers],
        "genre": [GENRES[number % len(GENRES)] for number in numbers],
        "split": [SPLITS[shard % 10] for shard in shards],
        "content_hash": [f"{number:016x}" for number in numbers],
        "duration_s": np.full(len(numbers), SECONDS),
        "status": ["ok"] * len(numbers),
        "shard": shards,
        "first_frame": numbers % TRACKS_PER_SHARD * n_frames,
        "n_frames": np.full(len(numbers), n_frames),
    }
    empty = [pa.nulls(len(numbers), field.type) for field in MANIFEST_SCHEMA]
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else nulls
        for field, nulls in zip(MANIFEST_SCHEMA, empty, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=MANIFEST_SCHEMA)


def measure(path: Path, case: str) -> dict[str, float]:
    """Open a split in this process; return bytes and CPU seconds by name, and the number of slices of the index."""
    import torch

    split, frames, sampling = CASES[case]
    store = Store.open(path)
    inputs = RunInputs(select_tracks(store), [store], store.slicing, [frames])
    # What the libraries load and allocate at the first use is not a matter of slices.
    _draw(inputs.split("test", Batching(256, torch.device("cpu"), 0), sampling))
    figures: dict[str, float] = {}
    before = _kept()
    start = time.process_time()
    with common.MemoryWatch() as memory:
        data = inputs.split(split, Batching(256, torch.device("cpu"), 0), sampling)
    figures["slices CPU s"] = time.process_time() - start
    figures["slices peak"], figures["slices kept"] = memory.private - before, _kept() - before
    start = time.process_time()
    with common.MemoryWatch() as memory:
        order = _draw(data)
    figures["order CPU s"] = time.process_time() - start
    figures["order peak"], figures["order kept"] = memory.private - before, _kept() - before
    assert len(order.rows) == len(data.tracks)
    figures["n"] = len(store.read_table("slices.parquet", ["shard"]))
    return figures


def _draw(data: SplitData) -> object:
    """Draw the order of an epoch."""
    return data.streams[0].order(1)


def _kept() -> int:
    """Private memory of this process in bytes, without what it has freed."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)
    return common.memory("RssAnon")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=107_143, help="number of tracks, with 14 slices each")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="rows of the table")
    parser.add_argument("--smoke", action="store_true", help="2,000 tracks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to a file")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.smoke:
        options.tracks = 2_000
    if options.tracks < 1_000:
        parser.error(f"--tracks {options.tracks}: give at least 1,000, so that each split has tracks of each genre")
    return options


def main() -> None:
    options = parse_arguments()
    if options.measure:
        print(json.dumps(measure(options.measure, options.cases[0])))
        return
    command = f"python {os.path.relpath(__file__)} --tracks {options.tracks}"
    facts = {"command": command, **common.environment(LIBRARIES)}
    common.print_facts(facts)
    results = {}
    with tempfile.TemporaryDirectory(prefix="mgc-slices-") as folder:
        path = Path(folder) / "mel"
        make_store(path, options.tracks)
        for case in options.cases:
            worker = [sys.executable, __file__, "--measure", str(path), "--cases", case]
            process = subprocess.Popen(worker, stdout=subprocess.PIPE, text=True)
            with common.MemoryWatch(process.pid) as memory:
                output, _ = process.communicate()
            if process.returncode:
                sys.exit(f"{case}: the process failed")
            results[case] = json.loads(output) | {"process": memory.private}
    (n,) = {figures["n"] for figures in results.values()}
    names = ("slices kept", "slices peak", "order kept", "order peak")
    rows = [
        (
            case,
            *(figures[name] / n for name in names),
            figures["process"] / 1e9,
            figures["slices CPU s"],
            figures["order CPU s"],
        )
        for case, figures in results.items()
    ]
    header = (
        "split", "slices: kept", "slices: peak", "with an order: kept", "with an order: peak",
        "process: peak GB", "slices: CPU s", "order: CPU s",
    )  # fmt: skip
    print(f"\nBytes per slice of the whole index, {n:,} slices\n\n{table(header, rows)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(facts | {"results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
