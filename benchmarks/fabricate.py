"""Run `mgc` with workers that write noise instead of decoding files. benchmarks/scale.py measures its client.

    python benchmarks/fabricate.py RECORD extract --dataset ...

Everything in the client is real: dataset, planning, journal, Dask cluster, manifest, slice index. The workers write
real shards, fragments and digests, but every track gets the frames of the same 30 s of noise and a made-up content
hash. RECORD is a JSON file for the memory and the CPU time of the client process alone.
"""

from __future__ import annotations

import json
import os
import resource
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

SECONDS = 30.0


def fabricate(task: Task) -> pa.Table:
    """Do the work of `mgc.pipeline.extraction.worker.run_task` without decoding; returns the same table."""
    tracks = task.tracks.to_pylist()
    for target in task.targets:
        store = target.store
        levels = np.random.default_rng(0).normal(-30, 8, (store.spec.frames(SECONDS), store.spec.bins))
        for shard, first, stop in target.shards:
            temporary = store.path / "shards" / f"{files.TEMPORARY_PREFIX}{shard:05d}.zarr"
            writer = ShardWriter(temporary, store.spec)
            rows = []
            for track in tracks[first:stop]:
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
                    "first_frame": writer.n_frames,
                    "n_frames": len(levels),
                    "saturated": writer.append(levels.astype(np.float32)).total,
                }
                rows.append(dict.fromkeys(MANIFEST_SCHEMA.names) | track | fabricated)
            writer.close()
            output.commit_shard(store, shard, temporary, rows)
    n = len(tracks)
    return pa.table({"status": ["ok"] * n, "reason": pa.nulls(n, pa.string()), "duration_s": [SECONDS] * n})


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
    extraction.probe.require_room = lambda *arguments: None  # the files are stand-ins, too short for a slice
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
