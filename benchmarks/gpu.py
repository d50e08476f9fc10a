"""Everything that mgc does on a GPU, in one table: speed against bars, memory, exact resume, and what goes wrong.

    python benchmarks/gpu.py                                on the GPU, within 8 minutes
    python benchmarks/gpu.py --parts steps epochs           these parts alone
    python benchmarks/gpu.py --device cpu --smoke           every part at its smallest size; the figures mean nothing

It needs PyTorch, the libraries of mgc and pytest; no network, no music and no FFmpeg. Stores of noise are made on the
spot (see benchmarks/noise.py). Without a GPU, what only a GPU has is a row that says so.

- tests: the tests of mgc with the mark `cuda`.
- loading: slices a second of the stream alone, in the dtype of the store and decoded, against the bus (a copy from
  pinned memory, measured in the same run), a DataLoader of worker processes and a plain gather on the device.
- waits: where the host waits for the device in an update, counted by the profiler; and the lines of code that do so.
- epochs: an epoch of each system on a store as large as FMA-small, and the share of an update that is not the network.
- frontend: spectrograms of samples on the device, against torchaudio (if installed), and their difference from the CPU.
- memory: what frames take on the device, against what `--residency` predicts.
- exhaustion: a training that runs out of memory, what mgc says, and a training by this advice.
- resume: hashes of the weights of a whole training and of an interrupted one.
- prediction: slices a second from the store to logits on the host.
- steps: updates with batches of the stream (resident, from host memory, from disk), against updates with the same
  random tensors, in float32, bf16, channels-last and compiled.

Each part runs in a process of its own and has its own time. What fails is a row of the table, and the exit code is then
1; a bar that is not met does not change it. The figures follow the table as JSON, or go to the file of `--json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple

# Segments that expand would blur what a training takes. PyTorch counts GPUs without opening a context if it uses NVML,
# so the processes of the parts can be forked from one that has imported it. Both are read when PyTorch is imported.
os.environ["PYTORCH_CUDA_ALLOC_CONF"] = os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:False"
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

import common
import torch
from common import table
from gpu_parts import epochs, forwards, loading, machine, resuming, room, spectra, steps, waits
from gpu_parts.measurement import Row, Setup

from mgc.models.parallel.device import choose_device, retain_freed_memory
from mgc.pipeline.errors import MgcError


class Part(NamedTuple):
    """A part: what measures it, and the seconds that it may take on a GPU."""

    measure: Callable[[Setup], Iterator[Row]]
    seconds: float


#: The parts in their order. The last one takes what the others leave of `SECONDS`.
PARTS = {
    "machine": Part(machine.describe, 15),
    "tests": Part(machine.run_tests, 60),
    "loading": Part(loading.measure_loading, 80),
    "waits": Part(waits.count_waits, 45),
    "epochs": Part(epochs.measure_epochs, 80),
    "frontend": Part(spectra.measure_front_end, 30),
    "memory": Part(room.measure_memory, 30),
    "exhaustion": Part(room.exhaust_memory, 40),
    "resume": Part(resuming.resume_exactly, 45),
    "prediction": Part(forwards.measure_prediction, 30),
    "steps": Part(steps.measure_steps, 240),
}
#: Seconds that all parts together may take.
SECONDS = 450.0
#: Seconds of each part of a smoke run, on a slow machine with other work running.
SMOKE_SECONDS = 120.0
#: Modules that take long to import. One process imports them, and those of the parts are forked from it.
PRELOADED = ["torch", "mgc.models.training.train", "mgc.models.data.waveform_view"]


def work(name: str, setup: Setup, sender: Connection, log: Path) -> None:
    """Measure a part in a process of its own, and send its rows."""
    os.setsid()  # so that the part and the processes that it starts can be ended together
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    try:
        if setup.device.index is not None:
            torch.cuda.set_device(setup.device)
        retain_freed_memory()
        for row in PARTS[name].measure(setup):
            sender.send(row)
    except BaseException as error:
        sender.send(failure(name, f"{type(error).__name__}: {error}", traceback.format_exc()))
    finally:
        sender.close()


def failure(part: str, problem: str, details: str = "") -> Row:
    """Row of a part that has failed."""
    lines = problem.strip().splitlines() or ["no message"]
    return Row(part, lines[0][:200], status="failed", details=details)


def run_part(name: str, setup: Setup, context: BaseContext) -> Iterator[Row]:
    """Run a part in a process of its own; yield its rows, and one more if it fails or is not done in time."""
    log = setup.folder / f"{name}.log"
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(name, setup, sender, log))  # type: ignore[attr-defined]
    process.start()
    sender.close()
    failed = False
    try:
        while True:
            if not receiver.poll(max(setup.deadline - time.monotonic(), 0)):
                yield failure(name, "not done in time", end_of(log))
                return
            try:
                row = receiver.recv()
            except EOFError:
                break
            failed |= row.status == "failed"
            yield row
        process.join(10)
        if process.exitcode and not failed:
            yield failure(name, f"its process ended with exit code {process.exitcode}", end_of(log))
    finally:
        end(process)
        receiver.close()


def end(process: Any) -> None:
    """End the process of a part and those that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()  # it has ended, or has no group of its own yet
    process.join(10)


def end_of(log: Path) -> str:
    """The last lines of what a part printed."""
    return log.read_text(errors="replace")[-4000:] if log.exists() else ""


def facts(arguments: argparse.Namespace) -> dict[str, str]:
    """Describe the command and the machine."""
    command = shlex.join(["python", os.path.relpath(__file__), *sys.argv[1:]])
    libraries = ("mgc", "torch", "numpy", "zarr", "zarrs")
    return {"command": command, "device": str(arguments.device), **common.environment(libraries)}


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Run the parts; return the seconds and the rows of each, and say on standard error how far it is."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    imports = context.Process(target=time.sleep, args=(0,))  # starts once the modules are imported
    imports.start()
    imports.join()
    stop = time.monotonic() + (SMOKE_SECONDS * len(PARTS) if arguments.smoke else arguments.seconds)
    results: dict[str, dict[str, Any]] = {}
    for name in arguments.parts:
        start = time.monotonic()
        seconds = SMOKE_SECONDS if arguments.smoke else PARTS[name].seconds
        setup = Setup(arguments.device, arguments.smoke, folder, min(start + seconds, stop))
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows = []
        for row in run_part(name, setup, context):
            rows.append(row)
            if row.details:
                print(f"{name}: {row.name}: {row.text}\n{row.details}", file=sys.stderr, flush=True)
        results[name] = {"seconds": round(time.monotonic() - start, 1), "rows": rows}
    return results


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time of all parts together")
    parser.add_argument("--smoke", action="store_true", help="smallest sizes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    arguments = parser.parse_args()
    chosen = {name for word in arguments.parts for name in word.split(",")}
    if unknown := chosen - set(PARTS):
        parser.error(f"--parts {', '.join(sorted(unknown))}: there is no such part; choose from {', '.join(PARTS)}")
    arguments.parts = [name for name in PARTS if name in chosen]
    try:
        arguments.device = choose_device(arguments.device)
    except MgcError as error:
        parser.error(str(error))
    return arguments


def main() -> int:
    arguments = parse_arguments()
    described = facts(arguments)
    print("\n".join(f"{name}: {value}" for name, value in described.items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="mgc-gpu-", ignore_cleanup_errors=True) as folder:
        results = measure(arguments, Path(folder))
    rows: list[Row] = [row for result in results.values() for row in result["rows"]]
    print(f"\n{table(('', 'figure', 'bar', 'bar is'), [(row.name, row.text, row.bar, row.verdict) for row in rows])}\n")
    print("seconds: " + ", ".join(f"{name} {result['seconds']:.0f}" for name, result in results.items()))
    verdicts = [row.verdict for row in rows]
    print(", ".join(f"{verdicts.count(word)} {word.lower()}" for word in ("met", "NOT MET", "failed", "absent")))
    record = described | {
        "parts": {
            name: {"seconds": result["seconds"], "rows": [dataclasses.asdict(row) for row in result["rows"]]}
            for name, result in results.items()
        }
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    else:
        print(f"\n{json.dumps(record)}")
    return int("failed" in verdicts)


if __name__ == "__main__":
    sys.exit(main())
