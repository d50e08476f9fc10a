"""Jain et al., "Music Information Retrieval and Classification using Deep Learning", IRJET 8(6), 2021: the CNN."""

from __future__ import annotations

from torch import Tensor, nn

from models.layers import BatchNorm2d, SameConv2d, SameMaxPool2d, init_keras
from models.registry import InputSpec, system

_MFCC = InputSpec("mfcc", features=("mel", "mfcc"), bands=13, frames=130, time_first=True)


class SegmentCNN(nn.Module):
    """Three times convolution, ReLU, max-pool and batch norm, then two dense layers.

    The printed pools (3×3, stride 3) cannot follow unpadded convolutions, whose width of 13 would be used up before the
    last one; with convolutions padded as well every printed layer can be built.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*_stage(1, 3), *_stage(32, 3), *_stage(32, 2))
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(32 * 5 * 1, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, n_classes)
        )
        init_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """MFCCs `(batch, 1, 130 frames, 13 coefficients)` to logits `(batch, n_classes)`."""
        return self.head(self.features(x))


def _stage(channels: int, kernel: int) -> list[nn.Module]:
    return [SameConv2d(channels, 32, kernel), nn.ReLU(), SameMaxPool2d(3, stride=3), BatchNorm2d(32)]


@system("vit2021/cnn", input=_MFCC)
def cnn(n_classes: int) -> nn.Module:
    """The CNN with the printed pools; 24,842 parameters at 10 classes."""
    return SegmentCNN(n_classes)
