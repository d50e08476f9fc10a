"""Damaged files against the extraction: whatever is in a file, it must end as a row of the manifest.

    python benchmarks/fuzz.py [FOLDER] [--files N] [--seed S] [--keep DIR] [--json]

N files (default 5000) are made from small synthetic MP3, Ogg, FLAC and WAV files, and from the audio below FOLDER where
one is given, by the mutations of `mutations.py`; file number S + i is the same in every run. A worker's own function
extracts each of them, in a child process, and each must

- end as `ok`, or as dropped with one of the known reasons, without an exception;
- give finite frames only, as many as its duration says, and gaps inside them;
- be done within the time limit and within 256 MB more memory than a healthy file takes.

A file that kills its decoder's process is listed as crashed: `mgc extract` survives that, and drops it. Exit 1 where
a file breaks a rule. --keep copies every file that is listed into a folder.
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

#: Every reason that decoding can give.
REASONS = frozenset(
    ("missing", "not-a-file", "unreadable", "empty", "not-audio", "no-audio", "unsupported", "silence", "non-finite")
)
BATCH = 200
LIMIT_S = 60
EXTRA_BYTES = 256 << 20
#: The child gets so much more address space than it had at the start: what asks for more must not take the machine.
SPARE_BYTES = 4 << 30
CHILD = (sys.executable, str(Path(__file__).resolve()), "--child")


class Outcome(NamedTuple):
    """How a file ended.

    Attributes:
        name: the file.
        end: `ok`, a reason, or `crashed`.
        fault: the rule that it broke; None where it broke none.
        extra: bytes of memory by which the peak rose.
    """

    name: str
    end: str
    fault: str | None = None
    extra: int = 0


def examine(folder: Path, names: Sequence[str], child: Sequence[str] = CHILD, limit_s: int = LIMIT_S) -> list[Outcome]:
    """Extract files in child processes; one that dies is replaced, and costs the file that it was at."""
    waiting, outcomes = list(names), []
    while waiting:
        command = [*child, str(folder), str(limit_s)]
        done = subprocess.run(command, input="\n".join(waiting), capture_output=True, encoding="utf-8")
        found = [Outcome(*json.loads(line)) for line in done.stdout.splitlines()]
        outcomes += found
        if len(found) == len(waiting):
            break
        at = waiting[len(found)]
        if done.returncode >= 0:
            raise RuntimeError(f"the child ended with {done.returncode} at {at}:\n{done.stderr}")
        ended = signal.Signals(-done.returncode)
        hung = ended == signal.SIGALRM
        outcomes.append(Outcome(at, "crashed", f"not done in {limit_s} s" if hung else None))
        waiting = waiting[len(found) + 1 :]
    return outcomes


def work(folder: Path, limit_s: int) -> None:
    """The child: extract the files named on stdin, one line of JSON on stdout for each."""
    from mgc.pipeline.features import Mfcc, Stft

    specs = (Stft(sr=22050, n_fft=512, hop_length=512, dtype="float32"), Mfcc())
    names = sys.stdin.read().splitlines()
    suffix, healthy = mutations.seeds()[0]
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / f"healthy.{suffix}").write_bytes(healthy)
        with contextlib.suppress(Exception):  # what is wrong even with healthy files is told of the first one
            extract(Path(scratch), f"healthy.{suffix}", specs)
    space = psutil.Process().memory_info().vms + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (space, resource.getrlimit(resource.RLIMIT_AS)[1]))
    before = _peak()
    for name in names:
        # Nobody handles it, so that it ends even a process whose interpreter is held.
        signal.alarm(limit_s)
        end, fault = "", None
        try:
            row, problem = extract(folder, name, specs)
            end, fault = row["reason"] or row["status"], problem
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        signal.alarm(0)
        extra, before = _peak() - before, _peak()
        if fault is None and extra > EXTRA_BYTES:
            fault = f"{extra >> 20} MB of memory"
        print(json.dumps(Outcome(name, end, fault, extra)), flush=True)


def extract(folder: Path, name: str, specs: Sequence[Any]) -> tuple[dict[str, Any], str | None]:
    """The manifest row of a file under the first spec, and the rule that it breaks under any."""
    from mgc.pipeline.datasets.catalogue import track_table
    from mgc.pipeline.datasets.tracks import escape
    from mgc.pipeline.extraction.task import Target, Task
    from mgc.pipeline.extraction.worker import extract as extract_task
    from mgc.pipeline.store.manifest import read_fragment
    from mgc.pipeline.store.store import Store

    with tempfile.TemporaryDirectory() as scratch:
        head = {"name": "fuzz", "root": str(folder), "genres": ["any"]}
        stores = [Store.create(Path(scratch, f"{i}"), spec, head) for i, spec in enumerate(specs)]
        for store in stores:
            (store.path / "shards").mkdir()
        tracks = track_table({"track_id": ["it"], "path": [escape(name)], "genre": ["any"]})
        extract_task(Task(str(folder), tracks, [Target(store, [(0, 0, 1)]) for store in stores]))
        rows = []
        for store in stores:
            fragment = read_fragment(store, 0)
            assert fragment is not None
            rows += fragment.to_pylist()
        problems = [_problem(store, row) for store, row in zip(stores, rows, strict=True)]
    return rows[0], next(filter(None, problems), None)


def _problem(store: Any, row: dict[str, Any]) -> str | None:
    """The rule that a manifest row and its frames break."""
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


def _peak() -> int:
    """Bytes of memory that this process has taken at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * common.RSS_UNIT


def pool_of(folder: Path | None) -> list[tuple[str, bytes]]:
    """The synthetic files, and in equal share those of a folder."""
    pool = mutations.seeds()
    if folder is not None:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not paths:
            sys.exit(f"{folder}: no audio in it")
        found = [(path.suffix[1:].lower(), path.read_bytes()) for path in paths]
        pool = pool * -(-len(found) // len(pool)) + found
    return pool


SUFFIXES = frozenset((".mp3", ".ogg", ".oga", ".opus", ".flac", ".wav"))


def fuzz(pool: list[tuple[str, bytes]], seeds: Iterable[int], keep: Path | None = None) -> Iterator[list[Outcome]]:
    """Outcomes of the files with these numbers, batch by batch."""
    numbers = list(seeds)
    for first in range(0, len(numbers), BATCH):
        with tempfile.TemporaryDirectory() as scratch:
            made = [mutations.mutated(pool, number) for number in numbers[first : first + BATCH]]
            for name, data in made:
                (Path(scratch) / name).write_bytes(data)
            outcomes = examine(Path(scratch), [name for name, _ in made])
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                for outcome in outcomes:
                    if outcome.fault or outcome.end == "crashed":
                        shutil.copy(Path(scratch) / outcome.name, keep)
        yield outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    for batch in fuzz(pool_of(options.folder), range(options.seed, options.seed + options.files), options.keep):
        outcomes += batch
        faults = sum(outcome.fault is not None for outcome in outcomes)
        print(f"{len(outcomes)} of {options.files} files, {faults} faults", file=sys.stderr)
    listed = [outcome for outcome in outcomes if outcome.fault or outcome.end == "crashed"]
    ends = Counter(outcome.end or "exception" for outcome in outcomes)
    if options.json:
        print(json.dumps({"files": len(outcomes), "ends": ends, "listed": [o._asdict() for o in listed]}, indent=2))
    else:
        print(common.table(("end", "files"), sorted(ends.items(), key=lambda item: -item[1])))
        print(f"\nmost memory: {max(outcome.extra for outcome in outcomes) >> 20} MB more than before")
        for outcome in listed:
            print(f"{outcome.name}: {outcome.fault or 'it killed its process'}")
    sys.exit(any(outcome.fault for outcome in outcomes))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        work(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
