"""Networks that the studies compare themselves with or build on.

Choi et al., "Convolutional Recurrent Neural Networks for Music Classification", ICASSP 2017: the design behind both
recurrent rows that xu2022 cites, and behind kth2020/crnn-137.
"""

from __future__ import annotations

from torch import Tensor, nn

from mgc.models.registry.systems import InputSpec, system
from mgc.models.zoo.layers import BatchNorm2d, LastGRU, init_keras

# The pools leave one band, and one step of 2 · 3 · 4 · 4 = 96 frames.
_LOG_MEL = InputSpec("relative", features=("mel",), bands=96, frames=1440, least_frames=96)


class ChoiCRNN(nn.Module):
    """Four convolutions whose pools leave a single band, then two stacked GRUs over what is left of time."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        widths = (68, 137, 137, 137)
        layers: list[nn.Module] = []
        for channels, filters, pool in zip((1, *widths), widths, (2, 3, 4, 4), strict=False):
            layers += [
                nn.Conv2d(channels, filters, 3, padding=1),
                BatchNorm2d(filters),
                nn.ELU(),
                nn.MaxPool2d(pool),
                nn.Dropout(0.1),
            ]
        self.features = nn.Sequential(*layers)
        self.gru = LastGRU(widths[-1], 68, layers=2)
        self.classify = nn.Linear(68, n_classes)
        init_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Log-mel spectrograms `(batch, 1, 96 bands, frames)` to logits `(batch, n_classes)`."""
        return self.classify(self.gru(self.features(x).squeeze(2).transpose(1, 2)))


@system("ref/crnn-choi2017", input=_LOG_MEL)
def crnn_choi2017(n_classes: int) -> nn.Module:
    """The recurrent CNN; 494,667 parameters at 8 classes."""
    return ChoiCRNN(n_classes)
