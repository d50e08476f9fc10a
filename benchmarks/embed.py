"""Cost of `mgc embed` beside the network's own forward passes on the same batches.

    python benchmarks/embed.py [MODEL] [STORE]       default: musicnn (downloaded), the latest store of the workspace
    python benchmarks/embed.py --random              a pons2019/musicnn of random weights on made-up frames
    python benchmarks/embed.py --random --smoke      smallest sizes; the figures mean nothing

`embed` reads the store, cuts the windows, moves them to the device, applies the network, and writes the new store;
`forward` applies the network to windows that are on the device already, as float32. Both are measured by the clock, one
after the other, several times.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np
import torch
from common import Spread, table

from mgc.models.data import adapters
from mgc.models.embedding.embed import BATCH_SIZE, embed
from mgc.models.embedding.embedder import Embedder, LayerModule, build, open_model
from mgc.models.embedding.windows import Windows, spans
from mgc.models.parallel.device import choose_device
from mgc.models.registry import systems
from mgc.pipeline.extraction.output import commit_shard, temporary_path
from mgc.pipeline.store.manifest import publish
from mgc.pipeline.store.shard import ShardWriter
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store
from mgc.pipeline.workspace import Workspace


def forward_seconds(embedder: Embedder, store: Store) -> float:
    """Return the seconds that the network takes for all windows of a store."""
    windows = Windows(embedder.window, embedder.window)
    seconds = 0.0
    for shard in store.fragments():
        rows = [row for row in store.tracks.to_pylist() if row["shard"] == shard]
        cut = np.concatenate([windows.read(store, shard, *part) for part in spans(rows, windows)])
        frames = torch.from_numpy(store.spec.decode(cut)).to(embedder.device)
        if frames.is_cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.inference_mode():
            for batch in frames.split(BATCH_SIZE):
                embedder.module(batch).cpu()
        seconds += time.perf_counter() - start
    return seconds


def embed_seconds(embedder: Embedder, store: Store, out: Path) -> float:
    """Return the seconds of `mgc embed` into a new store, without loading the network."""
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    embed(embedder, store, out=out)
    return time.perf_counter() - start


def random_network(device: str) -> Embedder:
    """A network of random weights, as large as the downloaded one."""
    system, chosen = systems.get("pons2019/musicnn"), choose_device(device)
    torch.manual_seed(0)
    network = system.build(50)
    assert system.input.frames is not None
    spec = system.recipe.features
    module = torch.nn.Sequential(adapters.adapter(system.input, spec), LayerModule(network, network.EMBEDDING))
    return build("random", network.EMBEDDING, "0" * 64, spec, system.input.frames, module.to(chosen).eval(), chosen)


def made_up_store(folder: Path, spec, n_shards: int, n_tracks: int) -> Store:
    """Create a store of random frames: tracks of 30 s in shards of `n_tracks`."""
    store = Store.create(folder / "mel", spec, {"name": "made up", "root": "/", "genres": ["one"]})
    rng, n_frames = np.random.default_rng(0), spec.frames(30.0)
    for shard in range(n_shards):
        temporary, rows = temporary_path(store, shard), []
        writer = ShardWriter(temporary, spec)
        for track in range(n_tracks):
            writer.append(rng.uniform(-80, 0, (n_frames, spec.bins)).astype(np.float32))
            rows.append(
                {"track_id": f"{shard}-{track}", "path": f"{shard}-{track}", "split": "training", "genre": "one",
                 "status": "ok", "duration_s": 30.0, "shard": shard, "first_frame": track * n_frames,
                 "n_frames": n_frames, "content_hash": f"{shard}-{track}"}
            )  # fmt: skip
        writer.close()
        commit_shard(store, shard, temporary, rows)
    publish(store, Slicing(seconds=3.0))
    return Store.open(store.path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="musicnn")
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--random", action="store_true", help="random weights, made-up frames")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--attempts", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="smallest sizes")
    arguments = parser.parse_args()
    for name, value in common.environment(("mgc", "torch", "zarr", "zarrs")).items():
        print(f"{name}: {value}")
    with tempfile.TemporaryDirectory() as home:
        if arguments.random:
            embedder = random_network(arguments.device)
            sizes = (1, 2) if arguments.smoke else (2, 32)
            store = made_up_store(Path(home), embedder.spec, *sizes)
        else:
            workspace = Workspace.default()
            embedder = open_model(arguments.model, workspace, None, arguments.device)
            store = Store.open(arguments.store or workspace.latest_store())
        times: dict[str, list[float]] = {"forward": [], "embed": [], "ratio": []}
        for _ in range(1 if arguments.smoke else arguments.attempts):
            times["forward"].append(forward_seconds(embedder, store))
            times["embed"].append(embed_seconds(embedder, store, Path(home) / "out"))
            times["ratio"].append(times["embed"][-1] / times["forward"][-1])
    print(f"\n{embedder.model} on {embedder.device}, {len(store.tracks)} tracks, seconds\n")
    rows = [(embedder.layer, *map(Spread.of, times.values()))]
    print(table(["layer", "forward", "embed", "embed / forward"], rows))


if __name__ == "__main__":
    sys.exit(main())
