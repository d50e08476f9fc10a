"""What the last layer of a network sees: the embedding of a slice."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from mgc.models.zoo.mgc import Committee


class LastLayer(nn.Module):
    """Returns the input of the last layer of a network beside its logits, in one pass.

    The last layer is the one with `n_classes` outputs that the network calls last. An input with positions, as that of
    a convolution, is averaged over them. In a committee each member has a last layer; their inputs stand side by side,
    in the order of the members.

    Args:
        network: the network, in evaluation mode.
        n_classes: number of outputs of its last layer.
    """

    def __init__(self, network: nn.Module, n_classes: int) -> None:
        super().__init__()
        self.network = network
        self._n_classes = n_classes
        members = [member for module in network.modules() if isinstance(module, Committee) for member in module.members]
        parts = members or [network]
        self._inputs: list[Tensor | None] = [None] * len(parts)
        for index, part in enumerate(parts):
            for module in part.modules():
                width = getattr(module, "out_features", getattr(module, "out_channels", None))
                if width == n_classes:
                    module.register_forward_pre_hook(functools.partial(self._keep, index))

    def _keep(self, index: int, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self._inputs[index] = arguments[0]

    def forward(self, frames: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Return the d inputs of the last layer, then the logits: `(batch, d + n_classes)`.

        d is 0 if the network has no layer of `n_classes` outputs, or calls none with a row for each slice.
        """
        self._inputs = [None] * len(self._inputs)
        logits = self.network(frames)
        inputs = [kept for kept in self._inputs if kept is not None and len(kept) == len(logits)]
        if len(inputs) < len(self._inputs):
            return logits
        vectors = [kept.mean(dim=(2, 3)) if kept.dim() == 4 else kept.flatten(1) for kept in inputs]
        return torch.cat([*(part.to(logits.dtype) for part in vectors), logits], dim=1)

    def split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Divide what `forward` returned into embeddings `(batch, d)` and logits `(batch, n_classes)`."""
        return values[:, : -self._n_classes], values[:, -self._n_classes :]
