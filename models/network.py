"""A system's network behind its input adapters: frames in, logits out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mgc.models.data import adapters
from mgc.models.data.adapters import Standardiser
from mgc.models.data.joint import JointStream
from mgc.models.data.stream import Stream
from mgc.models.parallel.ranks import SINGLE_PROCESS, Ranks
from mgc.models.registry.systems import System
from mgc.pipeline.features import FeatureSpec

#: Output of a network in training: logits `(batch, classes)`, alone or followed by those of its auxiliary heads.
Outputs = Tensor | tuple[Tensor, ...]


class Network(nn.Module):
    """Adapters and model of a neural system.

    Weights and activations are channels-last by default: on two CPU cores a training step is then shorter for every
    default model, by 15 % (kth2020/cnn) to 50 % (xu2022/mobilenet).

    Args:
        system: the system.
        specs: what each store holds.
        n_classes: outputs.
        channels_last: memory format of planes.
    """

    def __init__(
        self, system: System, specs: Sequence[FeatureSpec], n_classes: int, *, channels_last: bool = True
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(
            adapters.adapter(needs, spec) for needs, spec in zip(system.inputs, specs, strict=True)
        )
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = system.build(n_classes).to(memory_format=self._format)

    def forward(self, frames: Tensor | tuple[Tensor, ...]) -> Outputs:
        """Frames `(batch, frames, bins)`, float32, of each input to logits `(batch, classes)`.

        In training the logits of auxiliary heads come with them, where the model has such.
        """
        parts = (frames,) if isinstance(frames, Tensor) else frames
        adapted = [adapt(part) for adapt, part in zip(self.inputs, parts, strict=True)]
        return self.model(*(x.contiguous(memory_format=self._format) if x.dim() == 4 else x for x in adapted))

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """What a prediction depends on: the model's state, and the statistics of its inputs."""
        return {"model": self.model.state_dict(), "inputs": self.inputs.state_dict()}

    def load(self, weights: dict[str, dict[str, Tensor]]) -> None:
        """Put back what `weights` returned.

        Raises:
            KeyError: the model's state is missing.
            RuntimeError: it belongs to another model.
        """
        self.model.load_state_dict(weights["model"])
        self.inputs.load_state_dict(weights.get("inputs", {}))

    def fit_standardisers(self, stream: Stream | JointStream, ranks: Ranks = SINGLE_PROCESS) -> None:
        """Take the statistics that inputs are standardised by, where the system asks for that.

        Args:
            stream: the training split; its first epoch is read once.
            ranks: the processes that read it together.
        """
        standards = [module for module in self.inputs.modules() if isinstance(module, Standardiser)]
        if not standards:
            return
        with torch.inference_mode():
            for module in standards:
                module.begin()
            for batch in tqdm(ranks.lockstep(stream.batches()), "statistics", len(stream), leave=False, disable=None):
                parts = (batch.frames,) if isinstance(batch.frames, Tensor) else batch.frames
                for adapt, part in zip(self.inputs, parts, strict=True):
                    adapt(part)
            for module in standards:
                module.finish(ranks.all_reduce)


def outputs(module: nn.Module, stream: Stream | JointStream, what: str, ranks: Ranks = SINGLE_PROCESS) -> Tensor:
    """What `module` makes of the frames of every slice, in evaluation mode: float32 `(slices, ...)` on the host.

    Args:
        module: from frames `(batch, frames, bins)`, or a tuple of them.
        stream: the slices; rows come in the order of its table, NaN where one could not be read.
        what: label of the progress bar.
        ranks: the processes that do so together, each with its share of the slices, and all with the result.
    """
    made = torch.empty(0)
    for rows, values in outputs_by_batch(module, stream, what, ranks):
        if not len(made):
            # What is another's is added to 0.
            made = values.new_full((len(stream.labels), *values.shape[1:]), 0.0 if ranks.size > 1 else math.nan)
        made[rows] = values
    return ranks.all_reduce(made)


def outputs_by_batch(
    module: nn.Module, stream: Stream | JointStream, what: str, ranks: Ranks = SINGLE_PROCESS
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """What `outputs` returns, batch by batch: rows of the slice table, and their values."""
    module.eval()
    with torch.inference_mode():
        for batch in tqdm(ranks.lockstep(stream.batches()), what, len(stream), leave=False, disable=None):
            yield batch.rows, module(batch.frames).float().cpu()
