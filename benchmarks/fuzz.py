"""Fuzz the extraction with damaged audio files: every file, whatever its bytes, must become a row of the manifest.

    python benchmarks/fuzz.py [FOLDER] [--files N] [--seed S] [--keep DIR] [--json]

The N files (default 5000) are small synthetic MP3, Ogg, FLAC and WAV files, and the audio files below FOLDER if it is
given, damaged by `mutations.py`; file number S + i is the same in every run. The function that workers call extracts
each of them in a child process. Each file must

- end as `ok`, or as dropped for one of the known reasons, without an exception;
- give finite frames only, as many as its duration requires, with all gaps inside them;
- finish within the time limit, with at most 256 MB more memory than a healthy file.

A file that kills the process of its decoder is listed as crashed; `mgc extract` survives that and drops the file. The
exit status is 1 if a file breaks a rule. --keep copies all listed files to a folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import common
import mutations
import numpy as np
import psutil

#: All reasons for which decoding drops a file.
REASONS = frozenset(
    ("missing", "not-a-file", "unreadable", "empty", "not-audio", "no-audio", "unsupported", "silence", "non-finite")
)
BATCH = 200
LIMIT_S = 60
EXTRA_BYTES = 256 << 20
#: Limit of the child's address space, beyond its size at the start: larger requests fail instead of exhausting the
#: machine.
SPARE_BYTES = 4 << 30
CHILD = (sys.executable, str(Path(__file__).resolve()), "--child")


class Outcome(NamedTuple):
    """Outcome of one file.

    Attributes:
        name: name of the file.
        end: `ok`, the reason for which it was dropped, or `crashed`; empty after an exception.
        fault: description of the broken rule; None if there is none.
        extra: increase of the peak memory in bytes.
    """

    name: str
    end: str
    fault: str | None = None
    extra: int = 0


def examine(folder: Path, names: Sequence[str], child: Sequence[str] = CHILD, limit_s: int = LIMIT_S) -> list[Outcome]:
    """Extract files in child processes. If a child dies, its current file counts as crashed, and a new child goes on.

    Args:
        folder: folder of the files.
        names: names of the files.
        child: command that runs `run_child`.
        limit_s: time limit per file in seconds.

    Returns:
        The outcome of every file, in the order of `names`.
    """
    remaining, outcomes = list(names), []
    while remaining:
        command = [*child, str(folder), str(limit_s)]
        process = subprocess.run(command, input="\n".join(remaining), capture_output=True, encoding="utf-8")
        finished = [Outcome(*json.loads(line)) for line in process.stdout.splitlines()]
        outcomes += finished
        if len(finished) == len(remaining):
            break
        current = remaining[len(finished)]
        if process.returncode >= 0:
            raise RuntimeError(f"the child exited with status {process.returncode} at {current}:\n{process.stderr}")
        timed_out = signal.Signals(-process.returncode) == signal.SIGALRM
        outcomes.append(Outcome(current, "crashed", f"not done in {limit_s} s" if timed_out else None))
        remaining = remaining[len(finished) + 1 :]
    return outcomes


def run_child(folder: Path, limit_s: int) -> None:
    """Extract the files named on stdin; print one `Outcome` as a line of JSON for each."""
    from mgc.pipeline.features import Mfcc, Stft

    specs = (Stft(sr=22050, n_fft=512, hop_length=512, dtype="float32"), Mfcc())
    names = sys.stdin.read().splitlines()
    suffix, healthy = mutations.healthy_files()[0]
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / f"healthy.{suffix}").write_bytes(healthy)
        with contextlib.suppress(Exception):  # warm-up; an error that also hits healthy files shows at the first file
            extract(Path(scratch), f"healthy.{suffix}", specs)
    space = psutil.Process().memory_info().vms + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (space, resource.getrlimit(resource.RLIMIT_AS)[1]))
    previous_peak = _peak_memory()
    for name in names:
        # SIGALRM has no handler, so that it kills the process even while a library holds the GIL.
        signal.alarm(limit_s)
        end, fault = "", None
        try:
            row, fault = extract(folder, name, specs)
            end = row["reason"] or row["status"]
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        signal.alarm(0)
        peak = _peak_memory()
        extra, previous_peak = peak - previous_peak, peak
        if fault is None and extra > EXTRA_BYTES:
            fault = f"{extra >> 20} MB of memory"
        print(json.dumps(Outcome(name, end, fault, extra)), flush=True)


def extract(folder: Path, name: str, specs: Sequence[Any]) -> tuple[dict[str, Any], str | None]:
    """Extract one file with every feature.

    Returns:
        The file's manifest row for the first feature, and the first broken rule of any feature, or None.
    """
    from mgc.pipeline.datasets.catalogue import track_table
    from mgc.pipeline.datasets.tracks import escape
    from mgc.pipeline.extraction.task import Target, Task
    from mgc.pipeline.extraction.worker import run_task
    from mgc.pipeline.store.manifest import read_fragment
    from mgc.pipeline.store.store import Store

    with tempfile.TemporaryDirectory() as scratch:
        head = {"name": "fuzz", "root": str(folder), "genres": ["any"]}
        stores = [Store.create(Path(scratch, f"{i}"), spec, head) for i, spec in enumerate(specs)]
        for store in stores:
            (store.path / "shards").mkdir()
        tracks = track_table({"track_id": ["it"], "path": [escape(name)], "genre": ["any"]})
        run_task(Task(str(folder), tracks, [Target(store, [(0, 0, 1)]) for store in stores]))
        rows = []
        for store in stores:
            fragment = read_fragment(store, 0)
            assert fragment is not None
            rows += fragment.to_pylist()
        problems = [_problem(store, row) for store, row in zip(stores, rows, strict=True)]
    return rows[0], next(filter(None, problems), None)


def _problem(store: Any, row: dict[str, Any]) -> str | None:
    """Describe the rule that a manifest row or its frames break; None if they break none."""
    from mgc.pipeline.store.shard import read_frames

    frames = read_frames(store.shard_path(0), store.spec)
    if len(frames) != row["n_frames"]:
        return f"{row['n_frames']} frames in the manifest, {len(frames)} in the shard"
    if row["status"] == "dropped":
        if row["reason"] not in REASONS:
            return f"dropped for an unknown reason, {row['reason']}"
        return "dropped, and yet it has frames" if len(frames) else None
    if row["status"] != "ok" or row["reason"] is not None:
        return f"status {row['status']}, reason {row['reason']}"
    if not np.isfinite(frames).all():
        return "frames that are not finite"
    if len(frames) - store.spec.frames(row["duration_s"]) not in (0, 1):
        return f"{len(frames)} frames of {row['duration_s']} s"
    if any(not 0 <= first < min(stop, len(frames)) for first, stop in row["gaps"] or ()):
        return f"gaps {row['gaps']} in {len(frames)} frames"
    return None


def _peak_memory() -> int:
    """Peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * common.RSS_UNIT


def make_pool(folder: Path | None) -> list[tuple[str, bytes]]:
    """Collect healthy files: the synthetic ones, and about as many entries from a folder if one is given."""
    pool = mutations.healthy_files()
    if folder is not None:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not paths:
            sys.exit(f"{folder}: no audio in it")
        files = [(path.suffix[1:].lower(), path.read_bytes()) for path in paths]
        pool = pool * -(-len(files) // len(pool)) + files
    return pool


#: Suffixes of the audio files that `make_pool` reads.
SUFFIXES = frozenset((".mp3", ".ogg", ".oga", ".opus", ".flac", ".wav"))


def fuzz(pool: list[tuple[str, bytes]], seeds: Iterable[int], keep: Path | None = None) -> Iterator[list[Outcome]]:
    """Damage and extract files, batch by batch.

    Args:
        pool: healthy files, by `make_pool`.
        seeds: numbers of the damaged files.
        keep: folder for copies of the files that crash or break a rule; None for no copies.

    Yields:
        The outcomes of a batch.
    """
    numbers = list(seeds)
    for first in range(0, len(numbers), BATCH):
        with tempfile.TemporaryDirectory() as scratch:
            damaged_files = [mutations.mutate(pool, number) for number in numbers[first : first + BATCH]]
            for name, data in damaged_files:
                (Path(scratch) / name).write_bytes(data)
            outcomes = examine(Path(scratch), [name for name, _ in damaged_files])
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                for outcome in outcomes:
                    if outcome.fault or outcome.end == "crashed":
                        shutil.copy(Path(scratch) / outcome.name, keep)
        yield outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="folder of further healthy audio files")
    parser.add_argument("--files", type=int, default=5000, help="number of damaged files")
    parser.add_argument("--seed", type=int, default=0, help="number of the first damaged file")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy listed files to this folder")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    for batch in fuzz(make_pool(options.folder), range(options.seed, options.seed + options.files), options.keep):
        outcomes += batch
        faults = sum(outcome.fault is not None for outcome in outcomes)
        print(f"{len(outcomes)} of {options.files} files, {faults} faults", file=sys.stderr)
    listed = [outcome for outcome in outcomes if outcome.fault or outcome.end == "crashed"]
    ends = Counter(outcome.end or "exception" for outcome in outcomes)
    if options.json:
        print(json.dumps({"files": len(outcomes), "ends": ends, "listed": [o._asdict() for o in listed]}, indent=2))
    else:
        print(common.table(("end", "files"), sorted(ends.items(), key=lambda item: -item[1])))
        print(f"\nlargest increase of peak memory: {max(outcome.extra for outcome in outcomes) >> 20} MB")
        for outcome in listed:
            print(f"{outcome.name}: {outcome.fault or 'crashed the process'}")
    sys.exit(any(outcome.fault for outcome in outcomes))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
