"""CPU cost of `mgc extract` against decoding alone, the unavoidable library calls, and a librosa script.

    python benchmarks/extract.py [FOLDER]            ratios; FOLDER holds real MP3s (default: the test corpus)
    python benchmarks/extract.py --scaling           also: wall-clock speed-up by a second worker, against a bare pool
    python benchmarks/extract.py --profile           instead: time of a worker by function
    python benchmarks/extract.py --smoke             smallest sizes; the figures mean nothing

Mel is also compared with lhotse and Essentia (`pip install 'mgc-music[peers]'`) if they are installed.

A cost is the CPU time, user and system, of the whole process tree per clip. It is the slope between a small and a large
set of the same clips, so that start-up does not count. Every ratio is computed within one attempt, from runs next to
each other; the tables show the median of the attempts with minimum and maximum. TMPDIR selects the disk for output.
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
#: Features that benchmarks/naive.py supports.
NAIVE = ("stft", "mel")
#: Installed other tools that compute log-mel spectrograms.
PEERS = [name for name in peers.PEERS if find_spec(name)]
LIBRARIES = ("mgc", "numpy", "scipy", "soundfile", "soxr", "librosa", "numcodecs", "zarr", "zarrs", "distributed")
PROFILE_ROWS = 15


class Sets(NamedTuple):
    """A small and a large set of clips; the small one holds the first clips of the large one."""

    small: Path
    large: Path
    n_small: int
    n_large: int

    def slope(self, measure: Callable[[Path], Cost]) -> Cost:
        """Measure both sets; return the slope in milliseconds per clip."""
        small, large = measure(self.small), measure(self.large)
        scale = 1000 / (self.n_large - self.n_small)
        return Cost(*(scale * (more - less) for more, less in zip(large, small, strict=True)))


def extract_with_mgc(clips: Path, features: str, workers: int) -> Cost:
    """Run `mgc extract` as a user would, into a new store beside the clips."""
    feature_options = [argument for name in features.split("+") for argument in ("--feature", name)]
    options = ["--slice", "4", "--overlap", "0.5", "--workers", str(workers), "--out", "stores"]
    shutil.rmtree(clips / "stores", ignore_errors=True)
    return common.run([MGC, "extract", "--dataset", "list.csv", *feature_options, *options], clips)


def extract_naively(clips: Path, feature: str) -> Cost:
    """Run the librosa script, benchmarks/naive.py."""
    shutil.rmtree(clips / "npy", ignore_errors=True)
    return common.run([sys.executable, HERE / "naive.py", clips, clips / "npy", "--feature", feature], clips)


def extract_with(peer: str, clips: Path) -> Cost:
    """Run another tool, by benchmarks/peers.py."""
    shutil.rmtree(clips / peer, ignore_errors=True)
    return common.run([sys.executable, HERE / "peers.py", peer, clips, clips / peer], clips)


def run_pool(clips: Path, features: str, workers: int) -> Cost:
    """Run the unavoidable library calls in a bare process pool, by benchmarks/calls.py."""
    command = [sys.executable, HERE / "calls.py", clips, "--pool", str(workers), "--features", *features.split("+")]
    return common.run(command, clips)


def time_calls(sets: Sets, features: str) -> dict[str, float]:
    """Measure the CPU milliseconds per clip of each library call, over the clips that only the large set has."""
    command = [sys.executable, HERE / "calls.py", sets.large, "--skip", str(sets.n_small)]
    command += ["--features", *features.split("+")]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def store_megabytes(clips: Path) -> float:
    """Size of the stores of the last extraction."""
    return sum(path.stat().st_size for path in (clips / "stores").rglob("*") if path.is_file()) / 1e6


def measure_costs(sets: Sets, features: str) -> dict[str, float]:
    """Measure every cost once, in milliseconds per clip, and compute the ratios."""
    costs = time_calls(sets, features)
    costs["unavoidable"] = sum(costs[call] for call in CALLS)
    costs["mgc"] = sets.slope(lambda clips: extract_with_mgc(clips, features, 1)).cpu
    costs["store MB"] = store_megabytes(sets.large) / sets.n_large
    costs["mgc / decode"] = costs["mgc"] / costs["decode"]
    costs["mgc / unavoidable"] = costs["mgc"] / costs["unavoidable"]
    if features in NAIVE:
        costs["naive"] = sets.slope(lambda clips: extract_naively(clips, features)).cpu
        costs["naive / mgc"] = costs["naive"] / costs["mgc"]
    for peer in PEERS if features == "mel" else ():
        costs[peer] = sets.slope(lambda clips, peer=peer: extract_with(peer, clips)).cpu
        costs[f"{peer} / mgc"] = costs[peer] / costs["mgc"]
    return costs


def measure_scaling(sets: Sets, features: str) -> dict[str, float]:
    """Measure the wall-clock speed-up by a second worker, of mgc and of a bare process pool."""
    speedups = {}
    for name, extract in (("mgc", extract_with_mgc), ("pool", run_pool)):
        one, two = (sets.slope(lambda clips, n=n, extract=extract: extract(clips, features, n)).wall for n in (1, 2))
        speedups[f"{name} 1 to 2"] = one / two
    return speedups | {"mgc / pool": speedups["mgc 1 to 2"] / speedups["pool 1 to 2"]}


def report(title: str, columns: tuple[str, ...], results: dict[str, list[dict[str, float]]], *, spread: bool) -> None:
    """Print a table of medians over the attempts.

    Args:
        title: heading of the table.
        columns: names of the figures to print.
        results: figures by name, of every attempt, by set of features; one row per set.
        spread: whether to print minimum and maximum, too.
    """
    rows: list[list[object]] = []
    for features, attempts in results.items():
        spreads = [
            Spread.of([figures[name] for figures in attempts]) if name in attempts[0] else None for name in columns
        ]
        rows.append([features, *(cell if spread or cell is None else cell.median for cell in spreads)])
    print(f"\n{title}\n\n{table(('features', *columns), rows)}", flush=True)


def profile(features: str, clips: Path) -> None:
    """Profile the tasks of an extraction, run in this process without Dask, and print their time by function.

    The profiler overstates small Python functions several times; its figures for library calls are right. The
    difference to the end-to-end figure is the cost of Dask and of its worker processes.
    """
    from mgc.pipeline.datasets import Dataset, open_dataset
    from mgc.pipeline.extraction import extract as extraction
    from mgc.pipeline.extraction.sharing import make_tasks
    from mgc.pipeline.extraction.worker import run_task
    from mgc.pipeline.features import parse_feature

    def run(profiler: cProfile.Profile | None = None) -> float:
        """Extract; return the CPU milliseconds per clip of the tasks alone."""
        seconds = 0.0

        def dispatch(batches: list, dataset: Dataset, options: extraction.Options, *_: object) -> None:
            nonlocal seconds
            for task in make_tasks(batches, dataset, options):
                start = time.process_time()
                profiler.runcall(run_task, task) if profiler else run_task(task)
                seconds += time.process_time() - start

        with tempfile.TemporaryDirectory(dir=clips) as out, mock.patch.object(extraction, "_dispatch", dispatch):
            extraction.extract(dataset, specs, Path(out), extraction.Options())
        return 1000 * seconds / n

    dataset = open_dataset(clips / "list.csv")
    specs = [parse_feature(name) for name in features.split("+")]
    n = len(dataset.tracks)
    run()  # warm-up: imports, filter banks and FFT plans
    plain = run()
    profiler = cProfile.Profile(time.process_time)
    run(profiler)
    stats = pstats.Stats(profiler)
    entries = sorted(stats.stats.items(), key=lambda item: -item[1][2])
    rows = [
        (_location(*function), 1000 * own / n, f"{100 * own / stats.total_tt:.1f} %", round(calls / n, 1))
        for function, (_, calls, own, _, _) in entries[:PROFILE_ROWS]
    ]
    total = 1000 * stats.total_tt / n
    print(f"\n{features}: {plain:.2f} ms per clip, {total:.2f} under the profiler; time in each function itself\n")
    print(table(("function", "ms per clip", "share", "calls per clip"), rows), flush=True)


def _location(file: str, line: int, function: str) -> str:
    """Format a function's location, such as `dsp/stages.py:12 rows`; `~` is the file of built-in functions."""
    return function if file == "~" else f"{Path(file).parent.name}/{Path(file).name}:{line} {function}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=common.default_folder())
    parser.add_argument("--all", action="store_true", help="all MP3s, not only 30 s stereo at 128 kbit/s and 44.1 kHz")
    parser.add_argument(
        "--clips", type=int, nargs=2, metavar=("SMALL", "LARGE"), default=(80, 400), help="clips per set"
    )
    parser.add_argument("--attempts", type=int, default=3, help="number of repetitions")
    parser.add_argument("--features", nargs="+", default=FEATURES, help="+ joins features of one pass")
    parser.add_argument("--scaling", action="store_true", help="also compare two workers with a bare process pool")
    parser.add_argument("--profile", action="store_true", help="instead profile the SMALL set")
    parser.add_argument("--smoke", action="store_true", help="--clips 2 6 --attempts 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every attempt to a file")
    options = parser.parse_args()
    if options.smoke:
        options.clips, options.attempts = (2, 6), 1
    if not 0 < options.clips[0] < options.clips[1] or options.attempts < 1:
        parser.error("--clips needs a small and a larger number, --attempts at least 1")
    if options.profile and (options.scaling or options.json):
        parser.error("--profile cannot be combined with --scaling or --json; leave these out")
    return options


def command_line(options: argparse.Namespace) -> str:
    """The command line that repeats this measurement, with defaults written out."""
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
    common.print_facts(facts)
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
                costs[features].append(measure_costs(sets, features))
                if options.scaling:
                    scaling[features].append(measure_scaling(sets, features))
    columns = (*CALLS, "unavoidable", "mgc", "naive", *PEERS, "store MB")
    report("CPU ms per clip, and size of the store", columns, costs, spread=False)
    ratios = ("mgc / decode", "mgc / unavoidable", *(f"{other} / mgc" for other in ("naive", *PEERS)))
    report(f"Ratios: median of {options.attempts} (minimum to maximum)", ratios, costs, spread=True)
    if options.scaling:
        columns = ("mgc 1 to 2", "pool 1 to 2", "mgc / pool")
        report("Wall-clock speed-up by a second worker", columns, scaling, spread=True)
    if options.json:
        options.json.write_text(json.dumps(facts | {"costs": costs, "scaling": scaling}, indent=2) + "\n")


if __name__ == "__main__":
    main()
