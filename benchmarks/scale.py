"""Costs of `mgc` other than decoding, from planning to an epoch of training, for libraries of up to a million tracks.

    python benchmarks/scale.py                    8,000 tracks (FMA-small), then 106,574 (FMA-full)
    python benchmarks/scale.py --tracks 1000000   a million tracks: about half an hour, 6 GB of disk
    python benchmarks/scale.py --keep FOLDER      keep libraries and stores in FOLDER, and reuse those already there
    python benchmarks/scale.py --smoke            smallest sizes; the figures mean nothing

The library is made up (see benchmarks/library.py). Its `tracks.csv` has FMA's 52 columns and three header rows: at
least 106,574 rows whatever the number of files, in 250 MB, or about 0.9 kB a row if that is more. No file is decoded:
the first extraction runs the real client with real Dask workers, which write shards with real fragments and digests
around the same 30 s of noise (see benchmarks/fabricate.py).

The other commands run `mgc` as users do, including interpreter start and imports: on one processor, extractions with
nothing to do and `mgc slice`; then `mgc train` for one epoch. The training opens its whole splits, and is stopped by
Ctrl-C after --train-seconds; the time of an epoch then follows from the slices that it has seen. Shards are read from
memory, not from the disk. Client memory is the peak of the client process alone, which also runs the Dask scheduler.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import common
from common import Spread, table
from library import make_library

HERE = Path(__file__).resolve().parent
MGC = Path(sysconfig.get_path("scripts")) / "mgc"
LIBRARIES = ("mgc", "numpy", "pyarrow", "zarr", "zarrs", "distributed", "torch")
ROWS = 106_574
CSV_BYTES, CSV_ROW_BYTES = 250_000_000, 1000
BATCH_SIZE = 64
#: CPU seconds to decode a clip of 30 s and compute its feature.
DECODING_S = 0.04
COMMANDS = ("no-op, csv parsed", "no-op", "slice", "train")


def call(*command: object, stop_after: float | None = None) -> tuple[dict[str, Any], str]:
    """Run a command.

    Args:
        command: the command.
        stop_after: seconds after which it gets the signal of Ctrl-C; it then may end with exit code 130. None lets it
            end by itself, on one processor.

    Returns:
        Wall-clock seconds, CPU seconds and peak memory in MB as `wall`, `cpu` and `mb`; what it printed.
    """
    start = time.perf_counter()
    # Allows bytecode files, so that not every call compiles mgc again.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_pin if stop_after is None else _heed_ctrl_c,
            env=environment,
        )
        timer = threading.Timer(stop_after or 0, process.send_signal, [signal.SIGINT])
        if stop_after is not None:
            timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        timer.cancel()
        output.seek(0)
        text = output.read()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in ((0,) if stop_after is None else (0, 130)):
        sys.exit(f"{' '.join(map(str, command))} failed:\n{text}")
    cpu = usage.ru_utime + usage.ru_stime
    return {"wall": wall, "cpu": cpu, "mb": usage.ru_maxrss * common.RSS_UNIT / 1e6}, text


def _pin() -> None:
    """Pin this process to one processor, if the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _heed_ctrl_c() -> None:
    """Let this process end by SIGINT: a shell lets the processes that it starts in the background ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def measure(folder: Path, n_tracks: int, options: argparse.Namespace) -> dict[str, Any]:
    """Create a library, run every command on it, and return all figures by name."""
    n_rows = options.rows or max(ROWS, n_tracks)
    csv_bytes = options.csv_bytes or max(CSV_BYTES, CSV_ROW_BYTES * n_rows)
    audio = make_library(folder, n_tracks, n_rows, csv_bytes)
    figures: dict[str, Any] = {"csv MB": (folder / "fma_metadata" / "tracks.csv").stat().st_size / 1e6}
    extract = ("extract", "--dataset", audio, "--data-dir", folder / "data", "--feature", "mel")
    record = folder / "client.json"
    if not record.exists():
        command = [sys.executable, HERE / "fabricate.py", folder / "running.json", *extract, "--workers", 1]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        (folder / "running.json").rename(record)
    figures |= json.loads(record.read_text())
    (store,) = (folder / "data" / "features").glob("*/mel-*")
    figures["shards"] = len(list((store / "shards").glob("*.parquet")))
    for cached in (folder / "data" / "features").rglob(".tracks-*"):
        cached.unlink()
    figures["no-op, csv parsed"] = [call(MGC, *extract)[0]]
    figures["no-op"] = [call(MGC, *extract)[0] for _ in range(options.attempts)]
    # An odd number of cuts: the last one is 4 s, half overlapping, as training takes it.
    slices = [(4, 0.5), (3, 0)] * options.attempts
    figures["slice"] = [
        call(MGC, "slice", store, "--slice", length, "--overlap", overlap, "--data-dir", folder)[0]
        for length, overlap in slices[: options.attempts // 2 * 2 + 1]
    ]
    figures["manifest MB"] = (store / "tracks.parquet").stat().st_size / 1e6
    figures["slices MB"] = (store / "slices.parquet").stat().st_size / 1e6
    cost, figures["epoch"] = train(folder, store, options)
    figures["train"] = [cost]
    return figures


def train(folder: Path, store: Path, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train for one epoch, or the first part of it; return the cost of the command, and the figures of the epoch.

    These are the `slices` that were seen, the `share` of the epoch that they are, `slices_per_s`, `hours` of the whole
    epoch, without validation if it was stopped, `core_hours` at the command's ratio of CPU time to time, and
    `opening_s`, the rest of the time of the command.
    """
    import pyarrow.compute as pc

    from mgc.models.runs.run import Run
    from mgc.pipeline.store.store import Store

    shutil.rmtree(folder / "training", ignore_errors=True)
    settings = ("--model", options.model, "--epochs", 1, "--batch-size", BATCH_SIZE, "--device", "cpu")
    command = (MGC, "train", "--store", store, *settings, "--residency", "stream", "--data-dir", folder / "training")
    cost, output = call(*command, stop_after=options.train_seconds)
    (path,) = (folder / "training" / "runs").iterdir()
    run = Run.open(path)
    is_training = pc.equal(Store.open(store).read_table("slices.parquet", ["split"])["split"], "training")
    n_slices, share, seconds = pc.sum(is_training).as_py(), 1.0, 0.0
    if stopped := re.search(r"saved in epoch 1, after (\d+) of (\d+) batches", output):
        progress = run.load("last.pt")["progress"]
        share, seconds = int(stopped[1]) / int(stopped[2]), progress["seconds"]
    elif run.history:
        seconds = run.history[0]["seconds"]
    if not seconds:
        sys.exit(f"no batch was trained in {options.train_seconds} s: give --train-seconds more")
    return cost, {
        "slices": round(n_slices * share),
        "share": share,
        "slices_per_s": n_slices * share / seconds,
        "hours": seconds / share / 3600,
        "core_hours": seconds / share / 3600 * cost["cpu"] / cost["wall"],
        "opening_s": cost["wall"] - seconds,
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, nargs="+", default=[8000, ROWS], help="numbers of files, one per library")
    parser.add_argument("--rows", type=int, help="rows of tracks.csv  [default: 106,574, or as many as tracks]")
    parser.add_argument(
        "--csv-bytes", type=int, help="approximate size of tracks.csv  [default: 250 MB, or 1 kB a row]"
    )
    parser.add_argument("--model", default="vit2021/mlp", help="network to train on mel spectrograms")
    parser.add_argument("--train-seconds", type=float, default=600, help="stop the training after this time")
    parser.add_argument("--attempts", type=int, default=1, help="number of repetitions")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep libraries and stores here, and reuse them")
    parser.add_argument("--smoke", action="store_true", help="--tracks 300 --rows 400 --csv-bytes 400000")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to a file")
    options = parser.parse_args()
    if options.smoke:
        options.tracks, options.rows, options.csv_bytes = [300], 400, 400_000
    rows = options.rows or max(ROWS, *options.tracks)
    if options.attempts < 1 or not 0 < min(options.tracks) <= max(options.tracks) <= rows <= 1_000_000:
        parser.error("--tracks needs numbers from 1 to --rows, --rows at most 1,000,000, --attempts at least 1")
    return options


def main() -> None:
    options = parse_arguments()
    facts = {"command": common.command_line(), **common.environment(LIBRARIES)}
    common.print_facts(facts)
    results = {n: measure(folder, n, options) for n, folder in common.folders(options.keep, options.tracks)}
    report(results, options)
    if options.json:
        options.json.write_text(json.dumps(facts | {"results": results}, indent=2) + "\n")


def report(results: dict[int, dict[str, Any]], options: argparse.Namespace) -> None:
    """Print the tables, and the hours of the whole way."""
    sizes = ("csv MB", "shards", "manifest MB", "slices MB")
    rows = [(f"{n:,}", *(figures[name] for name in sizes)) for n, figures in results.items()]
    print(f"\nSizes\n\n{table(('tracks', *sizes), rows)}")
    columns = (
        "planning s", "planning MB", "dispatch MB", "publishing s", "publishing MB", "whole run s", "client CPU s",
        "client MB",
    )  # fmt: skip
    rows = []
    for n, figures in results.items():
        figures["publishing"] = figures["publishing_s"] - figures["dispatch_s"]
        names = ("planning_s", "planning_mb", "dispatch_mb", "publishing", "publishing_mb", "wall_s", "client_cpu_s")
        rows.append((f"{n:,}", *(figures[name] for name in (*names, "client_mb"))))
    print(f"\nFirst extraction, nothing decoded: the client alone\n\n{table(('tracks', *columns), rows)}")
    rows = [
        (f"{n:,}: {name}", *(Spread.of([cost[key] for cost in figures[name]]) for key in ("wall", "cpu", "mb")))
        for n, figures in results.items()
        for name in COMMANDS
    ]
    title = f"Commands, all but train on one processor: median of {options.attempts} (minimum to maximum)"
    print(f"\n{title}\n\n{table(('command', 'wall s', 'CPU s', 'peak MB'), rows)}")
    columns = ("slices seen", "share of the epoch", "slices/s", "opening s", "epoch h", "epoch core-h")
    names = ("slices", "share", "slices_per_s", "opening_s", "hours", "core_hours")
    rows = [(f"{n:,}", *(figures["epoch"][name] for name in names)) for n, figures in results.items()]
    print(f"\nTraining of {options.model} in batches of {BATCH_SIZE}\n\n{table(('tracks', *columns), rows)}\n")
    for n, figures in results.items():
        steps = figures["wall_s"] + sum(figures[name][0]["wall"] for name in COMMANDS[:3])
        steps += figures["epoch"]["opening_s"]
        hours, decoding = steps / 3600 + figures["epoch"]["hours"], n * DECODING_S / 3600
        kind = "measured" if figures["epoch"]["share"] == 1 else "extrapolated"
        most = max(figures["client_mb"], *(cost["mb"] for name in COMMANDS for cost in figures[name]))
        print(
            f"{n:,} tracks: {most:,.0f} MB in a client at most, {hours:.2f} h in all,"
            f" of these {figures['epoch']['hours']:.2f} h for the epoch ({kind});"
            f" decoding would add {decoding:.2f} core-hours at {1000 * DECODING_S:.0f} ms a clip",
            flush=True,
        )


if __name__ == "__main__":
    main()
