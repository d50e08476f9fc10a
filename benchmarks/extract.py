"""What `mgc extract` costs, against decoding alone, against the library calls it cannot avoid, and against a script.

    python benchmarks/extract.py [FOLDER]            ratios; FOLDER holds real MP3s (default: the test corpus)
    python benchmarks/extract.py --scaling           also: two workers against a bare process pool, by the clock
    python benchmarks/extract.py --profile           instead: where the time of a worker goes
    python benchmarks/extract.py --smoke             smallest sizes; the figures mean nothing

Mel is also compared with lhotse and Essentia (`pip install 'mgc[peers]'`), where they are installed.

Costs are CPU seconds of the whole process tree, user and system, per clip, from the slope between a small and a large
set of the same clips, so that start-up does not count. Every ratio is formed within one attempt, from runs next to each
other; medians over the attempts are printed with the least and the most. TMPDIR chooses the disk that is written to.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import common
import peers
from calls import CALLS
from common import Cost, Spread, table

HERE = Path(__file__).resolve().parent
MGC = Path(sysconfig.get_path("scripts")) / "mgc"
FEATURES = ("stft", "mel", "mfcc", "stft+mel+mfcc")
#: What benchmarks/naive.py can do.
NAIVE = ("stft", "mel")
#: Other tools that make log-mel spectrograms, those of them that are installed.
PEERS = [name for name in peers.PEERS if find_spec(name)]
LIBRARIES = ("mgc", "numpy", "scipy", "soundfile", "soxr", "librosa", "numcodecs", "zarr", "zarrs", "distributed")
PROFILE_ROWS = 15


class Sets(NamedTuple):
    """The same clips twice: the first few of them, and all."""

    small: Path
    large: Path
    n_small: int
    n_large: int

    def slope(self, measure: Callable[[Path], Cost]) -> Cost:
        """Milliseconds per clip."""
        small, large = measure(self.small), measure(self.large)
        scale = 1000 / (self.n_large - self.n_small)
        return Cost(*(scale * (more - less) for more, less in zip(large, small, strict=True)))


def extract_with_mgc(clips: Path, features: str, workers: int) -> Cost:
    """`mgc extract` as a user types it, into a fresh store beside the clips."""
    names = [argument for name in features.split("+") for argument in ("--feature", name)]
    how = ["--slice", "4", "--overlap", "0.5", "--workers", str(workers), "--out", "stores"]
    shutil.rmtree(clips / "stores", ignore_errors=True)
    return common.run([MGC, "extract", "--dataset", "list.csv", *names, *how], clips)


def extract_naively(clips: Path, feature: str) -> Cost:
    shutil.rmtree(clips / "npy", ignore_errors=True)
    return common.run([sys.executable, HERE / "naive.py", clips, clips / "npy", "--feature", feature], clips)


def extract_with(peer: str, clips: Path) -> Cost:
    shutil.rmtree(clips / peer, ignore_errors=True)
    return common.run([sys.executable, HERE / "peers.py", peer, clips, clips / peer], clips)


def pool(clips: Path, features: str, workers: int) -> Cost:
    command = [sys.executable, HERE / "calls.py", clips, "--pool", str(workers), "--features", *features.split("+")]
    return common.run(command, clips)


def time_calls(sets: Sets, features: str) -> dict[str, float]:
    """CPU milliseconds per clip of each library call, over the clips that the large set has more."""
    command = [sys.executable, HERE / "calls.py", sets.large, "--skip", str(sets.n_small)]
    command += ["--features", *features.split("+")]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def store_megabytes(clips: Path) -> float:
    """Size of the stores that the last extraction left."""
    return sum(path.stat().st_size for path in (clips / "stores").rglob("*") if path.is_file()) / 1e6


def attempt(sets: Sets, features: str) -> dict[str, float]:
    """One measurement of everything, milliseconds per clip, and the ratios of it."""
    found = time_calls(sets, features)
    found["unavoidable"] = sum(found[call] for call in CALLS)
    found["mgc"] = sets.slope(lambda clips: extract_with_mgc(clips, features, 1)).cpu
    found["store MB"] = store_megabytes(sets.large) / sets.n_large
    found["mgc / decode"] = found["mgc"] / found["decode"]
    found["mgc / unavoidable"] = found["mgc"] / found["unavoidable"]
    if features in NAIVE:
        found["naive"] = sets.slope(lambda clips: extract_naively(clips, features)).cpu
        found["naive / mgc"] = found["naive"] / found["mgc"]
    for peer in PEERS if features == "mel" else ():
        found[peer] = sets.slope(lambda clips, peer=peer: extract_with(peer, clips)).cpu
        found[f"{peer} / mgc"] = found[peer] / found["mgc"]
    return found


def attempt_scaling(sets: Sets, features: str) -> dict[str, float]:
    """How much sooner two workers are done than one, by the clock."""
    found = {}
    for name, work in (("mgc", extract_with_mgc), ("pool", pool)):
        one, two = (sets.slope(lambda clips, n=n, work=work: work(clips, features, n)).wall for n in (1, 2))
        found[f"{name} 1 to 2"] = one / two
    return found | {"mgc / pool": found["mgc 1 to 2"] / found["pool 1 to 2"]}


def report(title: str, columns: tuple[str, ...], results: dict[str, list[dict[str, float]]], *, spread: bool) -> None:
    """Print medians of the attempts, a row per set of features."""
    rows: list[list[object]] = []
    for features, attempts in results.items():
        spreads = [Spread.of([found[name] for found in attempts]) if name in attempts[0] else None for name in columns]
        rows.append([features, *(cell if spread or cell is None else cell.median for cell in spreads)])
    print(f"\n{title}\n\n{table(('features', *columns), rows)}", flush=True)


def profile(features: str, clips: Path) -> None:
    """Print where the time of an extraction's tasks goes: they run in this process, without Dask.

    The profiler makes small Python functions look several times as long as they take; calls into libraries come out
    right. What Dask and its workers' environment add is the difference to the end-to-end figure.
    """
    from mgc.pipeline.datasets import Dataset, open_dataset
    from mgc.pipeline.extraction import extract as extraction
    from mgc.pipeline.extraction.worker import extract as work
    from mgc.pipeline.features import parse_feature

    def run(profiler: cProfile.Profile | None = None) -> float:
        """CPU milliseconds per clip of the tasks alone."""
        seconds = 0.0

        def dispatch(batches: list, dataset: Dataset, options: extraction.Options, *_: object) -> None:
            nonlocal seconds
            for task in extraction.make_tasks(batches, dataset, options):
                start = time.process_time()
                profiler.runcall(work, task) if profiler else work(task)
                seconds += time.process_time() - start

        with tempfile.TemporaryDirectory(dir=clips) as out, mock.patch.object(extraction, "_dispatch", dispatch):
            extraction.extract(dataset, specs, Path(out), extraction.Options())
        return 1000 * seconds / n

    dataset = open_dataset(clips / "list.csv")
    specs = [parse_feature(name) for name in features.split("+")]
    n = len(dataset.tracks)
    run()  # imports, filter banks and FFT plans
    plain = run()
    profiler = cProfile.Profile(time.process_time)
    run(profiler)
    stats = pstats.Stats(profiler)
    entries = sorted(stats.stats.items(), key=lambda item: -item[1][2])
    rows = [
        (_place(*function), 1000 * own / n, f"{100 * own / stats.total_tt:.1f} %", round(calls / n, 1))
        for function, (_, calls, own, _, _) in entries[:PROFILE_ROWS]
    ]
    total = 1000 * stats.total_tt / n
    print(f"\n{features}: {plain:.2f} ms per clip, {total:.2f} under the profiler, by function without what it calls\n")
    print(table(("function", "ms per clip", "share", "calls per clip"), rows), flush=True)


def _place(file: str, line: int, function: str) -> str:
    return function if file == "~" else f"{Path(file).parent.name}/{Path(file).name}:{line} {function}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=common.default_folder())
    parser.add_argument("--all", action="store_true", help="all MP3s, not only 30 s stereo at 128 kbit/s and 44.1 kHz")
    parser.add_argument("--clips", type=int, nargs=2, metavar=("SMALL", "LARGE"), default=(80, 400), help="set sizes")
    parser.add_argument("--attempts", type=int, default=3)
    parser.add_argument("--features", nargs="+", default=FEATURES, help="sets joined by +, each extracted in one pass")
    parser.add_argument("--scaling", action="store_true", help="also compare two workers with a bare process pool")
    parser.add_argument("--profile", action="store_true", help="profile SMALL clips instead")
    parser.add_argument("--smoke", action="store_true", help="--clips 2 6 --attempts 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every attempt to a file")
    options = parser.parse_args()
    if options.smoke:
        options.clips, options.attempts = (2, 6), 1
    if not 0 < options.clips[0] < options.clips[1] or options.attempts < 1:
        parser.error("--clips wants a small and a larger number, --attempts one or more")
    if options.profile and (options.scaling or options.json):
        parser.error("--profile goes without --scaling and --json")
    return options


def command_line(options: argparse.Namespace) -> str:
    """The command that measures this again, defaults written out."""
    command = ["python", os.path.relpath(__file__), os.path.relpath(options.folder)]
    command += ["--clips", *map(str, options.clips), "--attempts", str(options.attempts)]
    command += ["--features", *options.features]
    command += [f"--{name}" for name in ("all", "scaling", "profile") if getattr(options, name)]
    return shlex.join(command)


def main() -> None:
    options = parse_arguments()
    clips = common.find_clips(options.folder, everything=options.all)
    facts = {"command": command_line(options), **common.environment((*LIBRARIES, *PEERS))}
    facts["clips"] = f"{len(clips)} MP3s" + ("" if options.all else " of 30 s, 128 kbit/s, 44.1 kHz, stereo")
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), flush=True)
    costs: dict[str, list[dict[str, float]]] = {features: [] for features in options.features}
    scaling: dict[str, list[dict[str, float]]] = {features: [] for features in options.features}
    with tempfile.TemporaryDirectory(prefix="mgc-bench-") as home:
        small, large = (common.copy_set(clips, n, Path(home) / f"{n}") for n in options.clips)
        sets = Sets(small, large, *options.clips)
        if options.profile:
            for features in options.features:
                profile(features, small)
            return
        for _ in range(options.attempts):
            for features in options.features:
                costs[features].append(attempt(sets, features))
                if options.scaling:
                    scaling[features].append(attempt_scaling(sets, features))
    parts = (*CALLS, "unavoidable", "mgc", "naive", *PEERS, "store MB")
    report("CPU ms per clip, and size of the store", parts, costs, spread=False)
    ratios = ("mgc / decode", "mgc / unavoidable", *(f"{other} / mgc" for other in ("naive", *PEERS)))
    report(f"Ratios: median of {options.attempts} (least to most)", ratios, costs, spread=True)
    if options.scaling:
        columns = ("mgc 1 to 2", "pool 1 to 2", "mgc / pool")
        report("Speed-up by a second worker, by the clock", columns, scaling, spread=True)
    if options.json:
        options.json.write_text(json.dumps(facts | {"costs": costs, "scaling": scaling}, indent=2) + "\n")


if __name__ == "__main__":
    main()
