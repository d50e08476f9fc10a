"""Run `mgc` with workers that write made-up shards instead of decoding files. benchmarks/scale.py measures its client.

    python benchmarks/fabricate.py RECORD extract --dataset ...

Everything in the client is real: dataset, planning, journal, Dask cluster, manifest, slice index. The workers write
a fragment and digests of its own for every shard, but its frames are hard links to those of a prototype: 30 s of the
same noise for every track, written once for each number of tracks. So a million tracks of mel spectra take no more of
the disk than a few shards, and reading them is reading the same file again, from memory. Content hashes are made up.
The workers do not wait until their files are on the disk (fsync), which would take three quarters of their time.
RECORD is a JSON file for the memory and the CPU time of the client process alone.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import common
import numpy as np
import pyarrow as pa

from mgc import cli
from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA, unescape
from mgc.pipeline.extraction import extract as extraction
from mgc.pipeline.extraction import output, worker
from mgc.pipeline.extraction.task import Task
from mgc.pipeline.storage import files
from mgc.pipeline.store.shard import ShardWriter
from mgc.pipeline.store.store import Store

SECONDS = 30.0


def fabricate(task: Task) -> pa.Table:
    """Do the work of `mgc.pipeline.extraction.worker.run_task` without decoding; returns the same table."""
    os.fsync = lambda handle: None
    tracks = task.tracks.to_pylist()
    for target in task.targets:
        store = target.store
        n_frames = store.spec.frames(SECONDS)
        for shard, first, stop in target.shards:
            prototype, saturated = make_prototype(store, stop - first)
            temporary = store.path / "shards" / f"{files.TEMPORARY_PREFIX}{shard:05d}.zarr"
            shutil.copytree(prototype, temporary, copy_function=os.link)
            rows = []
            for number, track in enumerate(tracks[first:stop]):
                status = os.stat(os.path.join(os.fsencode(task.root), unescape(track["path"])))  # noqa: PTH116, PTH118
                fabricated = {
                    "size": status.st_size,
                    "mtime_ns": status.st_mtime_ns,
                    "content_hash": files.digest(track["track_id"].encode()),
                    "duration_s": SECONDS,
                    "declared_s": SECONDS,
                    "decoder": "none",
                    "sample_rate": 44100,
                    "channels": 2,
                    "status": "ok",
                    "shard": shard,
                    "first_frame": number * n_frames,
                    "n_frames": n_frames,
                    "saturated": saturated,
                }
                rows.append(dict.fromkeys(MANIFEST_SCHEMA.names) | track | fabricated)
            output.commit_shard(store, shard, temporary, rows)
    n = len(tracks)
    return pa.table({"status": ["ok"] * n, "reason": pa.nulls(n, pa.string()), "duration_s": [SECONDS] * n})


def make_prototype(store: Store, n_tracks: int) -> tuple[Path, int]:
    """Write the frames of a shard with this number of tracks, unless there are some.

    Returns:
        Its folder, outside the store; the number of clipped values of each track.
    """
    folder = store.path.parents[2] / "prototypes"
    shard, record = folder / f"{store.path.name}-{n_tracks}.zarr", folder / f"{store.path.name}-{n_tracks}.json"
    if not record.exists():
        folder.mkdir(exist_ok=True)
        shutil.rmtree(shard, ignore_errors=True)
        noise = np.random.default_rng(0).normal(-30, 8, (store.spec.frames(SECONDS), store.spec.bins))
        writer = ShardWriter(shard, store.spec)
        (saturated,) = {writer.append(noise.astype(np.float32)).total for _ in range(n_tracks)}
        writer.close()
        files.write_json(record, saturated)
    return shard, json.loads(record.read_text())


def main() -> None:
    record, *arguments = sys.argv[1:]
    usage: dict[str, float] = {}
    dispatch = extraction._dispatch

    def record_stage(stage: str) -> None:
        usage.update({f"{stage}_mb": common.peak_mb(), f"{stage}_s": time.perf_counter() - start})
        common.reset_peak()

    def recorded_dispatch(*arguments: object) -> None:
        record_stage("planning")
        dispatch(*arguments)
        record_stage("dispatch")

    worker.run_task, extraction._dispatch = fabricate, recorded_dispatch
    start = time.perf_counter()
    try:
        cli.main(arguments, prog_name="mgc")
    finally:
        record_stage("publishing")
        times = resource.getrusage(resource.RUSAGE_SELF)
        usage["client_mb"] = max(peak for name, peak in usage.items() if name.endswith("_mb"))
        usage |= {"client_cpu_s": times.ru_utime + times.ru_stime, "wall_s": usage["publishing_s"]}
        Path(record).write_text(json.dumps(usage))


if __name__ == "__main__":
    main()
