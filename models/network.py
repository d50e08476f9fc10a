"""The network of a neural system: its input adapters and its model, from frames to logits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mgc.models.data import adapters
from mgc.models.data.adapters import Standardiser
from mgc.models.data.joint import JointStream
from mgc.models.data.stream import Batch, Stream
from mgc.models.parallel.ranks import SINGLE_PROCESS, Ranks
from mgc.models.parallel.transfer import Transfer, read_late
from mgc.models.registry.systems import System
from mgc.pipeline import console
from mgc.pipeline.features import FeatureSpec

#: Output of a network in training: logits `(batch, n_classes)`, or a tuple of these and those of its auxiliary heads.
Outputs = Tensor | tuple[Tensor, ...]


class Network(nn.Module):
    """Input adapters and model of a neural system.

    Weights and activations are channels-last by default: on two CPU cores this shortens a training step of every
    default model, by 15 % (kth2020/cnn) to 50 % (xu2022/mobilenet).

    Args:
        system: neural system.
        specs: feature of each input.
        n_classes: number of outputs.
        channels_last: whether 4-D tensors are channels-last instead of contiguous.
    """

    def __init__(
        self, system: System, specs: Sequence[FeatureSpec], n_classes: int, *, channels_last: bool = True
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(
            adapters.adapter(input_spec, spec) for input_spec, spec in zip(system.inputs, specs, strict=True)
        )
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = system.build(n_classes).to(memory_format=self._format)

    def forward(self, frames: Tensor | tuple[Tensor, ...]) -> Outputs:
        """Compute logits from frames.

        Args:
            frames: float32 `(batch, frames, bins)`; a tuple of these for systems of several inputs.

        Returns:
            Logits `(batch, n_classes)`; in training, models with auxiliary heads return a tuple with their logits, too.
        """
        inputs = (frames,) if isinstance(frames, Tensor) else frames
        adapted = [adapt(values) for adapt, values in zip(self.inputs, inputs, strict=True)]
        return self.model(*(x.contiguous(memory_format=self._format) if x.dim() == 4 else x for x in adapted))

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """State that predictions depend on: the model's, and the statistics of standardised inputs."""
        return {"model": self.model.state_dict(), "inputs": self.inputs.state_dict()}

    def load(self, weights: dict[str, dict[str, Tensor]]) -> None:
        """Load the state that `weights` returned.

        Raises:
            KeyError: the model's state is missing.
            RuntimeError: the state belongs to another model.
        """
        self.model.load_state_dict(weights["model"])
        self.inputs.load_state_dict(weights.get("inputs", {}))

    def fit_standardisers(self, stream: Stream | JointStream, ranks: Ranks = SINGLE_PROCESS) -> None:
        """Fit the standardisers of the inputs on the training split; systems without any read nothing.

        Args:
            stream: training split; the first epoch is read once.
            ranks: processes that read it together, each its part.
        """
        standardisers = [module for module in self.inputs.modules() if isinstance(module, Standardiser)]
        if not standardisers:
            return
        with torch.inference_mode():
            for module in standardisers:
                module.begin()
            for batch in tqdm(
                ranks.lockstep(stream.batches()), "statistics", len(stream), leave=False, disable=console.hides_bars()
            ):
                inputs = (batch.frames,) if isinstance(batch.frames, Tensor) else batch.frames
                for adapt, values in zip(self.inputs, inputs, strict=True):
                    adapt(values)
            for module in standardisers:
                module.finish(ranks.all_reduce)


def outputs(module: nn.Module, stream: Stream | JointStream, label: str, ranks: Ranks = SINGLE_PROCESS) -> Tensor:
    """Compute the output of a module for every slice of a stream, in evaluation mode.

    Args:
        module: module that takes frames `(batch, frames, bins)`, or a tuple of them.
        stream: slices to read.
        label: label of the progress bar.
        ranks: processes that share the work, each with its part of the slices; all get the whole result.

    Returns:
        float32 `(slices, ...)` on the host, in the order of the slice table; NaN for slices that could not be read.
    """
    result = torch.empty(0)
    for rows, values in outputs_by_batch(module, stream, label, ranks):
        if not len(result):
            # With several processes, the rows of the others are 0, since the results are added up.
            result = values.new_full((len(stream.labels), *values.shape[1:]), 0.0 if ranks.size > 1 else math.nan)
        result[rows] = values
    return ranks.all_reduce(result)


def outputs_by_batch(
    module: nn.Module, stream: Stream | JointStream, label: str, ranks: Ranks = SINGLE_PROCESS
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield the outputs of a module in evaluation mode, batch by batch; for arguments see `outputs`.

    Yields:
        Rows of the slice table, int64 `(batch,)`, and their outputs, float32 `(batch, ...)` on the host.
    """
    module.eval()
    batches = ranks.lockstep(stream.batches())
    # A bar that is not shown if the work is soon done.
    bar = tqdm(batches, label, len(stream), leave=False, disable=console.hides_bars(), delay=1)
    return read_late(_queue_outputs(module, bar))


def _queue_outputs(module: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[np.ndarray, Transfer]]:
    """Compute outputs batch by batch; yield the rows of each batch and its outputs on their way to the host."""
    for batch in batches:
        with torch.inference_mode():
            transfer = Transfer(module(batch.frames).float())
        yield batch.rows, transfer
