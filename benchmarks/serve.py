"""Latency, throughput, start-up time and memory of `mgc serve`, with 30 s MP3s.

    python benchmarks/serve.py [FOLDER]      some minutes; FOLDER holds MP3s (default: those of the test corpus)
    python benchmarks/serve.py --smoke       smallest sizes; the figures mean nothing

A run is trained on the clips for it: which genres they get does not matter here. For each system, one server is
started, and asked by real clients over HTTP: first one request after the other, then many at the same time. Where the
time of a request goes is read from the server's `/metrics`. `decoding alone` is libsndfile, in this process, on the
same clips.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import common
import numpy as np
import psutil
import requests

MGC = Path(sys.executable).with_name("mgc")
STAGES = ("upload", "queue", "decode", "network")


def train(clips: Sequence[Path], system: str, workspace: Path) -> Path:
    """Train a system on the clips, half of which are of one genre, for as short as it can be; return the run."""
    songs = workspace / "songs"
    if not songs.exists():
        listed = common.copy_set(clips, len(clips), songs) / "list.csv"
        feature = ["--feature", "mel", "--slice", "4"]
        common.run([MGC, "extract", "--dataset", listed, *feature, "--data-dir", workspace], workspace)
    words = [] if system.startswith("moments/") else ["--epochs", "1"]
    common.run([MGC, "train", "--model", system, *words, "--data-dir", workspace], workspace)
    return max((workspace / "runs").iterdir(), key=lambda path: path.stat().st_mtime)


@contextmanager
def serve(run: Path, queue: int) -> Iterator[tuple[str, float, psutil.Process]]:
    """Start a server; yield its URL, the seconds until it answers, and its process."""
    start = time.perf_counter()
    command = [MGC, "serve", run, "--port", "0", "--queue", str(queue)]
    # As a user starts it: `common` limits the libraries of this process to one thread.
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
        try:
            yield re.findall(r"http://\S+", line)[0], seconds, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(timeout=60)


def ask(url: str, clips: Sequence[bytes], n: int, at_once: int) -> tuple[float, list[float]]:
    """Send `n` requests, `at_once` at the same time; return the seconds of all, and of each."""

    def one(number: int) -> float:
        start = time.perf_counter()
        answer = requests.post(f"{url}/predict", files={"file": clips[number % len(clips)]}, timeout=300)
        answer.raise_for_status()
        return time.perf_counter() - start

    start = time.perf_counter()
    with ThreadPoolExecutor(at_once) as threads:
        latencies = list(threads.map(one, range(n)))
    return time.perf_counter() - start, latencies


def stages(url: str) -> dict[str, float]:
    """Seconds that all requests so far have spent in each stage."""
    text = requests.get(f"{url}/metrics", timeout=60).text
    found = dict(re.findall(r'mgc_stage_seconds_sum\{stage="(\w+)"\} (\S+)', text))
    return {stage: float(found.get(stage, 0)) for stage in STAGES}


def decoding_alone(clips: Sequence[Path]) -> float:
    """Median of the seconds in which libsndfile decodes a clip."""
    import soundfile

    seconds = []
    for clip in clips:
        start = time.perf_counter()
        soundfile.read(clip, dtype="float32")
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure(run: Path, clips: Sequence[Path], n: int, at_once: int) -> dict[str, float]:
    """Measure one server; times are in seconds, memory in MB."""
    contents = [clip.read_bytes() for clip in clips]
    with serve(run, at_once) as (url, start_up, process):
        ask(url, contents, min(4, n), 1)
        alone_before = stages(url)
        _, alone = ask(url, contents, n, 1)
        spent = {stage: (value - alone_before[stage]) / n for stage, value in stages(url).items()}
        memory = process.memory_info().rss
        wall, together = ask(url, contents, 2 * n, at_once)
        return {
            "start-up, s": start_up,
            "median, ms": 1e3 * statistics.median(alone),
            "p95, ms": 1e3 * float(np.percentile(alone, 95)),
            **{f"{stage}, ms": 1e3 * seconds for stage, seconds in spent.items()},
            "requests a second": 2 * n / wall,
            "median at once, ms": 1e3 * statistics.median(together),
            "p95 at once, ms": 1e3 * float(np.percentile(together, 95)),
            "memory, MB": memory / 1e6,
            "growth, MB": (process.memory_info().rss - memory) / 1e6,
            "median / decoding alone": statistics.median(alone) / decoding_alone(clips),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=common.default_folder(), help="folder of MP3s")
    parser.add_argument("--systems", nargs="+", default=["moments/logreg", "kth2020/cnn"], help="systems to serve")
    parser.add_argument("--requests", type=int, default=100, help="requests one after the other; twice as many at once")
    parser.add_argument("--at-once", type=int, default=16, help="requests at the same time")
    parser.add_argument("--clips", type=int, default=40, help="clips to train on and to send")
    parser.add_argument("--smoke", action="store_true", help="smallest sizes")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.smoke:
        options.requests, options.at_once, options.clips, options.systems = 4, 4, 12, options.systems[:1]
    facts = {"command": shlex.join(sys.argv), **common.environment(("mgc", "torch", "starlette", "uvicorn"))}
    print(*(f"{name}: {value}" for name, value in facts.items()), "", sep="\n")
    clips = common.find_clips(options.folder)[: options.clips]
    with tempfile.TemporaryDirectory() as folder:
        rows = {
            system: measure(train(clips, system, Path(folder)), clips, options.requests, options.at_once)
            for system in options.systems
        }
    names = list(next(iter(rows.values())))
    print(common.table(("", *rows), [(name, *(row[name] for row in rows.values())) for name in names]))
    if options.json:
        options.json.write_text(json.dumps({**facts, "at_once": options.at_once, "results": rows}, indent=1))


if __name__ == "__main__":
    main()
