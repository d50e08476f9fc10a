"""Fadaviardakani et al., "Parallel Recurrent and Convolutional Neural Networks for Music Genre Classification", 2020.

A CNN beside a bidirectional GRU, attention between the two, and ablations. Spectrograms are time first here, and the
convolutions' kernels span three frames of one band.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from mgc.models.registry.systems import InputSpec, system
from mgc.models.zoo.layers import LastGRU, init_keras

# The reference of the decibels is not printed; the public tutorial that the study follows takes the maximum.
_LOG_MEL = InputSpec("relative", features=("mel",), bands=128, frames=640, time_first=True)

_WIDTHS = (1, 16, 32, 64, 64, 64)
_POOLS = (2, 2, 2, 4, 4)


class ConvolutionBranch(nn.Sequential):
    """Convolution, ReLU and max-pool, five times or, from the first, fewer; then flat: 256 features of all five.

    `(batch, 1, 640 frames, 128 bands)` to `(batch, features)`.
    """

    def __init__(self, stages: int = 5) -> None:
        layers: list[nn.Module] = []
        for (channels, filters), pool in zip(pairwise(_WIDTHS[: stages + 1]), _POOLS[:stages], strict=True):
            layers += [nn.Conv2d(channels, filters, (3, 1)), nn.ReLU(), nn.MaxPool2d(pool)]
        super().__init__(*layers, nn.Flatten())


class RecurrentBranch(nn.Module):
    """The spectrogram at half its frames through bidirectional GRUs.

    Args:
        units: of each direction.
        layers: stacked GRUs.
    """

    def __init__(self, units: int, layers: int = 1) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d((2, 1))
        self.gru = LastGRU(128, units, both_ways=True, layers=layers)

    def steps(self, x: Tensor) -> Tensor:
        """What the GRU reads: `(batch, 1, 640 frames, 128 bands)` to `(batch, 320, 128)`."""
        return self.pool(x).squeeze(1)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, 1, 640 frames, 128 bands)` to the last states `(batch, 2 * units)`."""
        return self.gru(self.steps(x))


class Parallel(nn.Module):
    """Features of one or both branches, side by side, and a dense layer.

    Args:
        n_classes: outputs.
        branches: modules from `(batch, 1, 640 frames, 128 bands)` to flat features.
        features: of all of them together.
    """

    def __init__(self, n_classes: int, branches: tuple[nn.Module, ...], features: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.classify = nn.Linear(features, n_classes)
        init_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Log-mel spectrograms `(batch, 1, 640 frames, 128 bands)` to logits `(batch, n_classes)`."""
        return self.classify(torch.cat([branch(x) for branch in self.branches], dim=1))


class PrintedAttention(nn.Module):
    """The attention as its layers are listed, which cancels out.

    The softmax over the CNN's 256 features is repeated along a second axis and multiplied with the GRU's last states:
    `m[i, j] = a[i] * h[j]`. Its sum over `i` is `h`, for the softmax sums up to 1. So the CNN has no influence, and no
    gradient beyond rounding; what is classified is the GRU's states. The study's scores agree: with attention 41.6 % on
    validation, with the GRU alone 40.4 %, with the CNN alone 51.3 %.

    Args:
        n_classes: outputs.
        sum_axis: 1 as listed; 2 leaves the softmax, scaled by the sum of the states.
    """

    def __init__(self, n_classes: int, sum_axis: int = 1) -> None:
        super().__init__()
        self.sum_axis = sum_axis
        self.convolutions = ConvolutionBranch()
        self.recurrent = RecurrentBranch(128)
        self.classify = nn.Linear(256, n_classes)
        init_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Log-mel spectrograms `(batch, 1, 640 frames, 128 bands)` to logits `(batch, n_classes)`."""
        states = self.recurrent(x)
        weights = self.convolutions(x).softmax(dim=1).unsqueeze(2).expand(-1, -1, states.shape[1])
        return self.classify((weights * states.unsqueeze(1)).sum(dim=self.sum_axis))


class TemporalAttention(nn.Module):
    """What the prose describes: the CNN weighs the steps of the GRU's sequence. Our reconstruction."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.convolutions = ConvolutionBranch()
        self.score = nn.Linear(256, 320)
        self.recurrent = RecurrentBranch(128)
        self.classify = nn.Linear(256, n_classes)
        init_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Log-mel spectrograms `(batch, 1, 640 frames, 128 bands)` to logits `(batch, n_classes)`."""
        weights = self.score(self.convolutions(x)).softmax(dim=1)
        sequence, _ = self.recurrent.gru.gru(self.recurrent.steps(x))
        return self.classify((weights.unsqueeze(1) @ sequence).squeeze(1))


@system("ubc2020/ablation-cnn-rnn1", input=_LOG_MEL)
@system("ubc2020/prcnn", input=_LOG_MEL)
def prcnn(n_classes: int) -> nn.Module:
    """The CNN beside a GRU, as the text has it; 110,120 parameters at 8 classes."""
    return Parallel(n_classes, (ConvolutionBranch(), RecurrentBranch(64)), features=256 + 128)


@system("ubc2020/ablation-cnn-rnn2-attention", input=_LOG_MEL)
@system("ubc2020/prcnn-attention", input=_LOG_MEL)
def prcnn_attention(n_classes: int) -> nn.Module:
    """The printed layer list; 232,744 parameters at 8 classes, of which the CNN's 32,544 have no effect."""
    return PrintedAttention(n_classes)


@system("ubc2020/prcnn-attention-temporal", input=_LOG_MEL)
def prcnn_attention_temporal(n_classes: int) -> nn.Module:
    """Attention over time; 314,984 parameters at 8 classes."""
    return TemporalAttention(n_classes)


@system("ubc2020/ablation-rnn", input=_LOG_MEL)
def ablation_rnn(n_classes: int) -> nn.Module:
    """The GRU alone; 75,528 parameters at 8 classes."""
    return Parallel(n_classes, (RecurrentBranch(64),), features=128)


@system("ubc2020/ablation-cnn5", input=_LOG_MEL)
def ablation_cnn5(n_classes: int) -> nn.Module:
    """The CNN alone; 34,600 parameters at 8 classes."""
    return Parallel(n_classes, (ConvolutionBranch(),), features=256)


@system("ubc2020/ablation-cnn3", input=_LOG_MEL)
def ablation_cnn3(n_classes: int) -> nn.Module:
    """The first three convolutions alone; 646,824 parameters at 8 classes, nearly all of them in the dense layer."""
    return Parallel(n_classes, (ConvolutionBranch(stages=3),), features=64 * 78 * 16)


@system("ubc2020/ablation-cnn-rnn2", input=_LOG_MEL)
def ablation_cnn_rnn2(n_classes: int) -> nn.Module:
    """The CNN beside two stacked GRUs; 184,616 parameters at 8 classes."""
    return Parallel(n_classes, (ConvolutionBranch(), RecurrentBranch(64, layers=2)), features=256 + 128)
