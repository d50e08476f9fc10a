"""Attention for convolutional networks: gates that scale a map by what it holds.

xu2022 adds "an attention mechanism" to its networks and names none. Both modules here leave shapes as they are and go
where their authors put them, after the last batch norm of a residual block, before its input is added.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Channels per hidden unit of a channel gate, in both papers.
REDUCTION = 16


class SqueezeExcitation(nn.Module):
    """Channels scaled by a gate in [0, 1] that sees the mean of each (Hu et al., 2018).

    Adds `2 C² / 16 + C / 16 + C` parameters for C channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // REDUCTION)
        self.fc2 = nn.Linear(channels // REDUCTION, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, height, width)` to the same shape."""
        gate = self.fc2(self.fc1(x.mean(dim=(2, 3))).relu()).sigmoid()
        return x * gate[:, :, None, None]


class ConvolutionalAttention(nn.Module):
    """CBAM: channels scaled by what they hold, then places by what all channels hold there (Woo et al., 2018).

    Adds `2 C² / 16 + 98` parameters for C channels: nothing here has a bias.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // REDUCTION, bias=False)
        self.fc2 = nn.Linear(channels // REDUCTION, channels, bias=False)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, height, width)` to the same shape."""
        gate = (self._dense(x.mean(dim=(2, 3))) + self._dense(x.amax(dim=(2, 3)))).sigmoid()
        x = x * gate[:, :, None, None]
        pooled = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * self.spatial(pooled).sigmoid()

    def _dense(self, pooled: Tensor) -> Tensor:
        return self.fc2(self.fc1(pooled).relu())
