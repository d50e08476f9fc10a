"""Aloisi et al., "Music Genre Recognition with Convolutional Neural Networks", Padova, 2023: the 2D CNN on log-mel.

The figures with layer sizes were not available. Channels, head and input normalisation are the only ones that give all
the printed parameter counts; pools and paddings meet the printed shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.registry import InputSpec, system

_CHANNELS = (16, 32, 64, 128)

# The pools need 4 · 8 · 8 = 256 frames; the study's excerpts have 512.
_LOG_MEL = InputSpec("absolute", features=("mel",), bands=128, frames=512, least_frames=256)


class PooledCNN(nn.Module):
    """Four convolutions with batch norm, pools between them, and a head on the maxima and means of the last maps.

    Args:
        n_classes: outputs.
        pools: (bands, frames) of the three max-pools.
    """

    def __init__(self, n_classes: int, pools: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(1)
        layers: list[nn.Module] = []
        for channels, filters, pool in zip((1, *_CHANNELS), _CHANNELS, (*pools, None), strict=False):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
            if pool:
                layers.append(nn.MaxPool2d(pool))
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(64, n_classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Levels in dB `(batch, 1, bands, frames)` to logits `(batch, n_classes)`."""
        x = self.features(self.normalise(x))
        return self.head(torch.cat([x.amax(dim=(2, 3)), x.mean(dim=(2, 3))], dim=1))


@system("padova2023/cnn2d-mel", input=_LOG_MEL)
def cnn2d_mel(n_classes: int) -> nn.Module:
    """The 2D CNN on log-mel spectrograms; 139,306 parameters at 8 classes."""
    return PooledCNN(n_classes, pools=((4, 4), (4, 8), (4, 8)))
