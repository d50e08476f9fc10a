"""Run recipes end to end, from MP3s to metrics: extract, train for one epoch on a few tracks, evaluate.

    python benchmarks/recipes.py                              every system, on the test corpus
    python benchmarks/recipes.py kth2020/cnn --folder FMA     one system, on another dataset
    python benchmarks/recipes.py --tracks 1 --genres 2        one track per genre and split, of two genres
    python benchmarks/recipes.py xu2022/knn --copies 3        200 neighbours need more tracks than the corpus has

This shows that every recipe works unchanged, and how long an epoch takes. Accuracies of such short runs mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import common

from mgc import cli
from mgc.pipeline.datasets import open_dataset


def mgc(workspace: Path, *arguments: object) -> str:
    """Run a command of mgc in this process, because importing PyTorch takes longer than most of these epochs.

    Args:
        workspace: value of `--data-dir`.
        arguments: the command and its arguments.

    Returns:
        The command's standard output.

    Raises:
        SystemExit: the command failed; the message holds its standard error.
    """
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main([*map(str, arguments), "--data-dir", str(workspace)])
        except SystemExit as error:
            code = error.code
    if code:
        sys.exit(f"mgc {' '.join(map(str, arguments))} failed:\n{err.getvalue()}")
    return out.getvalue()


def dataset_options(
    folder: Path, workspace: Path, n_tracks: int | None, n_genres: int | None, copies: int
) -> list[object]:
    """Choose the dataset option of `mgc extract`: a whole dataset, or a CSV list of some of its tracks.

    Args:
        folder: the dataset.
        workspace: folder for the list and copies of its tracks.
        n_tracks: tracks to list per genre and split; None for all.
        n_genres: genres to list; None for all.
        copies: number of times that each training track is listed, under different names.
    """
    if n_tracks is None and n_genres is None and copies == 1:
        return ["--dataset", folder]
    dataset = open_dataset(folder)
    counts: Counter[tuple[str, str]] = Counter()
    root = workspace / "tracks"
    root.mkdir(parents=True, exist_ok=True)
    track_list = root / "tracks.csv"
    with track_list.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "track_id", "genre", "split", "artist"))
        for track in dataset.tracks.to_pylist():
            counts[track["genre"], track["split"]] += 1
            in_genre = track["genre"] in dataset.genres[: n_genres or None]
            if not in_genre or counts[track["genre"], track["split"]] > (n_tracks or len(dataset.tracks)):
                continue
            for i in range(copies if track["split"] == "training" else 1):
                name = f"{track['track_id']}-{i}{Path(track['path']).suffix}"
                shutil.copyfile(Path(dataset.root, track["path"]), root / name)
                rows.writerow([name, f"{track['track_id']}-{i}", track["genre"], track["split"], track["artist_id"]])
    return ["--dataset", track_list]


def run_recipe(system: dict[str, Any], dataset: list[object], workspace: Path, limit: int) -> tuple[object, ...]:
    """Run a recipe and return its row: id, stores, seconds of the three commands, scored slices and tracks.

    Args:
        system: the system's entry in `mgc models --json`.
        dataset: options of `mgc extract` that name the dataset.
        workspace: folder for stores and runs.
        limit: training tracks per genre, for networks.
    """
    id = system["id"]
    start = time.monotonic()
    report = json.loads(mgc(workspace, "extract", *dataset, "--for", id, "--json"))
    extract_end = time.monotonic()
    # Classical systems are fitted in one step, and may need more neighbours than a few tracks give.
    limits = () if system["kind"] == "classical" else ("--epochs", 1, "--limit-tracks", limit)
    mgc(workspace, "train", "--recipe", id, *limits)
    train_end = time.monotonic()
    evaluation = json.loads(mgc(workspace, "evaluate", "--by-genre", "--json"))
    evaluate_end = time.monotonic()
    stores = " + ".join(Path(store["store"]).name for store in report["stores"])
    times = (extract_end - start, train_end - extract_end, evaluate_end - train_end)
    slices = sum(map(sum, evaluation["by_slice"]["confusion"])) if evaluation["by_slice"] else None
    return id, stores, *times, slices, evaluation["n_tracks"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("systems", nargs="*", help="ids; by default all systems")
    parser.add_argument(
        "--folder", type=Path, default=common.default_folder(), help="dataset; default: the test corpus"
    )
    parser.add_argument("--limit-tracks", type=int, default=2, help="training tracks per genre for networks")
    parser.add_argument("--tracks", type=int, help="tracks to extract per genre and split; by default all")
    parser.add_argument("--genres", type=int, help="number of genres; by default all")
    parser.add_argument("--copies", type=int, default=1, help="copies of each training track")
    parser.add_argument("--workspace", type=Path, help="folder for stores and runs; by default temporary")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        workspace = arguments.workspace or Path(scratch)
        descriptions = {system["id"]: system for system in json.loads(mgc(workspace, "models", "--json"))}
        dataset = dataset_options(arguments.folder, workspace, arguments.tracks, arguments.genres, arguments.copies)
        rows = []
        for id in arguments.systems or descriptions:
            rows.append(run_recipe(descriptions[id], dataset, workspace, arguments.limit_tracks))
            print(*rows[-1], file=sys.stderr, flush=True)
    print(f"command: {' '.join(sys.argv)}")
    for name, value in common.environment(["mgc", "torch", "scikit-learn"]).items():
        print(f"{name}: {value}")
    header = ("system", "stores", "extract s", "train s", "evaluate s", "slices", "tracks")
    print(f"\n{common.table(header, rows)}")


if __name__ == "__main__":
    main()
