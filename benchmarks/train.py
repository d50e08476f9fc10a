"""Cost of the stream to a training step, and its speed alone, against other loaders.

    python benchmarks/train.py                    both systems, all loaders, an epoch of a tiny network, memory
    python benchmarks/train.py --smoke            smallest sizes; the figures mean nothing
    python benchmarks/train.py --device cuda      steps, epoch and resident reads on a GPU

The stores hold tracks of 30 s of noise, which compresses worse than music; large stores have links to a few shards.

- steps: updates by `training.learner`, with batches of the stream from the device or from disk, with features computed
  on the device from a resident waveform store (`--frontend device`), or with the same random tensors on the device.
- loaders: an epoch of the same slices in random order, in batches, from the page cache. The stream is compared with a
  DataLoader of two worker processes that reads each slice from its Zarr shard, with one that reads shuffled tar files
  by WebDataset (if installed), and, in memory, with a plain gather of the windows on the device. Starting workers does
  not count.
- epoch: an epoch of `training.train` on as many tracks as FMA-small's training split, against as many updates with the
  same random tensors. The difference is the cost of the stream and of Python.
- memory: peak memory of a process that reads an epoch, minus its memory before it opens the store.

Every ratio is computed from two measurements next to each other; tables show the median of the rounds with minimum and
maximum.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from common import Spread, table
from loaders import endless_batches, make_loaders, open_stream
from noise import CLASSES, TRACKS_PER_SHARD, make_store

from mgc.models.data.stream import Batch, Residency, Stream
from mgc.models.data.waveform_view import FrontEndStream, WaveformView
from mgc.models.network import Network
from mgc.models.parallel.device import choose_device, retain_freed_memory
from mgc.models.registry import systems
from mgc.models.registry.recipes import Training
from mgc.models.training.learner import Learner
from mgc.models.training.options import Options
from mgc.models.training.train import train
from mgc.pipeline.features import Waveform
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

#: Systems to time, the second one with its feature for the loaders; and a network whose steps are short.
SYSTEMS = ("kth2020/cnn", "xu2022/resnet-3-4-23-3")
TINY = "vit2021/cnn"
#: Tracks in the training split of FMA-small.
FMA_SMALL_TRAINING = 6400
PARTS = ("steps", "loaders", "epoch", "memory")
#: Slicing of the stores that only loaders read.
SLICING = Slicing(seconds=4.0, overlap=0.5)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratio(seconds: list[float], reference: list[float]) -> Spread:
    """Spread of the ratios of two series of times, round by round."""
    return Spread.of([duration / other for duration, other in zip(seconds, reference, strict=True)])


def time_steps(id: str, folder: Path, arguments: argparse.Namespace) -> tuple[object, ...]:
    """Time training steps of a system with batches from different sources.

    Returns:
        Row of the table: id, batch size, seconds of a step with random tensors, and the ratios of the steps with a
        resident stream, a stream from disk, and features computed on the device.
    """
    system, device = systems.get(id), choose_device(arguments.device)
    assert system.recipe.training is not None
    spec, slicing = system.recipe.features, system.recipe.slicing
    batch_size = min(arguments.batch_size, system.recipe.training.batch_size)
    store = make_store(folder / id.replace("/", "-"), spec, slicing, arguments.tracks)
    frames = system.input.frames or int(store.slices["n_frames"][0].as_py())
    learner, random_batch = make_learner(id, batch_size, frames, device)
    sources: dict[str, Iterator[Batch]] = {"random": itertools.repeat(random_batch)}
    for residency in ("device", "stream"):
        stream = open_stream(store, device, residency, batch_size, frames, Stream)
        sources[residency] = endless_batches(stream)
    waveforms = make_store(folder / f"{id.replace('/', '-')}-waveform", Waveform(sr=spec.sr), slicing, arguments.tracks)
    view = WaveformView.of(waveforms, dataclasses.replace(spec, dtype="float32"))
    sources["computed"] = endless_batches(open_stream(view, device, "device", batch_size, frames, FrontEndStream))
    for batches in sources.values():
        learner.update(next(batches), 0)  # warm-up
    rounds: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(arguments.rounds):
        for name, batches in sources.items():
            start = time.perf_counter()
            make_updates(learner, itertools.islice(batches, arguments.steps))
            synchronise(device)
            rounds[name].append((time.perf_counter() - start) / arguments.steps)
    for batches in sources.values():
        if hasattr(batches, "close"):
            batches.close()
    ratios = (ratio(rounds[name], rounds["random"]) for name in ("device", "stream", "computed"))
    return id, batch_size, Spread.of(rounds["random"]).median, *ratios


def make_learner(id: str, batch_size: int, frames: int, device: torch.device, **loop: object) -> tuple[Learner, Batch]:
    """Create the learner of a system, by its recipe, and a batch of random tensors.

    Args:
        id: id of the system.
        batch_size: slices per batch, instead of the recipe's.
        frames: frames per slice.
        device: device of both.
        **loop: settings of the recipe's loop to change, such as `amp`.
    """
    system = systems.get(id)
    assert system.recipe.training is not None
    spec = system.recipe.features
    recipe: Training = dataclasses.replace(
        system.recipe.training, batch_size=batch_size, loop=dataclasses.replace(system.recipe.training.loop, **loop)
    )
    torch.manual_seed(0)
    network = Network(system, [spec], CLASSES, channels_last=recipe.loop.channels_last).to(device).train()
    values = torch.rand((batch_size, frames, spec.bins), device=device)
    random_batch = Batch(
        values * 0.2 - 0.1 if spec.name == "waveform" else values * 60 - 60,  # samples, or levels in dB
        torch.arange(batch_size, device=device) % CLASSES, np.arange(batch_size), np.arange(batch_size), 0,
    )  # fmt: skip
    return Learner(network, recipe, 10**6), random_batch


def make_updates(learner: Learner, batches: Iterable[Batch]) -> None:
    """Make an update with each batch and read its outcome one update late, as `mgc.models.training.loop` does."""
    before = None
    for batch in batches:
        outcome = learner.update(batch, 0)
        if before is not None:
            before.read()
        before = outcome
    if before is not None:
        before.read()


def time_loaders(folder: Path, arguments: argparse.Namespace) -> list[tuple[object, ...]]:
    """Time an epoch of every loader, with and without decoding.

    Returns:
        Rows of the table: the stream's slices per second, and ratios of the loaders' times.
    """
    spec, device = systems.get(SYSTEMS[1]).recipe.features, choose_device(arguments.device)
    store = make_store(folder / "loaders", spec, SLICING, arguments.tracks)
    rows = []
    for decode in (False, True):
        loaders = make_loaders(store, folder / "loaders", decode, device, arguments.batch_size)
        seconds: dict[str, list[float]] = {name: [] for name in loaders}
        for number in range(arguments.rounds + 1):
            for name, epoch in loaders.items():
                start, n = time.perf_counter(), 0
                for batch in epoch():
                    n += len(batch.frames if isinstance(batch, Batch) else batch)
                synchronise(device)
                # Counts slices, not batches: each worker of WebDataset ends with a smaller batch of its own.
                assert n == len(store.slices), f"{name} read {n} of {len(store.slices)} slices"
                if number:  # the first epoch warms up: it fills caches and starts workers
                    seconds[name].append(time.perf_counter() - start)
        figures = {name: ratio(values, seconds["stream"]) for name, values in seconds.items()}
        rate = len(store.slices) / Spread.of(seconds["stream"]).median
        resident = ratio(seconds["device"], seconds["gather"])
        row = (f"{rate:.0f}", figures["DataLoader"], figures.get("WebDataset", "not installed"), resident)
        rows.append(("float32" if decode else "uint8", *row))
    return rows


def time_epoch(folder: Path, arguments: argparse.Namespace) -> tuple[object, ...]:
    """Time an epoch of `train`, and its number of updates on a batch of random tensors.

    Returns:
        Row of the table: id, batch size, number of updates, milliseconds per update of both, and their ratio.
    """
    system, device = systems.get(TINY), choose_device(arguments.device)
    assert system.recipe.training is not None
    n_tracks = FMA_SMALL_TRAINING if not arguments.smoke else CLASSES
    store = make_store(folder / "epoch", system.recipe.features, system.recipe.slicing, n_tracks, CLASSES)
    options = Options(model=TINY, epochs=1, seed=0, device=arguments.device, residency="device")
    run = train([store], options, folder / "runs", echo=lambda line: None)
    batch_size = system.recipe.training.batch_size
    updates = -(-run.selection.slices(store, run.slicing, "training")[0].num_rows // batch_size)
    learner, random_batch = make_learner(TINY, batch_size, run.frames, device)
    seconds = []
    for _ in range(arguments.rounds + 1):
        start = time.perf_counter()
        make_updates(learner, itertools.repeat(random_batch, 20 * arguments.steps))
        synchronise(device)
        seconds.append((time.perf_counter() - start) / 20 / arguments.steps)
    update_s, epoch_s = Spread.of(seconds[1:]).median, run.history[0]["seconds"] / updates
    return TINY, batch_size, updates, f"{1000 * update_s:.2f}", f"{1000 * epoch_s:.2f}", epoch_s / update_s


def measure_memory(folder: Path, arguments: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    """Measure the memory of a process that reads an epoch.

    Yields:
        Rows of the table: tracks of the store, residency, size of its frames in MB, memory in MB.
    """
    spec = systems.get(SYSTEMS[1]).recipe.features
    for n_shards in (1,) if arguments.smoke else (4, 16, 64):
        store = make_store(folder / f"memory-{n_shards}", spec, SLICING, n_shards * TRACKS_PER_SHARD)
        for residency in ("stream", "device") if n_shards <= 4 else ("stream",):
            with multiprocessing.get_context("spawn").Pool(1) as process:
                nbytes, peak = process.apply(read_epoch, (store.path, residency, arguments.batch_size))
            yield n_shards * TRACKS_PER_SHARD, residency, f"{nbytes / 1e6:.0f}", f"{peak / 1e6:.0f}"


def read_epoch(path: Path, residency: Residency, batch_size: int) -> tuple[int, int]:
    """Read an epoch; return the size of the store's frames and the increase of the peak memory, in bytes."""
    retain_freed_memory()
    before, store = common.peak_mb(), Store.open(path)
    stream = open_stream(
        store, torch.device("cpu"), residency, batch_size, int(store.slices["n_frames"][0].as_py()), Stream
    )
    for _ in stream.batches():
        pass
    return stream.nbytes, round((common.peak_mb() - before) * 1e6)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, help="ids of systems")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--tracks", type=int, default=144, help="tracks per store")
    parser.add_argument("--batch-size", type=int, default=16, help="maximum batch size; ratios hardly depend on it")
    parser.add_argument("--steps", type=int, default=10, help="steps per round")
    parser.add_argument("--rounds", type=int, default=5, help="number of repetitions")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="measurements")
    parser.add_argument("--smoke", action="store_true", help="smallest sizes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to a file")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.tracks, arguments.batch_size, arguments.steps, arguments.rounds = 4, 2, 1, 1
    return arguments


def main() -> None:
    arguments = parse_arguments()
    retain_freed_memory()
    keys = ("device", "tracks", "batch_size", "steps", "rounds")
    settings = [f"--{key.replace('_', '-')} {getattr(arguments, key)}" for key in keys]
    command = f"python {os.path.relpath(__file__)} {' '.join(settings)} --parts {' '.join(arguments.parts)}"
    facts = {"command": command, **common.environment(("mgc", "torch", "zarr", "zarrs"))}
    facts["threads"] = str(torch.get_num_threads())
    common.print_facts(facts)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="mgc-train-") as scratch:
        if "steps" in arguments.parts:
            results["steps"] = [time_steps(id, Path(scratch), arguments) for id in arguments.systems]
            ratios = ("resident / random", "streamed / random", "computed / random")
            header: tuple[str, ...] = ("system", "batch", "step s, random tensors", *ratios)
            print(f"\nSteps on {arguments.device}\n\n{table(header, results['steps'])}", flush=True)
        if "loaders" in arguments.parts:
            results["loaders"] = time_loaders(Path(scratch), arguments)
            header = (
                "delivered",
                "stream, slices a second",
                "DataLoader / stream",
                "WebDataset / stream",
                "resident / gather",
            )
            print(f"\nTime of an epoch, no model\n\n{table(header, results['loaders'])}", flush=True)
        if "epoch" in arguments.parts:
            results["epoch"] = [time_epoch(Path(scratch), arguments)]
            header = ("system", "batch", "updates", "random tensors, ms", "an update in train, ms", "ratio")
            print(f"\nAn epoch of train on {arguments.device}\n\n{table(header, results['epoch'])}", flush=True)
        if "memory" in arguments.parts:
            results["memory"] = list(measure_memory(Path(scratch), arguments))
            header = ("tracks", "residency", "frames, MB", "memory, MB")
            print(f"\nMemory of a process that reads an epoch\n\n{table(header, results['memory'])}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(facts | results, indent=2) + "\n")


if __name__ == "__main__":
    main()
