"""Trainings on the CPU and on a pretended GPU: `pretended_training.py FOLDER NAME...` prints a line of JSON each.

A line has digests of the weights and of the predicted probabilities for both devices, and what host and device
exchanged, by function.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pretended_gpu
import torch

DEVICE = pretended_gpu.install()

from stores import make_store  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from mgc.models.data.stream import Stream  # noqa: E402
from mgc.models.parallel import device, ranks  # noqa: E402
from mgc.models.registry import systems  # noqa: E402
from mgc.models.registry.augmentation import Augmentation  # noqa: E402
from mgc.models.training import predict  # noqa: E402
from mgc.models.training.options import Options  # noqa: E402
from mgc.models.training.train import train  # noqa: E402

MASKS = Augmentation(time_masks=1, time_width=9, shift=5, gain=3.0, mixup=0.4)
LOOP = {"balance": "class", "crop": True, "class_weights": True, "ema": 0.9, "clip": 1.0}
#: Trainings by name: options of `mgc train`.
TRAININGS: dict[str, dict[str, Any]] = {
    "default": {"model": "mgc/cnn"},
    "everything": {"model": "kth2020/cnn", "augmentation": MASKS, "loop": LOOP},
    "streamed": {"model": "vit2021/cnn", "residency": "stream"},
    "host": {"model": "mgc/mfcc", "residency": "host"},
    "samples": {"model": "padova2023/cnn1d"},
    "classical": {"model": "moments/logreg", "epochs": None},
}

_load = Stream._load


def _load_in_thread(stream: Stream, *args: Any) -> Any:
    """Read shards in the thread that reads ahead, which the context of the main thread does not reach."""
    assert pretended_gpu._active is not None
    with pretended_gpu.PretendedGpu(pretended_gpu._active.counts):
        return _load(stream, *args)


def choose_device(name: str) -> torch.device:
    """The pretended GPU is the one of this machine, whatever CUDA says."""
    return DEVICE if name in ("auto", str(DEVICE)) else torch.device(name)


def run_training(name: str, folder: Path, on: str) -> dict[str, str]:
    """Train and predict; return digests of weights and probabilities."""
    options = Options(**{"epochs": 2, "seed": 0, "device": on, **TRAININGS[name]})
    assert options.model is not None
    system = systems.get(options.model)
    store = make_store(folder / "store", system.recipe.features, system.recipe.slicing, seconds=(20.0,))
    run = train([store], options, folder / "runs", echo=lambda line: None)
    digests = {}
    if system.kind == "neural":
        digest = hashlib.sha256()
        for leaf in tree_leaves(run.load("best.pt")):
            digest.update(leaf.numpy().tobytes() if isinstance(leaf, torch.Tensor) else repr(leaf).encode())
        digests["weights"] = digest.hexdigest()
    probabilities = predict.predict(run, device=on)["probabilities"].combine_chunks().flatten().to_numpy()
    return digests | {"probabilities": hashlib.sha256(probabilities.tobytes()).hexdigest()}


def main() -> None:
    torch.set_num_threads(1)
    Stream._load = _load_in_thread  # type: ignore[method-assign]
    for module in (device, ranks, predict):
        module.choose_device = choose_device  # type: ignore[attr-defined]
    for name in sys.argv[2:]:
        line: dict[str, Any] = {"name": name}
        for place, on in (("cpu", "cpu"), ("device", "auto")):
            with pretended_gpu.PretendedGpu() as gpu:
                line[place] = run_training(name, Path(sys.argv[1]) / name / place, on)
        print(json.dumps(line | vars(gpu.counts)), flush=True)


if __name__ == "__main__":
    main()
