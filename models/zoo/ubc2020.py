"""Fadaviardakani et al., "Parallel Recurrent and Convolutional Neural Networks for Music Genre Classification", 2020.

A CNN beside a bidirectional GRU, attention between the two, and ablations. Spectrograms have time as their first axis,
and the convolution kernels span three frames of one band.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from mgc.models.registry.systems import InputSpec, system
from mgc.models.zoo.layers import LastStateGRU, init_keras

# The paper does not give the decibels' reference; the public tutorial that the study follows uses the maximum.
_LOG_MEL = InputSpec("relative", features=("mel",), bands=128, frames=640, time_first=True)

_WIDTHS = (1, 16, 32, 64, 64, 64)
_POOLS = (2, 2, 2, 4, 4)


class ConvolutionBranch(nn.Sequential):
    """CNN branch: stages of convolution, ReLU and max-pool, then flattened.

    Maps log-mel spectrograms `(batch, 1, 640 frames, 128 bands)` to features `(batch, n_features)`; all five stages
    give 256 features.

    Args:
        stages: number of stages, from the first one on, at most 5.
    """

    def __init__(self, stages: int = 5) -> None:
        layers: list[nn.Module] = []
        for (channels, filters), pool in zip(pairwise(_WIDTHS[: stages + 1]), _POOLS[:stages], strict=True):
            layers += [nn.Conv2d(channels, filters, (3, 1)), nn.ReLU(), nn.MaxPool2d(pool)]
        super().__init__(*layers, nn.Flatten())


class RecurrentBranch(nn.Module):
    """Recurrent branch: max-pool every two frames, then a bidirectional GRU.

    Args:
        units: hidden size of each direction.
        layers: number of stacked GRU layers.
    """

    def __init__(self, units: int, layers: int = 1) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d((2, 1))
        self.gru = LastStateGRU(128, units, bidirectional=True, layers=layers)

    def steps(self, x: Tensor) -> Tensor:
        """Compute the GRU's input `(batch, 320 steps, 128 bands)` from `(batch, 1, 640 frames, 128 bands)`."""
        return self.pool(x).squeeze(1)

    def forward(self, x: Tensor) -> Tensor:
        """Map log-mel spectrograms `(batch, 1, 640 frames, 128 bands)` to last states `(batch, 2 * units)`."""
        return self.gru(self.steps(x))


class ParallelBranches(nn.Module):
    """One or more branches on the same input; a dense layer reads their concatenated features.

    Args:
        n_classes: number of classes.
        branches: modules that map `(batch, 1, 640 frames, 128 bands)` to `(batch, features)`.
        n_features: total number of features of all branches.
    """

    def __init__(self, n_classes: int, branches: tuple[nn.Module, ...], n_features: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.classify = nn.Linear(n_features, n_classes)
        init_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map log-mel spectrograms `(batch, 1, 640 frames, 128 bands)` to logits `(batch, n_classes)`."""
        return self.classify(torch.cat([branch(x) for branch in self.branches], dim=1))


class PrintedAttention(nn.Module):
    """Attention as the paper lists its layers; it cancels out, and only the GRU's states are classified.

    The softmax over the CNN's 256 features is repeated along a second axis and multiplied with the GRU's last states:
    `m[i, j] = a[i] * h[j]`. The sum over `i` is `h`, because the softmax sums to 1. So the CNN has no influence on the
    output, and gets no gradient beyond rounding. The study's validation accuracies agree: 41.6 % with attention, 40.4 %
    with the GRU alone, 51.3 % with the CNN alone.

    Args:
        n_classes: number of classes.
        sum_axis: axis of the sum: 1 as in the paper; 2 gives the softmax, scaled by the sum of the states.
    """

    def __init__(self, n_classes: int, sum_axis: int = 1) -> None:
        super().__init__()
        self.sum_axis = sum_axis
        self.convolutions = ConvolutionBranch()
        self.recurrent = RecurrentBranch(128)
        self.classify = nn.Linear(256, n_classes)
        init_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map log-mel spectrograms `(batch, 1, 640 frames, 128 bands)` to logits `(batch, n_classes)`."""
        states = self.recurrent(x)
        weights = self.convolutions(x).softmax(dim=1).unsqueeze(2).expand(-1, -1, states.shape[1])
        return self.classify((weights * states.unsqueeze(1)).sum(dim=self.sum_axis))


class TemporalAttention(nn.Module):
    """Attention as the paper's text describes it: the CNN weights the steps of the GRU's sequence.

    The paper gives no layers for it; the dense layer from the CNN's features to the weights is a reconstruction.

    Args:
        n_classes: number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.convolutions = ConvolutionBranch()
        self.score = nn.Linear(256, 320)
        self.recurrent = RecurrentBranch(128)
        self.classify = nn.Linear(256, n_classes)
        init_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map log-mel spectrograms `(batch, 1, 640 frames, 128 bands)` to logits `(batch, n_classes)`."""
        weights = self.score(self.convolutions(x)).softmax(dim=1)
        sequence, _ = self.recurrent.gru.gru(self.recurrent.steps(x))
        return self.classify((weights.unsqueeze(1) @ sequence).squeeze(1))


@system("ubc2020/ablation-cnn-rnn1", input=_LOG_MEL)
@system("ubc2020/prcnn", input=_LOG_MEL)
def prcnn(n_classes: int) -> nn.Module:
    """The CNN beside a GRU, as in the paper's text: 110,120 parameters with 8 classes."""
    return ParallelBranches(n_classes, (ConvolutionBranch(), RecurrentBranch(64)), n_features=256 + 128)


@system("ubc2020/ablation-cnn-rnn2-attention", input=_LOG_MEL)
@system("ubc2020/prcnn-attention", input=_LOG_MEL)
def prcnn_attention(n_classes: int) -> nn.Module:
    """Attention as printed: 232,744 parameters with 8 classes, of which the CNN's 32,544 have no effect."""
    return PrintedAttention(n_classes)


@system("ubc2020/prcnn-attention-temporal", input=_LOG_MEL)
def prcnn_attention_temporal(n_classes: int) -> nn.Module:
    """Attention over time: 314,984 parameters with 8 classes."""
    return TemporalAttention(n_classes)


@system("ubc2020/ablation-rnn", input=_LOG_MEL)
def ablation_rnn(n_classes: int) -> nn.Module:
    """The GRU alone: 75,528 parameters with 8 classes."""
    return ParallelBranches(n_classes, (RecurrentBranch(64),), n_features=128)


@system("ubc2020/ablation-cnn5", input=_LOG_MEL)
def ablation_cnn5(n_classes: int) -> nn.Module:
    """The CNN alone: 34,600 parameters with 8 classes."""
    return ParallelBranches(n_classes, (ConvolutionBranch(),), n_features=256)


@system("ubc2020/ablation-cnn3", input=_LOG_MEL)
def ablation_cnn3(n_classes: int) -> nn.Module:
    """The first three convolutions alone: 646,824 parameters with 8 classes, nearly all of them in the dense layer."""
    return ParallelBranches(n_classes, (ConvolutionBranch(stages=3),), n_features=64 * 78 * 16)


@system("ubc2020/ablation-cnn-rnn2", input=_LOG_MEL)
def ablation_cnn_rnn2(n_classes: int) -> nn.Module:
    """The CNN beside two stacked GRUs: 184,616 parameters with 8 classes."""
    return ParallelBranches(n_classes, (ConvolutionBranch(), RecurrentBranch(64, layers=2)), n_features=256 + 128)
