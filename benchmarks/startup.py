"""Time until a command has its first result, and until a worker of an extraction is ready.

    python benchmarks/startup.py                        the demonstration's dataset, best of five
    python benchmarks/startup.py --commands evaluate worker
    python benchmarks/startup.py --smoke                one attempt each; the figures mean little

Each command runs in its own process on the dataset of `mgc demo`, which is so small that nearly all of the time is
start-up: imports, above all. The table has the attempt with the least CPU time of all processes of a command.

- wall: seconds until the first result: a line on standard output, or of `train`, the first update.
- CPU: user and system seconds of the command's own process until it ends; `train` ends with its first update.
- others: CPU seconds of the processes that it started: workers that decode, and the tracker of their resources.
- limit: CPU seconds that were the goal.

`evaluate` runs with --no-report, as the scores are printed before the report is written. A worker is measured from
inside: CPU seconds of its process, and seconds since it began, when it has imported Dask, when it has imported
`mgc.pipeline.extraction.worker`, and when it has computed its first frames.

`--imports COMMAND` prints instead what the imports of a command cost, by package (`python -X importtime`, whose own
cost is in the figures).
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common import environment, table

#: CPU seconds that were the goal, by command; those of a worker include Dask.
LIMITS = {
    "models": 0.5,
    "list": 0.5,
    "info STORE": 0.5,
    "info RUN": 0.5,
    "evaluate scikit-learn": 3.0,
    "evaluate network": 3.0,
    "predict scikit-learn": 3.0,
    "predict network": 3.0,
    "train": 5.0,
    "worker stft": 1.5,
    "worker mel": 1.5,
    "worker mfcc": 1.5,
    "worker chroma": 1.5,
}
_MGC = [sys.executable, "-m", "mgc"]
#: Runs a command and then prints the CPU seconds of its own process and of those that it started, on standard error.
#: A training ends with its first update.
_MEASURED = """
import atexit, resource, runpy, sys
def report():
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print("CPU", own.ru_utime + own.ru_stime, others.ru_utime + others.ru_stime, file=sys.stderr)
atexit.register(report)
if sys.argv[1] == "train":
    from mgc.models.training.learner import Learner
    update = Learner.update
    def first_update(*arguments):
        update(*arguments)
        print("updated", flush=True)
        sys.exit()
    Learner.update = first_update
sys.argv[0] = "mgc"
runpy.run_module("mgc", run_name="__main__", alter_sys=True)
"""


class Attempt(NamedTuple):
    """Seconds of one run of a command."""

    wall: float
    own: float
    others: float

    @property
    def cpu(self) -> float:
        """CPU seconds of all processes."""
        return self.own + self.others


def prepare(folder: Path) -> dict[str, list[str]]:
    """Make store and runs of the demonstration; return the arguments of each command."""
    here = ["--data-dir", str(folder)]
    _quiet(["demo", "--epochs", "1", "--workers", "1", *here])
    network = _latest(folder / "runs")
    _quiet(["train", "--model", "moments/logreg", *here])
    classical = _latest(folder / "runs")
    store = str(next((folder / "features").glob("*/mel-*")))
    clip = str(min((folder / "demo").rglob("*.mp3")))
    commands = {"models": ["models"], "list": ["list"], "info STORE": ["info", store], "info RUN": ["info", network]}
    for name, run in (("scikit-learn", classical), ("network", network)):
        commands[f"evaluate {name}"] = ["evaluate", "--no-report", run]
    for name, run in (("scikit-learn", classical), ("network", network)):
        commands[f"predict {name}"] = ["predict", run, clip, "--workers", "1"]
    commands["train"] = ["train", "--epochs", "1", "--limit-tracks", "2", "--batch-size", "64"]
    return {name: [*words, *here] for name, words in commands.items()}


def _quiet(words: Sequence[str]) -> None:
    """Run a command that is not measured. If it fails, exit with its output."""
    run = subprocess.run([*_MGC, *words], capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"mgc {shlex.join(words)} failed:\n{run.stderr or run.stdout}")


def _latest(folder: Path) -> str:
    """Path of the run that was made last."""
    return str(max(folder.iterdir(), key=lambda path: path.name))


def measure(words: Sequence[str]) -> Attempt:
    """Run a command; measure the time to its first result, and the CPU time of its processes."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(
            [sys.executable, "-c", _MEASURED, *words], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            assert process.stdout is not None
            if words[0] == "train":  # its other lines say what is trained
                any(line == "updated\n" for line in process.stdout)
            else:
                process.stdout.readline()
            wall = time.perf_counter() - start
            process.stdout.read()
        errors.seek(0)
        lines = errors.read().splitlines()
    if process.returncode:
        sys.exit(f"mgc {shlex.join(words)} failed:\n" + "\n".join(lines))
    own, others = next(line.split()[1:] for line in reversed(lines) if line.startswith("CPU "))
    return Attempt(wall, float(own), float(others))


def ready(feature: str) -> list[tuple[float, float]]:
    """Prepare a Dask worker for its first file, in it.

    Returns:
        CPU seconds of the process and seconds since it began: when it has imported Dask, when it has imported the
        extraction, and when it has computed its first frames.
    """
    import time

    import psutil

    began = psutil.Process().create_time()
    stages = [(time.process_time(), time.time() - began)]
    import numpy as np
    import soundfile  # noqa: F401
    import soxr  # noqa: F401

    from mgc.pipeline.extraction import worker
    from mgc.pipeline.features import parse_feature
    from mgc.pipeline.features.analysis import analyse

    stages.append((time.process_time(), time.time() - began))
    mono = worker.to_mono(np.zeros((1, 2), np.float32))
    for spec, rows in analyse([mono], 22050, {parse_feature(feature, {})}):
        spec.encode(rows, np.empty(rows.shape, spec.dtype))
    stages.append((time.process_time(), time.time() - began))
    return stages


def measure_worker(feature: str) -> list[tuple[float, float]]:
    """Start a worker as an extraction does, and let it get ready for a feature; see `ready`."""
    from mgc.pipeline.extraction.cluster import connect

    with connect(1, None) as client:
        return client.submit(ready, feature).result()


def print_imports(words: Sequence[str]) -> None:
    """Print the seconds that the imports of a command take, by package."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mgc", *words], capture_output=True, text=True, check=True
    )
    seconds: Counter[str] = Counter()
    for line in run.stderr.splitlines():
        parts = line.removeprefix("import time:").split("|")
        if line.startswith("import time:") and parts[0].strip().isdigit():
            seconds[parts[2].strip().split(".")[0]] += int(parts[0])
    rows = [(name, one / 1e6) for name, one in seconds.most_common(20)]
    print(table(("package", "s"), [*rows, ("all", sum(seconds.values()) / 1e6)]))


def best(attempts: int, run: Callable[[], Any], cost: Callable[[Any], float]) -> Any:
    """Repeat a measurement; return the one with the least CPU time. The first, which fills caches, is not counted."""
    if attempts > 1:
        run()
    return min((run() for _ in range(attempts)), key=cost)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", default=[""], help="first words of the rows to measure")
    parser.add_argument("--attempts", type=int, default=5, help="runs of each command; the best counts")
    parser.add_argument("--imports", metavar="ROW", help="print the cost of the imports of this command instead")
    parser.add_argument("--smoke", action="store_true", help="one attempt each")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    attempts = 1 if options.smoke else options.attempts
    chosen = [name for name in LIMITS if any(name.startswith(word) for word in options.commands)]
    machine = environment(["torch", "scikit-learn", "distributed"])
    print(*(f"{key}: {value}" for key, value in machine.items()), sep="\n")
    commands, workers = [], []
    with tempfile.TemporaryDirectory(prefix="mgc-startup-") as folder:
        words = prepare(Path(folder)) if options.imports or any(not n.startswith("worker") for n in chosen) else {}
        if options.imports:
            print_imports(words[options.imports])
            return
        for name in chosen:
            if name.startswith("worker "):
                stages = best(attempts, lambda: measure_worker(name.split()[1]), lambda found: found[-1][0])  # noqa: B023
                flat = [second for stage in stages for second in stage]
                workers.append((name, *flat, LIMITS[name]))
            else:
                one = best(attempts, lambda: measure(words[name]), lambda found: found.cpu)  # noqa: B023
                commands.append((name, one.wall, one.own, one.others, LIMITS[name]))
    if commands:
        print("\n" + table(("command", "wall, s", "CPU, s", "others, s", "limit, s"), commands))
    if workers:
        header = (
            "worker",
            *(f"{stage}: {clock}, s" for stage in ("Dask", "mgc", "ready") for clock in ("CPU", "wall")),
            "limit, s",
        )
        print("\n" + table(header, workers))
    if options.json:
        options.json.write_text(json.dumps({**machine, "commands": commands, "workers": workers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
