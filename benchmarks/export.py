"""The MobileNets of xu2022 as float32 and int8 files: parameters, size, time for a slice, difference of accuracy.

    python benchmarks/export.py FOLDER [--smoke] [--epochs N] [--keep FOLDER]

FOLDER is a folder of audio files, one folder for each genre, or a published dataset. Features, training, export and
measurements are those of `mgc extract`, `mgc train` and `mgc export`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import default_folder, environment, table

SYSTEMS = ("xu2022/mobilenet", "xu2022/mobilenet-v1", "xu2022/mobilenet-v2")
HEADER = (
    "system", "parameters", "float, MB", "int8, MB", "float, ms", "int8, ms", "float, %", "int8, %",
    "difference, points", "95 % interval",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=default_folder(), help="folder of audio files")
    parser.add_argument("--smoke", action="store_true", help="one system, one epoch, a track of each genre")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of each training")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS)
    parser.add_argument("--keep", type=Path, help="folder for stores, runs and files")
    parser.add_argument("--limit-tracks", type=int, help="tracks of each genre to train with")
    options = parser.parse_args()
    if options.smoke:
        options.epochs, options.systems, options.limit_tracks = 1, options.systems[:1], 2
    with tempfile.TemporaryDirectory(prefix="mgc-export-") as temporary:
        measure((options.keep or Path(temporary)).resolve(), options)


def measure(work: Path, options: argparse.Namespace) -> None:
    """Extract once, then train and export each system, and print the table."""
    extract = ["extract", "--dataset", options.folder.resolve(), "--feature", "stft", "--slice", 4, "--overlap", 0]
    mgc(work, *extract)
    limit = ["--limit-tracks", options.limit_tracks] if options.limit_tracks else []
    rows = []
    for id in options.systems:
        before = set((work / "runs").glob("*"))
        mgc(work, "train", "--model", id, "--epochs", options.epochs, *limit)
        [run] = set((work / "runs").glob("*")) - before
        out = work / "exports" / id.partition("/")[2]
        made = json.loads(mgc(work, "export", run, "--from", "features", "--quantise", "int8", "--out", out, "--json"))[
            "measured"
        ]
        params = json.loads((run / "config.json").read_text())["params"]
        span = made["difference"]
        rows.append(
            (
                id, f"{params:,}", made["bytes_before"] / 1e6, made["bytes_after"] / 1e6, made["ms_before"],
                made["ms_after"], 100 * made["accuracy_before"], 100 * made["accuracy_after"],
                100 * span["difference"], f"{100 * span['low']:+.1f} to {100 * span['high']:+.1f}",
            )
        )  # fmt: skip
    for key, value in environment(["mgc", "torch", "onnx", "onnxruntime"]).items():
        print(f"{key}: {value}")
    print(f"{options.epochs} epochs, {made['n_tracks']} {made['split']} tracks\n")
    print(table(HEADER, rows))


def mgc(work: Path, *words: object) -> str:
    """Run a command of mgc in a workspace, and return what it prints; exit with its error if it fails."""
    command = [sys.executable, "-m", "mgc", *map(str, words), "--data-dir", str(work)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
