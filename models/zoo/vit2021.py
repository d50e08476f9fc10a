"""Jain et al., "Music Information Retrieval and Classification using Deep Learning", IRJET 8(6), 2021.

MLPs, an LSTM and CNNs on the MFCCs of 3 s segments. Where the paper gives no details, they follow the public course
that the paper follows: V. Velardo, "Deep Learning (for Audio) with Python".
"""

from __future__ import annotations

from torch import Tensor, nn

from mgc.models.registry.systems import InputSpec, system
from mgc.models.zoo.layers import BatchNorm2d, SameConv2d, SameMaxPool2d, init_keras

_MFCC = InputSpec("mfcc", features=("mel", "mfcc"), bands=13, frames=130, time_first=True)


class SegmentMLP(nn.Sequential):
    """MLP: three dense layers with dropout, and an output layer.

    Maps MFCCs `(batch, 1, 130 frames, 13 coefficients)` to logits `(batch, n_classes)`.

    Args:
        n_classes: number of classes.
        dropout: dropout probability. The paper mentions dropout, but not its probability.
    """

    def __init__(self, n_classes: int, dropout: float) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in ((130 * 13, 512), (512, 256), (256, 128)):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
        super().__init__(*layers, nn.Linear(128, n_classes))
        init_keras(self)


class SegmentLSTM(nn.Module):
    """Two stacked LSTM layers, and two dense layers on the last state of the second.

    Args:
        n_classes: number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(13, 64, num_layers=2, batch_first=True)
        self.head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, n_classes))
        init_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map MFCCs `(batch, 1, 130 frames, 13 coefficients)` to logits `(batch, n_classes)`."""
        _, (states, _) = self.lstm(x.squeeze(1))
        return self.head(states[-1])


class SegmentCNN(nn.Module):
    """CNN: three stages of convolution, ReLU, max-pool and batch norm, then two dense layers.

    The printed pools (3×3, stride 3) do not fit behind unpadded convolutions: the 13 coefficients would shrink to
    nothing before the last one. With padded convolutions, every printed layer can be built.

    Args:
        n_classes: number of classes.
        course_pools: use unpadded convolutions with the course's pools instead, which have stride 2 and a window of 2×2
            in the last stage.
    """

    def __init__(self, n_classes: int, course_pools: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_stage(1, 3, course_pools), *_stage(32, 3, course_pools), *_stage(32, 2, course_pools)
        )
        positions = 15 * 1 if course_pools else 5 * 1
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(32 * positions, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, n_classes)
        )
        init_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map MFCCs `(batch, 1, 130 frames, 13 coefficients)` to logits `(batch, n_classes)`."""
        return self.head(self.features(x))


def _stage(channels: int, kernel: int, course_pools: bool) -> list[nn.Module]:
    """Build a stage with 32 filters. The course's pooling windows are as large as the kernels."""
    if course_pools:
        return [nn.Conv2d(channels, 32, kernel), nn.ReLU(), SameMaxPool2d(kernel, stride=2), BatchNorm2d(32)]
    return [SameConv2d(channels, 32, kernel), nn.ReLU(), SameMaxPool2d(3, stride=3), BatchNorm2d(32)]


@system("vit2021/mlp", input=_MFCC)
def mlp(n_classes: int) -> nn.Module:
    """The MLP with dropout: 1,031,306 parameters with 10 classes."""
    return SegmentMLP(n_classes, dropout=0.3)


@system("vit2021/mlp-plain", input=_MFCC)
def mlp_plain(n_classes: int) -> nn.Module:
    """The MLP without measures against overfitting: 1,031,306 parameters with 10 classes."""
    return SegmentMLP(n_classes, dropout=0.0)


@system("vit2021/lstm", input=_MFCC)
def lstm(n_classes: int) -> nn.Module:
    """The LSTM: 58,314 parameters with 10 classes, including PyTorch's second bias vectors."""
    return SegmentLSTM(n_classes)


@system("vit2021/cnn", input=_MFCC)
def cnn(n_classes: int) -> nn.Module:
    """The CNN with the printed pools: 24,842 parameters with 10 classes."""
    return SegmentCNN(n_classes)


@system("vit2021/cnn-tutorial", input=_MFCC)
def cnn_tutorial(n_classes: int) -> nn.Module:
    """The CNN with the course's pools: 45,322 parameters with 10 classes."""
    return SegmentCNN(n_classes, course_pools=True)
