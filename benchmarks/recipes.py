"""Run recipes end to end, from MP3s to metrics, each by three commands and for an epoch on a few tracks.

    python benchmarks/recipes.py                              every system, on the test corpus
    python benchmarks/recipes.py kth2020/cnn --folder FMA     some, on another dataset
    python benchmarks/recipes.py --tracks 1 --genres 2        on so few tracks of so few genres only
    python benchmarks/recipes.py xu2022/knn --copies 3        it asks 200 neighbours, which the corpus has not

What it shows is that each recipe works as it is, and what an epoch takes; accuracies of so short runs mean nothing.
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
    """Standard output of a command, run in this process: importing PyTorch takes longer than most of these epochs.

    A failure ends the benchmark.
    """
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main([*map(str, arguments), "--data-dir", str(workspace)])
        except SystemExit as ended:
            code = ended.code
    if code:
        sys.exit(f"mgc {' '.join(map(str, arguments))} failed:\n{err.getvalue()}")
    return out.getvalue()


def chosen_tracks(folder: Path, workspace: Path, n_tracks: int | None, n_genres: int | None, copies: int) -> list[Any]:
    """Options of `mgc extract` that name a dataset, or a list of the first of its tracks in each genre and split.

    Training tracks may be listed several times, under other names.
    """
    if n_tracks is None and n_genres is None and copies == 1:
        return ["--dataset", folder]
    found = open_dataset(folder)
    taken: Counter[tuple[str, str]] = Counter()
    root = workspace / "tracks"
    root.mkdir(parents=True, exist_ok=True)
    chosen = root / "chosen.csv"
    with chosen.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "track_id", "genre", "split", "artist"))
        for track in found.tracks.to_pylist():
            taken[track["genre"], track["split"]] += 1
            in_genre = track["genre"] in found.genres[: n_genres or None]
            if not in_genre or taken[track["genre"], track["split"]] > (n_tracks or len(found.tracks)):
                continue
            for i in range(copies if track["split"] == "training" else 1):
                name = f"{track['track_id']}-{i}{Path(track['path']).suffix}"
                shutil.copyfile(Path(found.root, track["path"]), root / name)
                rows.writerow([name, f"{track['track_id']}-{i}", track["genre"], track["split"], track["artist_id"]])
    return ["--dataset", chosen]


def run_recipe(system: dict[str, Any], dataset: list[object], workspace: Path, limit: int) -> tuple[object, ...]:
    """A row of the table: what was read, how long it took, how many slices and tracks were scored."""
    id = system["id"]
    start = time.monotonic()
    report = json.loads(mgc(workspace, "extract", *dataset, "--for", id, "--json"))
    extracted = time.monotonic()
    # A classical system is fitted in one step, and may ask for more neighbours than a few tracks are.
    limits = () if system["kind"] == "classical" else ("--epochs", 1, "--limit-tracks", limit)
    mgc(workspace, "train", "--recipe", id, *limits)
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
    parser.add_argument("--limit-tracks", type=int, default=2, help="of each genre, that networks see")
    parser.add_argument("--tracks", type=int, help="tracks of each genre and split that are extracted; else all")
    parser.add_argument("--genres", type=int, help="genres; else all")
    parser.add_argument("--copies", type=int, default=1, help="times that each training track is there")
    parser.add_argument("--workspace", type=Path, help="where stores and runs are kept; else a temporary folder")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        workspace = chosen.workspace or Path(scratch)
        known = {system["id"]: system for system in json.loads(mgc(workspace, "models", "--json"))}
        dataset = chosen_tracks(chosen.folder, workspace, chosen.tracks, chosen.genres, chosen.copies)
        rows = []
        for id in chosen.systems or known:
            rows.append(run_recipe(known[id], dataset, workspace, chosen.limit_tracks))
            print(*rows[-1], file=sys.stderr, flush=True)
    print(f"command: {' '.join(sys.argv)}")
    for name, value in common.environment(["mgc", "torch", "scikit-learn"]).items():
        print(f"{name}: {value}")
    header = ("system", "stores", "extract s", "train s", "evaluate s", "slices", "tracks")
    print(f"\n{common.table(header, rows)}")


if __name__ == "__main__":
    main()
