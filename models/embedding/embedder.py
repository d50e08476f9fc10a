"""Embedder: one layer of a network, as a function from windows of stored frames to vectors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mgc.models.parallel.device import choose_device
from mgc.models.runs.run import Run
from mgc.models.training.last_layer import LastLayer
from mgc.models.training.predict import load_network
from mgc.pipeline.errors import MgcError, RunError, SpecError
from mgc.pipeline.features import Embedding, FeatureSpec, parse_feature

#: Name of the only layer of a run: the input of its last layer.
LAST = "last"


@dataclass(frozen=True)
class Embedder:
    """One layer of a network.

    Attributes:
        model: name of the network, see `Embedding.model`.
        layer: name of the layer.
        weights: SHA-256 of the network's weights, in hexadecimal.
        spec: feature that the network reads; a store may hold it in another dtype.
        window: frames of a window.
        module: maps windows, float32 `(batch, window, bins)` in the units of `spec`, to vectors `(batch, width)`.
        width: values of a vector.
        device: device of the module.
    """

    model: str
    layer: str
    weights: str
    spec: FeatureSpec
    window: int
    module: nn.Module
    width: int
    device: torch.device

    def embedding(self, hop: int, dtype: str = "float32") -> Embedding:
        """The feature of a store that holds a vector every `hop` frames."""
        return Embedding(
            model=self.model,
            layer=self.layer,
            width=self.width,
            weights=self.weights[:16],
            of=self.spec.as_option(),
            window=self.window * self.spec.hop_length,
            sr=self.spec.sr,
            hop_length=hop * self.spec.hop_length,
            dtype=dtype,
        )

    def __call__(self, windows: np.ndarray, stored: FeatureSpec) -> np.ndarray:
        """Compute the vectors of windows.

        Args:
            windows: `(batch, window, bins)`, as a store holds them.
            stored: feature of that store, for the meaning of its integers.

        Returns:
            float32 `(batch, width)`.
        """
        values = torch.from_numpy(windows).to(self.device, non_blocking=True).float()
        if stored.quantised:
            values = values.mul_(stored.scale).add_(stored.offset)
        with torch.inference_mode():
            return self.module(values).float().cpu().numpy()


def of_run(run: Run, device: str = "auto") -> Embedder:
    """The layer before the last of a run's network, on windows as long as the run's slices.

    Raises:
        RunError: the run is unfinished or damaged, is not that of a network with one input, or its last layer does not
            give a row for each slice.
    """
    if not run.finished:
        raise RunError(f"{run.path}: its training is unfinished", f"continue it: `mgc train --resume --run {run.path}`")
    if run.config.get("kind") != "neural" or len(run.sources) > 1:
        raise RunError(f"{run.path}: {run.model} has no embeddings", "name the run of a network that reads one store")
    chosen = choose_device(device)
    network = load_network(run, [run.spec], chosen).eval()
    module = _Vectors(LastLayer(network, len(run.classes)))
    weights = hashlib.sha256(run.read("best.pt")).hexdigest()
    embedder = build(run.path.name, LAST, weights, run.spec, run.frames, module, chosen)
    if not embedder.width:
        raise RunError(f"{run.path}: {run.model} has no last layer that gives a row for each slice", "name another run")
    return embedder


def build(
    model: str, layer: str, weights: str, spec: FeatureSpec, window: int, module: nn.Module, device: torch.device
) -> Embedder:
    """Build an embedder; the width is that of the vector of silence. For the arguments see `Embedder`."""
    with torch.inference_mode():
        width = module(torch.zeros(1, window, spec.bins, device=device)).shape[1]
    return Embedder(model, layer, weights, spec, window, module, width, device)


class _Vectors(nn.Module):
    """The embeddings that `LastLayer` returns, without the logits."""

    def __init__(self, network: LastLayer) -> None:
        super().__init__()
        self._network = network

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames `(batch, frames, bins)` to vectors `(batch, d)`."""
        return self._network.split(self._network(frames))[0]
