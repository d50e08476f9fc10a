"""Reference networks that the studies build on or compare with.

Choi et al., "Convolutional Recurrent Neural Networks for Music Classification", ICASSP 2017. Both recurrent rows that
xu2022 cites and kth2020/crnn-137 follow its design.
"""

from __future__ import annotations

from torch import Tensor, nn

from mgc.models.registry.systems import InputSpec, system
from mgc.models.zoo.layers import BatchNorm2d, LastStateGRU, init_keras

# The pools reduce both axes by 2 · 3 · 4 · 4 = 96: the bands to one, and 96 frames to one step.
_LOG_MEL = InputSpec("relative", features=("mel",), bands=96, frames=1440, min_frames=96)


class ChoiCRNN(nn.Module):
    """Convolutional recurrent network: four convolutions whose pools reduce the bands to one, then two stacked GRUs.

    Args:
        n_classes: number of classes.
    """

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
        self.gru = LastStateGRU(widths[-1], 68, layers=2)
        self.classify = nn.Linear(68, n_classes)
        init_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map log-mel spectrograms `(batch, 1, 96 bands, frames)` to logits `(batch, n_classes)`."""
        return self.classify(self.gru(self.features(x).squeeze(2).transpose(1, 2)))


@system("ref/crnn-choi2017", input=_LOG_MEL)
def crnn_choi2017(n_classes: int) -> nn.Module:
    """The convolutional recurrent network of Choi et al.: 494,667 parameters with 8 classes."""
    return ChoiCRNN(n_classes)
