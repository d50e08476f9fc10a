"""A system of two inputs that is trained in a second."""

from dataclasses import replace
from pathlib import Path

import torch
from tiny import INPUT
from torch import Tensor, nn

from mgc.models.registry.systems import InputSpec, System

AUDIO = InputSpec("waveform", features=("waveform",), bands=512, frames=48, standardise=True)


class Twofold(nn.Module):
    """Samples and levels, each through a convolution and dropout, side by side before the last layer."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.audio = nn.Sequential(nn.Conv1d(1, 8, 512, stride=512), nn.BatchNorm1d(8), nn.ReLU())
        self.levels = nn.Sequential(nn.Conv2d(1, 8, (8, 3), padding=(0, 1)), nn.BatchNorm2d(8), nn.ReLU())
        self.classify = nn.Sequential(nn.Dropout(0.3), nn.Linear(16, n_classes))

    def forward(self, audio: Tensor, levels: Tensor) -> Tensor:
        """Samples `(batch, 1, n)` and levels `(batch, 1, 8, frames)` to logits `(batch, n_classes)`."""
        heard, seen = self.audio(audio).mean(dim=2), self.levels(levels).mean(dim=(2, 3))
        return self.classify(torch.cat([heard, seen], dim=1))


TWOFOLD = System(
    "test/twofold",
    "neural",
    AUDIO,
    Twofold,
    Path(__file__).with_name("twofold.toml"),
    further=(replace(INPUT, adapter="absolute", frames=96, standardise=True),),
)
