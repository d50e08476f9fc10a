"""A system's network behind its input adapter: frames in, logits out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm import tqdm

from models import inputs
from models.optim import Outputs
from models.registry import System
from models.stream import Stream
from pipeline.features import FeatureSpec


class Network(nn.Module):
    """Adapter and model of a neural system.

    Weights and activations are channels-last: on two CPU cores a training step is then shorter for every default model,
    by 15 % (kth2020/cnn) to 50 % (xu2022/mobilenet).

    Args:
        system: the system.
        spec: what the store holds.
        n_classes: outputs.
    """

    def __init__(self, system: System, spec: FeatureSpec, n_classes: int) -> None:
        super().__init__()
        self.inputs = inputs.adapter(system.input, spec)
        self.model = system.build(n_classes).to(memory_format=torch.channels_last)

    def forward(self, frames: Tensor) -> Outputs:
        """Frames `(batch, frames, bins)`, float32, to logits `(batch, classes)`.

        In training the logits of auxiliary heads come with them, where the model has such.
        """
        x = self.inputs(frames)
        return self.model(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x)


def outputs(module: nn.Module, stream: Stream, what: str) -> Tensor:
    """What `module` makes of the frames of every slice, in evaluation mode: float32 `(slices, ...)` on the host.

    Args:
        module: from frames `(batch, frames, bins)`.
        stream: the slices; rows come in the order of its table.
        what: label of the progress bar.
    """
    module.eval()
    made = torch.empty(0)
    with torch.inference_mode():
        for batch in tqdm(stream.batches(), what, len(stream), leave=False, disable=None):
            values = module(batch.frames).float().cpu()
            if not len(made):
                made = values.new_empty((len(stream.labels), *values.shape[1:]))
            made[batch.rows] = values
    return made
