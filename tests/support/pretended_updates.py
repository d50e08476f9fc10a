"""Updates of networks on the CPU and on a pretended GPU: `pretended_updates.py ID...` prints a line of JSON each.

A line has the outcome of the second update and a digest of the logits after it for both devices, and what host and
device exchanged during that update, by function.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys

import numpy as np
import pretended_gpu
import torch

DEVICE = pretended_gpu.install()

from mgc.models.data.augment import Augmenter  # noqa: E402
from mgc.models.data.stream import Batch  # noqa: E402
from mgc.models.network import Network  # noqa: E402
from mgc.models.parallel.transfer import send  # noqa: E402
from mgc.models.registry import systems  # noqa: E402
from mgc.models.registry.augmentation import Augmentation  # noqa: E402
from mgc.models.registry.settings import Loop  # noqa: E402
from mgc.models.registry.systems import System  # noqa: E402
from mgc.models.training.learner import Learner  # noqa: E402

#: Everything that an update can do.
LOOP = Loop(schedule="cosine", warmup=2, label_smoothing=0.1, clip=1.0, ema=0.9)
SPECTRA = Augmentation(time_masks=1, time_width=9, band_masks=1, band_width=4, shift=5, gain=3.0, mixup=0.4)
SAMPLES = Augmentation(noise=0.1, stretch=1.2, pitch=2.0, probability=0.9, polarity=0.5, gain=3.0, mixup=0.4)
LABELS = np.array([0, 1, 2, 0])


def second_update(system: System, device: torch.device) -> tuple[dict[str, object], pretended_gpu.Counts]:
    """Make two updates; return outcome and digest of the second, and what was exchanged during it."""
    torch.manual_seed(0)
    specs = [system.recipe.features] * len(system.inputs)
    network = Network(system, specs, 3)
    frames = []
    for number, (given, spec) in enumerate(zip(system.inputs, specs, strict=True)):
        values = np.random.default_rng(number).random((4, given.frames or 173, spec.bins), np.float32)
        frames.append(values * 0.2 - 0.1 if spec.name == "waveform" else values * 60 - 60)
    assert system.recipe.training is not None
    recipe = dataclasses.replace(system.recipe.training, loop=LOOP)
    augmenter = None
    if len(specs) == 1:
        augmenter = Augmenter(SAMPLES if specs[0].name == "waveform" else SPECTRA, specs[0], 0)
    with pretended_gpu.PretendedGpu() as gpu:
        class_weights = send(np.array([0.5, 1.0, 2.0], np.float32), device)
        learner = Learner(network.to(device), recipe, 4, class_weights, augmenter)
        learner.train()
        sent = [send(values, device) for values in frames]
        inputs = sent[0] if len(sent) == 1 else tuple(sent)
        batch = Batch(inputs, send(LABELS, device), np.arange(4), np.arange(4), 0)
        learner.update(batch, 0).read()
        gpu.counts = pretended_gpu.Counts()
        loss, correct = learner.update(batch, 0).read()
        exchanged, gpu.counts = gpu.counts, pretended_gpu.Counts()
        with torch.no_grad():
            logits = learner.network.eval()(inputs).cpu().numpy()
    return {"loss": loss, "correct": correct, "logits": hashlib.sha256(logits.tobytes()).hexdigest()}, exchanged


def main() -> None:
    torch.set_num_threads(1)
    for id in sys.argv[1:]:
        system = systems.get(id)
        on_cpu, _ = second_update(system, torch.device("cpu"))
        on_device, exchanged = second_update(system, DEVICE)
        line = {"id": id, "cpu": on_cpu, "device": on_device, **vars(exchanged)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
