"""Cost of `mgc predict` against `mgc extract` of the same feature, and its time from start to first result.

    python benchmarks/predict.py [FOLDER]            FOLDER holds real MP3s (default: the test corpus)
    python benchmarks/predict.py --models moments/logreg vit2021/cnn kth2020/cnn
    python benchmarks/predict.py --smoke             smallest sizes; the figures mean nothing

A cost is the CPU time of the whole process tree per clip: the slope between a small and a large set of the same clips,
so that start-up does not count. `scoring` is the part of it that reads the frames back, cuts them and runs the model,
measured in a process that does only that. The start is measured by the clock, for one clip and one worker.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import common
import torch
from common import Cost, Spread, table

from mgc.models.prediction import frames
from mgc.models.prediction.predict import FilePredictor
from mgc.models.runs.run import Run

MGC = Path(sysconfig.get_path("scripts")) / "mgc"


def train(clips: Path, model: str, feature: str, data: Path) -> Path:
    """Train a system for one epoch; what it has learnt does not matter."""
    options = ["--feature", feature, "--data-dir", data, "--duplicates", "keep"]
    common.run([MGC, "extract", "--dataset", "list.csv", *options], clips)
    epochs = [] if model.startswith("moments") else ["--epochs", "1"]
    common.run([MGC, "train", "--model", model, "--data-dir", data, *epochs], clips)
    [run] = (data / "runs").iterdir()
    return run


def extract(clips: Path, feature: str) -> Cost:
    """Run `mgc extract` with one worker into a new store."""
    shutil.rmtree(clips / "stores", ignore_errors=True)
    options = ["--feature", feature, "--workers", "1", "--out", "stores", "--duplicates", "keep"]
    return common.run([MGC, "extract", "--dataset", "list.csv", *options], clips)


def predict(clips: Path, run: Path) -> Cost:
    """Run `mgc predict` with one worker on a folder."""
    return common.run([MGC, "predict", run, ".", "--workers", "1", "--json"], clips)


def score(clips: Path, run: Path) -> float:
    """Return the CPU seconds of reading frames and running the model, without decoding."""
    paths = sorted(map(str, clips.glob("*.mp3")))
    predictor = FilePredictor(Run.open(run), "cpu")
    seconds = 0.0
    for batches in frames.extract(paths, predictor.specs, frames.Decoding(workers=1)):
        start = time.process_time()
        list(predictor.predict_frames(paths, batches))
        seconds += time.process_time() - start
    return seconds


def first_answer(clip: Path, run: Path) -> float:
    """Return the seconds from the start of `mgc predict` to the first line on its standard output."""
    start = time.perf_counter()
    command = [MGC, "predict", run, clip, "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.perf_counter() - start
        process.communicate()
    if process.returncode:
        raise SystemExit(f"mgc predict {clip} ended with exit code {process.returncode}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="folder of MP3s  [default: the test corpus]")
    parser.add_argument("--models", nargs="+", default=["moments/logreg", "vit2021/cnn", "kth2020/cnn"])
    parser.add_argument("--clips", nargs=2, type=int, default=[20, 100], help="sizes of the two sets")
    parser.add_argument("--attempts", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="smallest sizes")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.clips, arguments.attempts, arguments.models = [4, 6], 1, ["moments/logreg"]
    torch.set_num_threads(1)
    for name, value in common.environment(("mgc", "torch", "soundfile", "librosa", "distributed")).items():
        print(f"{name}: {value}")
    found = common.find_clips(arguments.folder or common.default_folder(), everything=arguments.smoke)
    rows, starts = [], []
    with tempfile.TemporaryDirectory() as home:
        small, large = (common.copy_set(found, n, Path(home) / f"{n}") for n in arguments.clips)
        scale = 1000 / (arguments.clips[1] - arguments.clips[0])
        for number, model in enumerate(arguments.models):
            feature = "mfcc" if model.startswith("vit2021") else "mel"
            run = train(large, model, feature, Path(home) / f"data{number}")
            costs: dict[str, list[float]] = {name: [] for name in ("extract", "predict", "scoring", "ratio")}
            for _ in range(arguments.attempts):
                costs["extract"].append(scale * (extract(large, feature).cpu - extract(small, feature).cpu))
                costs["predict"].append(scale * (predict(large, run).cpu - predict(small, run).cpu))
                costs["scoring"].append(scale * (score(large, run) - score(small, run)))
                costs["ratio"].append((costs["predict"][-1] - costs["scoring"][-1]) / costs["extract"][-1])
            rows.append((model, feature, *(f"{Spread.of(costs[name]).median:.1f}" for name in list(costs)[:3]),
                         Spread.of(costs["ratio"])))  # fmt: skip
            clip = next(small.glob("*.mp3"))
            answers = Spread.of([first_answer(clip, run) for _ in range(3)])
            whole = [common.run([MGC, "predict", run, clip, "--workers", "1"], small) for _ in range(3)]
            starts.append((model, answers, *map(Spread.of, zip(*whole, strict=True))))
    print("\nCPU ms per clip\n")
    heads = ["model", "feature", "extract", "predict", "scoring", "(predict - scoring) / extract"]
    print(table(heads, rows))
    print("\nOne clip, in seconds\n")
    print(table(["model", "start to first answer", "start to end, CPU", "start to end"], starts))


if __name__ == "__main__":
    sys.exit(main())
