"""Costs of `mgc` other than decoding, at the size of FMA: planning, an extraction with nothing to do, `mgc slice`.

    python benchmarks/scale.py                    8,000 tracks (FMA-small), then 106,574 (FMA-full)
    python benchmarks/scale.py --keep FOLDER      keep libraries and stores in FOLDER, and reuse those already there
    python benchmarks/scale.py --smoke            smallest sizes; the figures mean nothing

The library is synthetic. Its files are hard links to sixteen MP3s of one second. Its `tracks.csv` has FMA's 52 columns
and three header rows, and 106,574 rows in about 250 MB, whatever the number of files. No file is decoded: the first
extraction runs the real client with real Dask workers, which write real shards of 30 s of noise per track with four mel
bands (see benchmarks/fabricate.py). The other commands run `mgc` as users do, on one processor, including interpreter
start and imports. Client memory is the peak of the client process alone, which also runs the Dask scheduler.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import common
from common import Spread, table

from mgc.pipeline.demo.dataset import COLUMNS

HERE = Path(__file__).resolve().parent
MGC = Path(sysconfig.get_path("scripts")) / "mgc"
FEATURE = ("--feature", "mel:n_mels=4")
LIBRARIES = ("mgc", "numpy", "pyarrow", "zarr", "zarrs", "distributed")
ROWS = 106_574
CSV_BYTES = 250_000_000
SOURCES = 16
ARTISTS = 16_341
GENRES = ("Blues", "Classical", "Electronic", "Folk", "Hip-Hop", "Jazz", "Pop", "Rock")


def make_library(folder: Path, n_tracks: int, n_rows: int, csv_bytes: int) -> Path:
    """Create a library in FMA's layout, unless it exists.

    Args:
        folder: parent of the audio folder and of the metadata.
        n_tracks: number of audio files.
        n_rows: rows of `tracks.csv`.
        csv_bytes: approximate size of `tracks.csv`.

    Returns:
        The audio folder.
    """
    audio = folder / "fma_scale"
    if (folder / "fma_metadata" / "tracks.csv").exists():
        return audio
    sources = _sources(folder / "sources")
    for track in range(n_tracks):
        path = audio / f"{track // 1000:03d}" / f"{track:06d}.mp3"
        if track % 1000 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.link(sources[track % SOURCES], path)
    # Extraction divides tracks into batches by their duration, which it estimates from size and bit rate: 30 s each.
    rates = [path.stat().st_size * 8 // 30 for path in sources]
    (folder / "fma_metadata").mkdir(exist_ok=True)
    unfinished = folder / "fma_metadata" / "tracks.tmp"
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(_rows(n_tracks, n_rows, csv_bytes, rates))
    os.utime(unfinished, (1e9, 1e9))
    unfinished.rename(unfinished.with_suffix(".csv"))
    return audio


def _sources(folder: Path) -> list[Path]:
    """Write MP3s of about a second of noise, with different sizes."""
    import numpy as np
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.mp3" for number in range(SOURCES)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).normal(0, 0.1, 20_000 + 1000 * number)
        soundfile.write(path, noise, 22050, format="MP3")
    return paths


def _rows(n_tracks: int, n_rows: int, csv_bytes: int, rates: list[int]) -> Iterator[list[object]]:
    """Generate the lines of `tracks.csv`; the first `n_tracks` tracks are in subset `small`, the others in `large`."""
    names = [(group, name) for group, columns in COLUMNS.items() for name in columns.split()]
    yield ["", *(group for group, _ in names)]
    yield ["", *(name for _, name in names)]
    yield ["track_id", *("" for _ in names)]
    rng = random.Random(0)
    text = "".join(rng.choice('abcdefghij klmnop, qrs "tuv" wxyz.\n') for _ in range(200_000))
    text_length = csv_bytes // n_rows - 420  # the other columns take about 420 bytes
    for track in range(n_rows):
        artist = track % min(ARTISTS, max(10, n_rows // 6))
        start = rng.randrange(len(text) - max(1, text_length))
        split = "training" if artist % 10 < 8 else ("validation", "test")[artist % 2]
        values = {
            ("album", "id"): track // 12,
            ("album", "title"): f"Album {track // 12}",
            ("album", "date_created"): "2008-11-26 01:44:45",
            ("album", "information"): f"<p>{text[start : start + max(0, text_length // 2)]}</p>",
            ("artist", "bio"): f"<p>{text[-start - text_length // 2 : -start] if start else ''}</p>",
            ("artist", "id"): artist,
            ("artist", "name"): f"Artist {artist}",
            ("artist", "date_created"): "2008-11-26 01:42:32",
            ("set", "split"): split,
            ("set", "subset"): "small" if track < n_tracks else "large",
            ("track", "bit_rate"): rates[track % SOURCES],
            ("track", "duration"): 30,
            ("track", "genre_top"): GENRES[artist % len(GENRES)],
            ("track", "genres"): "[21]",
            ("track", "genres_all"): "[21]",
            ("track", "license"): "Attribution-NonCommercial-ShareAlike 3.0 International",
            ("track", "title"): f"Title {track}",
        }
        yield [track, *(values.get(name, "0") for name in names)]


def call(*command: object) -> dict[str, float]:
    """Run a command on one processor; return its wall-clock seconds, CPU seconds, and peak memory in MB."""
    start = time.perf_counter()
    # Allows bytecode files, so that not every call compiles mgc again.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, preexec_fn=_pin, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "mb": usage.ru_maxrss * common.RSS_UNIT / 1e6}


def _pin() -> None:
    """Pin this process to one processor, if the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def measure(folder: Path, n_tracks: int, options: argparse.Namespace) -> dict[str, object]:
    """Create a library, run every command on it, and return all figures by name."""
    folder.mkdir(parents=True, exist_ok=True)
    audio = make_library(folder, n_tracks, options.rows, options.csv_bytes)
    figures: dict[str, object] = {"csv MB": (folder / "fma_metadata" / "tracks.csv").stat().st_size / 1e6}
    extract = ("extract", "--dataset", audio, "--data-dir", folder / "data", *FEATURE)
    record = folder / "client.json"
    if not record.exists():
        command = [sys.executable, HERE / "fabricate.py", folder / "running.json", *extract, "--workers", 1]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        (folder / "running.json").rename(record)
    figures |= json.loads(record.read_text())
    (store,) = (folder / "data" / "features").glob("*/mel-*")
    figures["shards"] = len(list((store / "shards").glob("*.parquet")))
    figures["manifest MB"] = (store / "tracks.parquet").stat().st_size / 1e6
    figures["slices MB"] = (store / "slices.parquet").stat().st_size / 1e6
    for cached in (folder / "data" / "features").rglob(".tracks-*"):
        cached.unlink()
    figures["no-op, csv parsed"] = [call(MGC, *extract)]
    figures["no-op"] = [call(MGC, *extract) for _ in range(options.attempts)]
    slices = [(3, 0), (4, 0.5)]
    figures["slice"] = [
        call(MGC, "slice", store, "--slice", slices[i % 2][0], "--overlap", slices[i % 2][1], "--data-dir", folder)
        for i in range(options.attempts + options.attempts % 2)
    ]
    return figures


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, nargs="+", default=[8000, ROWS], help="numbers of files, one per library")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of tracks.csv")
    parser.add_argument("--csv-bytes", type=int, default=CSV_BYTES, help="approximate size of tracks.csv")
    parser.add_argument("--attempts", type=int, default=3, help="number of repetitions")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep libraries and stores here, and reuse them")
    parser.add_argument("--smoke", action="store_true", help="--tracks 60 --rows 80 --csv-bytes 100000 --attempts 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to a file")
    options = parser.parse_args()
    if options.smoke:
        options.tracks, options.rows, options.csv_bytes, options.attempts = [60], 80, 100_000, 1
    if options.attempts < 1 or not 0 < min(options.tracks) <= max(options.tracks) <= options.rows <= 1_000_000:
        parser.error("--tracks needs numbers from 1 to --rows, --rows at most 1,000,000, --attempts at least 1")
    return options


def main() -> None:
    options = parse_arguments()
    command = ["python", os.path.relpath(__file__), "--tracks", *map(str, options.tracks), "--rows", str(options.rows)]
    command += ["--csv-bytes", str(options.csv_bytes), "--attempts", str(options.attempts)]
    facts = {"command": " ".join(command), **common.environment(LIBRARIES)}
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), flush=True)
    results = {}
    home = options.keep or Path(tempfile.mkdtemp(prefix="mgc-scale-"))
    try:
        for n_tracks in options.tracks:
            results[n_tracks] = measure(home.absolute() / f"{n_tracks}", n_tracks, options)
    finally:
        if not options.keep:
            shutil.rmtree(home)
    sizes = ("csv MB", "shards", "manifest MB", "slices MB")
    rows = [(f"{n:,}", *(figures[name] for name in sizes)) for n, figures in results.items()]
    print(f"\nSizes\n\n{table(('tracks', *sizes), rows)}")
    columns = ("planning s", "planning MB", "dispatch MB", "publishing MB", "whole run s", "client CPU s", "client MB")
    names = ("planning_s", "planning_mb", "dispatch_mb", "publishing_mb", "wall_s", "client_cpu_s", "client_mb")
    rows = [(f"{n:,}", *(figures[name] for name in names)) for n, figures in results.items()]
    print(
        f"\nFirst extraction, nothing decoded: peak memory of the client alone\n\n{table(('tracks', *columns), rows)}"
    )
    rows = [
        (f"{n:,}: {name}", *(Spread.of([cost[key] for cost in figures[name]]) for key in ("wall", "cpu", "mb")))
        for n, figures in results.items()
        for name in ("no-op, csv parsed", "no-op", "slice")
    ]
    title = f"Commands on one processor: median of {options.attempts} (minimum to maximum)"
    print(f"\n{title}\n\n{table(('command', 'wall s', 'CPU s', 'peak MB'), rows)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(facts | {"results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
