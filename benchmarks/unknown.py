"""Music of genres that a run does not know: how much of it `mgc predict --unknown validation` refuses, at what cost.

    python benchmarks/unknown.py                     the test corpus, each genre left out in turn
    python benchmarks/unknown.py DATASET             an audio folder or list with artists
    python benchmarks/unknown.py --models moments/logreg vit2021/cnn --epochs 15

For each genre, a run learns all others; the probability is chosen on its validation tracks. Unknown are the tracks of
the genre that was left out; known are the run's test tracks, by other artists than it has heard.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import common
import pyarrow.parquet as pq
from common import Spread, default_folder, table

from mgc.pipeline.store.store import Store


def mgc(*words: object) -> str:
    """Run a command of mgc; if it fails, exit with its last line."""
    done = subprocess.run([sys.executable, "-m", "mgc", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"mgc {words[0]}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def extract(dataset: Path, data: Path, *options: object) -> Store:
    """Extract mel frames; return the store."""
    out = mgc("extract", dataset, "--feature", "mel", "--data-dir", data, "--json", *options)
    return Store.open(Path(json.loads(out)["stores"][0]["store"]))


def leave_out(genre: str, store: Store, model: str, epochs: int | None, folder: Path) -> dict[str, Any]:
    """Train a system without a genre, and count what it names."""
    with (folder / "map.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("genre", "as"), (genre, "")])
    root = Path(store.dataset["root"])
    rest = extract(root, folder, "--genre-map", folder / "map.csv", "--name", "rest")
    limit = ("--epochs", epochs) if epochs and not model.startswith("moments") else ()
    mgc("train", "--model", model, "--store", rest.path, "--data-dir", folder, *limit)
    [run] = (folder / "runs").iterdir()
    for split in ("validation", "test"):
        mgc("evaluate", run, "--split", split, "--no-report", "--data-dir", folder)
    known = pq.read_table(run / "track-predictions.parquet").to_pylist()
    paths = {row["track_id"]: row["path"] for row in rest.tracks.to_pylist()}
    unknown = [row["path"] for row in store.tracks.to_pylist() if row["genre"] == genre and row["status"] == "ok"]
    files = [root / path for path in (*unknown, *(paths[row["track_id"]] for row in known))]
    named = json.loads(mgc("predict", run, *files, "--unknown", "validation", "--json", "--data-dir", folder))
    strange, own = named[: len(unknown)], named[len(unknown) :]
    answers = [(row["true"], answer["genre"], row["predicted"]) for row, answer in zip(known, own, strict=True)]
    return {
        "unknown": len(strange),
        "refused": sum(answer["genre"] is None for answer in strange),
        "known": len(answers),
        "right": sum(true == before for true, _, before in answers),
        "still right": sum(true == after for true, after, _ in answers),
        "wrong": sum(true != before for true, _, before in answers),
        "still wrong": sum(after not in (true, None) for true, after, _ in answers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", type=Path, help="dataset  [default: the test corpus]")
    parser.add_argument("--models", nargs="+", default=["moments/logreg", "vit2021/cnn"])
    parser.add_argument("--epochs", type=int, help="of networks  [default: the recipe's]")
    arguments = parser.parse_args()
    for name, value in common.environment(("mgc", "torch", "scikit-learn")).items():
        print(f"{name}: {value}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = extract(arguments.dataset or default_folder(), Path(folder) / "all")
        for model in arguments.models:
            results = []
            for number, genre in enumerate(store.genres):
                place = Path(folder) / f"{model.replace('/', '-')}-{number}"
                place.mkdir()
                results.append(leave_out(genre, store, model, arguments.epochs, place))
            total = {name: sum(result[name] for result in results) for name in results[0]}
            shares = Spread.of([result["refused"] / result["unknown"] for result in results])
            rows.append(
                (
                    model,
                    f"{total['refused']} of {total['unknown']}",
                    str(shares),
                    f"{total['still right']} of {total['right']}",
                    f"{total['still wrong']} of {total['wrong']}",
                )
            )
    heads = ["system", "unknown tracks refused", "share by genre", "right names kept", "wrong names kept"]
    print("\nEach genre left out in turn, all runs together\n")
    print(table(heads, rows))


if __name__ == "__main__":
    main()
