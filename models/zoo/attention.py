"""Attention modules for residual networks: squeeze-and-excitation and CBAM.

xu2022 adds "an attention mechanism" to its networks without naming it, so both common ones are here. Neither changes
the shape of its input. They stand where their authors put them: after the last batch norm of a residual block, before
the block's input is added.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Reduction ratio of both papers: channels per hidden unit of the channel gate.
REDUCTION = 16


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation: scale each channel by a gate in [0, 1], computed from the mean of every channel.

    Hu et al., "Squeeze-and-Excitation Networks", 2018. Adds `2 C² / 16 + C / 16 + C` parameters for C channels.

    Args:
        channels: input and output channels, at least 16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // REDUCTION)
        self.fc2 = nn.Linear(channels // REDUCTION, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of a map `(batch, channels, height, width)`; the shape stays."""
        gate = self.fc2(self.fc1(x.mean(dim=(2, 3))).relu()).sigmoid()
        return x * gate[:, :, None, None]


class ConvolutionalAttention(nn.Module):
    """Convolutional block attention: a channel gate, then a spatial gate, each computed from means and maxima.

    Woo et al., "CBAM: Convolutional Block Attention Module", 2018. Adds `2 C² / 16 + 98` parameters for C channels; no
    layer has a bias.

    Args:
        channels: input and output channels, at least 16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // REDUCTION, bias=False)
        self.fc2 = nn.Linear(channels // REDUCTION, channels, bias=False)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of a map `(batch, channels, height, width)`; the shape stays."""
        gate = (self._dense(x.mean(dim=(2, 3))) + self._dense(x.amax(dim=(2, 3)))).sigmoid()
        x = x * gate[:, :, None, None]
        pooled = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * self.spatial(pooled).sigmoid()

    def _dense(self, pooled: Tensor) -> Tensor:
        """Apply the shared two-layer perceptron to pooled channels `(batch, channels)`."""
        return self.fc2(self.fc1(pooled).relu())
