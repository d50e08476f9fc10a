"""What the stream costs a training step, and how fast it is alone, against what others would read with.

    python benchmarks/train.py                    both systems, all loaders, an epoch of a tiny network, memory
    python benchmarks/train.py --smoke            smallest sizes; the figures mean nothing
    python benchmarks/train.py --device cuda      steps, epoch and resident reads on a GPU

Stores are made up: tracks of 30 s of noise, which compresses less than music; shards of large ones are links to a
few. Steps are updates by `training.learner` of batches that come from the stream, by its residency, or whose frames are
computed of a resident waveform store (`--frontend device`), or that are the same random tensors each time, already on
the device. Loaders read the same slices in random order, in batches, from the page cache: the stream; a DataLoader
with two worker processes that reads each slice out of its Zarr shard; one that reads the same slices, shuffled, by
WebDataset (where it is installed) from tar files; and, in memory, a plain gather of the same windows by the device.
Start-up of workers is not counted. Every ratio is of two measurements beside each other; medians of the rounds, least
and most. The epoch is one of `training.train` on as many tracks as FMA-small has to train on, the updates beside it
have the same random tensors each time: what is between them is the stream and Python. Memory is the peak of a process
that reads an epoch, less what it has before it opens the store.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import io
import itertools
import json
import multiprocessing
import os
import resource
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow as pa
import torch
from common import Spread, table

from mgc.models.data.computed import WaveformView, FrontEndStream
from mgc.models.data.stream import Batch, Batching, Residency, Stream
from mgc.models.network import Network
from mgc.models.parallel.device import choose_device, retain_freed_memory
from mgc.models.registry import systems
from mgc.models.registry.recipes import Training
from mgc.models.training.learner import Learner
from mgc.models.training.options import Options
from mgc.models.training.train import train
from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA
from mgc.pipeline.features import FeatureSpec, Waveform
from mgc.pipeline.storage import files
from mgc.pipeline.store.manifest import publish, write_fragment
from mgc.pipeline.store.shard import ShardWriter, read_frames
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

SYSTEMS = ("kth2020/cnn", "xu2022/resnet-3-4-23-3")
TINY = "vit2021/cnn"
SECONDS, CLASSES, TRACKS_PER_SHARD, WORKERS = 30.0, 8, 48, 2
DISTINCT_SHARDS = 4
FMA_SMALL_TRAINING = 6400
SLICES_PER_TAR = 100
PARTS = ("steps", "loaders", "epoch", "memory")
LOADED = Slicing(seconds=4.0, overlap=0.5)


def make_store(folder: Path, spec: FeatureSpec, slicing: Slicing, n_tracks: int, n_validation: int = 0) -> Store:
    """A store of noise: training tracks, and some to validate with in a shard of their own."""
    dataset = {"name": "noise", "root": str(folder), "genres": [str(genre) for genre in range(CLASSES)]}
    store = Store.create(folder, spec, dataset)
    n_shards = -(-n_tracks // TRACKS_PER_SHARD)
    for shard in range(n_shards):
        first = shard * TRACKS_PER_SHARD
        write_shard(store, shard, range(first, min(first + TRACKS_PER_SHARD, n_tracks)), "training")
    if n_validation:
        write_shard(store, n_shards, range(n_tracks, n_tracks + n_validation), "validation")
    publish(store, slicing)
    return Store.open(folder)


def write_shard(store: Store, shard: int, tracks: range, split: str) -> None:
    """A shard of noise: of its own, or the same as an earlier one that has as many tracks."""
    spec, path = store.spec, store.shard_path(shard)
    n_frames = spec.frames(SECONDS)
    if shard >= DISTINCT_SHARDS and len(tracks) == TRACKS_PER_SHARD:
        shutil.copytree(store.shard_path(shard % DISTINCT_SHARDS), path, copy_function=os.link)
    else:
        rng, writer = np.random.default_rng(shard), ShardWriter(path, spec)
        for _ in tracks:
            levels = rng.normal(-30, 8, (n_frames, spec.bins)).astype(np.float32)
            writer.append(levels / 300 if spec.name == "waveform" else levels)
        writer.close()
    rows = []
    for place, number in enumerate(tracks):
        row = {"track_id": f"{number:06d}", "path": f"{number}", "genre": str(number % CLASSES)}
        row |= {"split": split, "content_hash": str(number), "duration_s": SECONDS, "status": "ok"}
        row |= {"shard": shard, "first_frame": place * n_frames, "n_frames": n_frames}
        rows.append(dict.fromkeys(MANIFEST_SCHEMA.names) | row)
    write_fragment(store, shard, pa.Table.from_pylist(rows, MANIFEST_SCHEMA), files.folder_checksums(path, path.name))


class Undecoded(Stream):
    """A stream that delivers values as they are stored."""

    def _decode(self, windows: list[torch.Tensor]) -> torch.Tensor:
        return windows[0] if len(windows) == 1 else torch.cat(windows)


def open_stream(
    store: Store, device: torch.device, residency: Residency, batch_size: int, frames: int, kind: type[Stream]
) -> Stream:
    labels = np.arange(len(store.slices)) % CLASSES
    stream = kind(store, store.slices, labels, frames, Batching(batch_size, device, seed=0))
    stream.residency = residency
    return stream


def endlessly(stream: Stream) -> Iterator[Batch]:
    for epoch in itertools.count():
        yield from stream.batches(epoch)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# -- steps ------------------------------------------------------------------------------------------------------------


def steps_of(id: str, folder: Path, chosen: argparse.Namespace) -> tuple[object, ...]:
    """A row: seconds of a step with random tensors, and what it takes more of them from the stream."""
    system, device = systems.get(id), choose_device(chosen.device)
    assert system.recipe.training is not None
    spec, slicing = system.recipe.features, system.recipe.slicing
    batch_size = min(chosen.batch_size, system.recipe.training.batch_size)
    store = make_store(folder / id.replace("/", "-"), spec, slicing, chosen.tracks)
    frames = system.input.frames or int(store.slices["n_frames"][0].as_py())
    learner, fixed = learner_of(id, batch_size, frames, device)
    sources: dict[str, Iterator[Batch]] = {"random": itertools.repeat(fixed)}
    for residency in ("device", "stream"):
        stream = open_stream(store, device, residency, batch_size, frames, Stream)
        endless = functools.partial(endlessly, stream)
        sources[residency] = endless()
    samples = make_store(folder / f"{id.replace('/', '-')}-waveform", Waveform(sr=spec.sr), slicing, chosen.tracks)
    view = WaveformView.of(samples, dataclasses.replace(spec, dtype="float32"))
    sources["computed"] = endlessly(open_stream(view, device, "device", batch_size, frames, FrontEndStream))
    for batches in sources.values():
        learner.update(next(batches), 0)  # what the first one costs is no step
    rounds: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(chosen.rounds):
        for name, batches in sources.items():
            start = time.perf_counter()
            for _ in range(chosen.steps):
                learner.update(next(batches), 0)
            synchronise(device)
            rounds[name].append((time.perf_counter() - start) / chosen.steps)
    for batches in sources.values():
        if hasattr(batches, "close"):
            batches.close()
    ratios = (ratio(rounds[name], rounds["random"]) for name in ("device", "stream", "computed"))
    return id, batch_size, Spread.of(rounds["random"]).median, *ratios


def learner_of(id: str, batch_size: int, frames: int, device: torch.device) -> tuple[Learner, Batch]:
    """A system to be trained as its recipe says, but for the size of batches; and one of random tensors."""
    system = systems.get(id)
    assert system.recipe.training is not None
    spec = system.recipe.features
    recipe: Training = dataclasses.replace(system.recipe.training, batch_size=batch_size)
    torch.manual_seed(0)
    network = Network(system, [spec], CLASSES).to(device).train()
    fixed = Batch(
        torch.rand((batch_size, frames, spec.bins), device=device) * 60 - 60,
        torch.arange(batch_size, device=device) % CLASSES, np.arange(batch_size), np.arange(batch_size), 0,
    )  # fmt: skip
    return Learner(network, recipe, np.arange(CLASSES), CLASSES, 10**6, device), fixed


def ratio(ours: list[float], theirs: list[float]) -> Spread:
    return Spread.of([one / other for one, other in zip(ours, theirs, strict=True)])


# -- loaders ----------------------------------------------------------------------------------------------------------


class Slices(torch.utils.data.Dataset):
    """Each slice read out of its shard by itself."""

    def __init__(self, store: Store, decode: bool) -> None:
        columns = ("shard", "first_frame", "n_frames")
        self._where = np.stack([store.slices[name].to_numpy() for name in columns], axis=1)
        self._path, self._spec, self._decode = store.path, store.spec, decode

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        shard, first, n = map(int, self._where[row])
        stored = read_frames(self._path / "shards" / f"{shard:05d}.zarr", self._spec, first, first + n)
        return torch.from_numpy(self._spec.decode(stored) if self._decode else stored), row % CLASSES


def write_tars(store: Store, folder: Path) -> None:
    """The slices as tar files for WebDataset, as many in each, so that both workers have as much to read."""
    folder.mkdir()
    rows = store.slices.to_pylist()
    stored = {shard: store.read(shard) for shard in store.shards()}
    for first in range(0, len(rows), SLICES_PER_TAR):
        with tarfile.open(folder / f"{first:08d}.tar", "w") as tar:
            for number, row in enumerate(rows[first : first + SLICES_PER_TAR], first):
                buffer = io.BytesIO()
                np.save(buffer, stored[row["shard"]][row["first_frame"] : row["first_frame"] + row["n_frames"]])
                member = tarfile.TarInfo(f"{number:08d}.npy")
                member.size = buffer.tell()
                tar.addfile(member, io.BytesIO(buffer.getvalue()))


def _decoded(sample: tuple[bytes], spec: FeatureSpec, decode: bool) -> torch.Tensor:
    stored = np.load(io.BytesIO(sample[0]))
    return torch.from_numpy(spec.decode(stored) if decode else stored)


def loaders(store: Store, folder: Path, decode: bool, chosen: argparse.Namespace) -> dict[str, Callable[[], Iterable]]:
    """What reads an epoch, by name."""
    device, frames = choose_device(chosen.device), int(store.slices["n_frames"][0].as_py())
    kind = Stream if decode else Undecoded
    streams = {name: open_stream(store, device, name, chosen.batch_size, frames, kind) for name in ("device", "stream")}
    found: dict[str, Callable[[], Iterable]] = {name: stream.batches for name, stream in streams.items()}
    settings: dict[str, Any] = {"num_workers": WORKERS, "multiprocessing_context": "spawn", "persistent_workers": True}
    sized = torch.utils.data.DataLoader(Slices(store, decode), chosen.batch_size, shuffle=True, **settings)
    found["DataLoader"] = lambda: iter(sized)
    if importlib.util.find_spec("webdataset"):
        import webdataset

        tars = folder / "tars"
        if not tars.exists():
            write_tars(store, tars)
        urls = sorted(map(str, tars.glob("*.tar")))
        made = webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False).shuffle(1000).to_tuple("npy")
        made = made.map(functools.partial(_decoded, spec=store.spec, decode=decode))
        made = made.batched(chosen.batch_size, collation_fn=torch.utils.data.default_collate)
        tarred = torch.utils.data.DataLoader(made, None, **settings)
        found["WebDataset"] = lambda: iter(tarred)
    found["gather"] = functools.partial(gather, streams["device"], device, decode)
    return found


def gather(stream: Stream, device: torch.device, decode: bool) -> Iterator[torch.Tensor]:
    """The windows of an epoch, gathered out of a tensor on the device by indices that are there already."""
    order, pool, spec = stream.order(0), stream._resident_pool, stream._spec
    begins = torch.from_numpy(pool.base[stream.shard_of] + stream._first).to(device)
    for rows in torch.from_numpy(order.rows).to(device).split(stream._bounds[1]):
        index = begins[rows][:, None] + stream._ramp
        windows = pool.frames.index_select(0, index.flatten()).view(len(rows), stream.frames, spec.bins)
        yield windows.float().mul_(spec.scale).add_(spec.offset) if decode else windows


def loaded(folder: Path, chosen: argparse.Namespace) -> list[tuple[object, ...]]:
    """Rows: slices a second of the stream, and how many times those of the others."""
    spec, device = systems.get(SYSTEMS[1]).recipe.features, choose_device(chosen.device)
    store = make_store(folder / "loaded", spec, LOADED, chosen.tracks)
    rows = []
    for decode in (False, True):
        readers = loaders(store, folder / "loaded", decode, chosen)
        seconds: dict[str, list[float]] = {name: [] for name in readers}
        for number in range(chosen.rounds + 1):
            for name, epoch in readers.items():
                start, n = time.perf_counter(), 0
                for batch in epoch():
                    values = batch.frames if isinstance(batch, Batch) else batch
                    n += len(values[0] if isinstance(values, list | tuple) else values)
                synchronise(device)
                # WebDataset's workers make batches of their own, the last one smaller.
                assert n == len(store.slices), f"{name} read {n} of {len(store.slices)} slices"
                if number:  # the first epoch fills caches and starts workers
                    seconds[name].append(time.perf_counter() - start)
        figures = {name: ratio(values, seconds["stream"]) for name, values in seconds.items()}
        rate = len(store.slices) / Spread.of(seconds["stream"]).median
        resident = ratio(seconds["device"], seconds["gather"])
        row = (f"{rate:.0f}", figures["DataLoader"], figures.get("WebDataset", "not installed"), resident)
        rows.append(("float32" if decode else "uint8", *row))
    return rows


# -- an epoch, and memory ---------------------------------------------------------------------------------------------


def epoch_of(folder: Path, chosen: argparse.Namespace) -> tuple[object, ...]:
    """A row: what an update of an epoch takes, all told, and how much more that is than one of random tensors."""
    system, device = systems.get(TINY), choose_device(chosen.device)
    assert system.recipe.training is not None
    n_tracks = FMA_SMALL_TRAINING if not chosen.smoke else CLASSES
    store = make_store(folder / "epoch", system.recipe.features, system.recipe.slicing, n_tracks, CLASSES)
    options = Options(model=TINY, epochs=1, seed=0, device=chosen.device, residency="device")
    run = train(store, options, folder / "runs", echo=lambda line: None)
    batch_size = system.recipe.training.batch_size
    updates = -(-run.selection.slices(store, run.slicing, "training")[0].num_rows // batch_size)
    learner, fixed = learner_of(TINY, batch_size, run.frames, device)
    seconds = []
    for _ in range(chosen.rounds + 1):
        start = time.perf_counter()
        for _ in range(20 * chosen.steps):
            learner.update(fixed, 0)
        synchronise(device)
        seconds.append((time.perf_counter() - start) / 20 / chosen.steps)
    pure, all_told = Spread.of(seconds[1:]).median, run.history[0]["seconds"] / updates
    return TINY, batch_size, updates, f"{1000 * pure:.2f}", f"{1000 * all_told:.2f}", all_told / pure


def memory_of(folder: Path, chosen: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    """Rows: the size of a store, and what reading an epoch of it takes, by residency."""
    spec = systems.get(SYSTEMS[1]).recipe.features
    for n_shards in (1,) if chosen.smoke else (4, 16, 64):
        store = make_store(folder / f"memory-{n_shards}", spec, LOADED, n_shards * TRACKS_PER_SHARD)
        for residency in ("stream", "device") if n_shards <= 4 else ("stream",):
            with multiprocessing.get_context("spawn").Pool(1) as process:
                held, peak = process.apply(read_epoch, (store.path, residency, chosen.batch_size))
            yield n_shards * TRACKS_PER_SHARD, residency, f"{held / 1e6:.0f}", f"{peak / 1e6:.0f}"


def read_epoch(path: Path, residency: Residency, batch_size: int) -> tuple[int, int]:
    """Bytes of a store's frames; and how many a process has held when it has read them, less those before."""
    retain_freed_memory()
    before, store = _peak(), Store.open(path)
    stream = open_stream(
        store, torch.device("cpu"), residency, batch_size, int(store.slices["n_frames"][0].as_py()), Stream
    )
    for _ in stream.batches():
        pass
    return stream.nbytes, _peak() - before


def _peak() -> int:
    """Bytes that this process has held at most."""
    try:  # on Linux `ru_maxrss` is also that of the process which started this one
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * common.RSS_UNIT


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, help="ids")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--tracks", type=int, default=144, help="of each store")
    parser.add_argument("--batch-size", type=int, default=16, help="at most; ratios hardly depend on it")
    parser.add_argument("--steps", type=int, default=10, help="of each round")
    parser.add_argument("--rounds", type=int, default=5, help="of which medians are taken")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--smoke", action="store_true", help="smallest sizes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to a file")
    chosen = parser.parse_args()
    if chosen.smoke:
        chosen.tracks, chosen.batch_size, chosen.steps, chosen.rounds = 4, 2, 1, 1
    return chosen


def main() -> None:
    chosen = parse_arguments()
    retain_freed_memory()
    keys = ("device", "tracks", "batch_size", "steps", "rounds")
    words = [f"--{key.replace('_', '-')} {getattr(chosen, key)}" for key in keys]
    command = f"python {os.path.relpath(__file__)} {' '.join(words)} --parts {' '.join(chosen.parts)}"
    facts = {"command": command, **common.environment(("mgc", "torch", "zarr", "zarrs"))}
    facts["threads"] = str(torch.get_num_threads())
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), flush=True)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="mgc-train-") as scratch:
        if "steps" in chosen.parts:
            results["steps"] = [steps_of(id, Path(scratch), chosen) for id in chosen.systems]
            ratios = ("resident / random", "streamed / random", "computed / random")
            header: tuple[str, ...] = ("system", "batch", "step s, random tensors", *ratios)
            print(f"\nSteps on {chosen.device}\n\n{table(header, results['steps'])}", flush=True)
        if "loaders" in chosen.parts:
            results["loaders"] = loaded(Path(scratch), chosen)
            header = (
                "delivered",
                "stream, slices a second",
                "DataLoader / stream",
                "WebDataset / stream",
                "resident / gather",
            )
            print(f"\nTime of an epoch, no model\n\n{table(header, results['loaders'])}", flush=True)
        if "epoch" in chosen.parts:
            results["epoch"] = [epoch_of(Path(scratch), chosen)]
            header = ("system", "batch", "updates", "random tensors, ms", "an update, all told, ms", "ratio")
            print(f"\nAn epoch on {chosen.device}\n\n{table(header, results['epoch'])}", flush=True)
        if "memory" in chosen.parts:
            results["memory"] = list(memory_of(Path(scratch), chosen))
            header = ("tracks", "residency", "frames, MB", "memory, MB")
            print(f"\nMemory of a process that reads an epoch\n\n{table(header, results['memory'])}", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(facts | results, indent=2) + "\n")


if __name__ == "__main__":
    main()
