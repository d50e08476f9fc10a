"""Run recipes end to end, from MP3s to metrics, each by three commands and for an epoch on a few tracks.

    python benchmarks/recipes.py                              every system, on the test corpus
    python benchmarks/recipes.py kth2020/cnn --folder FMA     some, on another dataset

What it shows is that each recipe works as it is, and what an epoch takes; accuracies of so short runs mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

MGC = Path(sys.executable).with_name("mgc")


def mgc(workspace: Path, *arguments: object) -> str:
    """Standard output of a command; a failure ends the benchmark."""
    environment = os.environ | {"MGC_DATA": str(workspace)}
    done = subprocess.run([MGC, *map(str, arguments)], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"mgc {' '.join(map(str, arguments))} failed:\n{done.stderr or done.stdout}")
    return done.stdout


def run_recipe(system: dict[str, Any], dataset: Path, workspace: Path, limit: int) -> tuple[object, ...]:
    """A row of the table: what was read, how long it took, how many slices and tracks were scored."""
    id = system["id"]
    start = time.monotonic()
    report = json.loads(mgc(workspace, "extract", "--dataset", dataset, "--for", id, "--json"))
    extracted = time.monotonic()
    epochs = () if system["kind"] == "classical" else ("--epochs", 1)
    mgc(workspace, "train", "--recipe", id, *epochs, "--limit-tracks", limit)
    trained = time.monotonic()
    measured = json.loads(mgc(workspace, "evaluate", "--by-genre", "--json"))
    evaluated = time.monotonic()
    stores = " + ".join(Path(store["store"]).name for store in report["stores"])
    times = (extracted - start, trained - extracted, evaluated - trained)
    slices = sum(map(sum, measured["by_slice"]["confusion"])) if measured["by_slice"] else None
    return id, stores, *times, slices, measured["n_tracks"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("systems", nargs="*", help="ids; all of `mgc models` when none is named")
    parser.add_argument("--folder", type=Path, default=common.default_folder(), help="a dataset")
    parser.add_argument("--limit-tracks", type=int, default=2, help="of each genre")
    parser.add_argument("--workspace", type=Path, help="where stores and runs are kept; else a temporary folder")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        workspace = chosen.workspace or Path(scratch)
        known = {system["id"]: system for system in json.loads(mgc(workspace, "models", "--json"))}
        rows = []
        for id in chosen.systems or known:
            rows.append(run_recipe(known[id], chosen.folder, workspace, chosen.limit_tracks))
            print(*rows[-1], file=sys.stderr, flush=True)
    print(f"command: {' '.join(sys.argv)}")
    for name, value in common.environment(["mgc", "torch", "scikit-learn"]).items():
        print(f"{name}: {value}")
    header = ("system", "stores", "extract s", "train s", "evaluate s", "slices", "tracks")
    print(f"\n{common.table(header, rows)}")


if __name__ == "__main__":
    main()
