"""What the last layer of a network sees: the embedding of a slice."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LastLayer(nn.Module):
    """Returns the input of the last layer of a network beside its logits, in one pass.

    The last layer is the one with `n_classes` outputs that the network calls last. An input with positions, as that of
    a convolution, is averaged over them.

    Args:
        network: the network, in evaluation mode.
        n_classes: number of outputs of its last layer.
    """

    def __init__(self, network: nn.Module, n_classes: int) -> None:
        super().__init__()
        self.network = network
        self._n_classes = n_classes
        self._input: Tensor | None = None
        for module in network.modules():
            width = getattr(module, "out_features", getattr(module, "out_channels", None))
            if width == n_classes:
                module.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self._input = arguments[0]

    def forward(self, frames: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Return the d inputs of the last layer, then the logits: `(batch, d + n_classes)`.

        d is 0 if the network has no layer of `n_classes` outputs, or calls none with a row for each slice.
        """
        self._input = None
        logits = self.network(frames)
        if self._input is None or len(self._input) != len(logits):
            return logits
        vectors = self._input.mean(dim=(2, 3)) if self._input.dim() == 4 else self._input.flatten(1)
        return torch.cat([vectors.to(logits.dtype), logits], dim=1)

    def split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Divide what `forward` returned into embeddings `(batch, d)` and logits `(batch, n_classes)`."""
        return values[:, : -self._n_classes], values[:, -self._n_classes :]
