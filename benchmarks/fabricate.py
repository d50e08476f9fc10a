"""`mgc` whose workers decode nothing: the client of benchmarks/scale.py.

    python benchmarks/fabricate.py RECORD extract --dataset ...

Everything on the side of the client is real: dataset, planning, journal, Dask cluster, manifest, slice index. So is
what workers write (shards, fragments, digests), but for the frames: each track gets those of the same 30 s of noise,
and a content hash that is made up. RECORD is a JSON file that gets what the client process alone has used.
"""

from __future__ import annotations

import contextlib
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
    """What `mgc.pipeline.extraction.worker.extract` does, without decoding."""
    tracks = task.tracks.to_pylist()
    for target in task.targets:
        store = target.store
        levels = np.random.default_rng(0).normal(-30, 8, (store.spec.frames(SECONDS), store.spec.bins))
        for shard, first, stop in target.shards:
            temporary = store.path / "shards" / f"{files.TEMPORARY_PREFIX}{shard:05d}.zarr"
            writer = ShardWriter(temporary, store.spec)
            rows = []
            for track in tracks[first:stop]:
                found = os.stat(os.path.join(os.fsencode(task.root), unescape(track["path"])))  # noqa: PTH116, PTH118
                fabricated = {
                    "size": found.st_size,
                    "mtime_ns": found.st_mtime_ns,
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
                    "saturated": writer.append(levels.astype(np.float32)),
                }
                rows.append(dict.fromkeys(MANIFEST_SCHEMA.names) | track | fabricated)
            writer.close()
            output.commit(store, shard, temporary, rows)
    n = len(tracks)
    return pa.table({"status": ["ok"] * n, "reason": pa.nulls(n, pa.string()), "duration_s": [SECONDS] * n})


def peak_mb() -> float:
    """Most memory this process has held since `forget_peak`, in MB of 10^6 bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * common.RSS_UNIT / 1e6
    # Not ru_maxrss, which is the parent's where that was larger when it forked.
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6


def forget_peak() -> None:
    """Start the peak anew, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    record, *arguments = sys.argv[1:]
    found: dict[str, float] = {}
    dispatch = extraction._dispatch

    def end_of(stage: str) -> None:
        found.update({f"{stage}_mb": peak_mb(), f"{stage}_s": time.perf_counter() - start})
        forget_peak()

    def noted(*rest: object) -> None:
        end_of("planning")
        dispatch(*rest)
        end_of("dispatch")

    worker.extract, extraction._dispatch = fabricate, noted
    start = time.perf_counter()
    try:
        cli.main(arguments, prog_name="mgc")
    finally:
        end_of("publishing")
        used = resource.getrusage(resource.RUSAGE_SELF)
        found["client_mb"] = max(peak for name, peak in found.items() if name.endswith("_mb"))
        found |= {"client_cpu_s": used.ru_utime + used.ru_stime, "wall_s": found["publishing_s"]}
        Path(record).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
