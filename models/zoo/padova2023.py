"""Aloisi et al., "Music Genre Recognition with Convolutional Neural Networks", Padova, 2023.

CNNs on raw audio, on log-mel and on MFCCs, the first and the last joined by an LSTM, and ensembles. The figures with
layer sizes were not available. Channels, head and input normalisation are the only ones that give all the printed
parameter counts; strides, pools and paddings meet the printed shapes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from mgc.models.registry.systems import InputSpec, ensemble, system

_CHANNELS = (1, 16, 32, 64, 128)
_DROPOUT = 0.3

# The pools need 4 · 8 · 8 = 256 frames; the study's excerpts have 512.
_LOG_MEL = InputSpec("absolute", features=("mel",), bands=128, frames=512, least_frames=256)
_MFCC = InputSpec("mfcc", features=("mel", "mfcc"), bands=20, frames=512, least_frames=8)
# 2^18 samples at 44.1 kHz are 2^17 here, at half the rate. Strides and pools make one value of 2,048.
_AUDIO = InputSpec("waveform", features=("waveform",), bands=512, frames=256, least_frames=4)


class PooledCNN(nn.Module):
    """Blocks of convolutions, and a head on the maxima and means of the last maps.

    Args:
        n_classes: outputs.
        normalise: batch norm of the input.
        features: blocks that end with 128 maps.
    """

    def __init__(self, n_classes: int, normalise: nn.Module, features: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.features = features
        self.head = nn.Sequential(
            nn.Linear(256, 128), nn.ReLU(), nn.Dropout(_DROPOUT),
            nn.Linear(128, 64), nn.ReLU(), nn.Dropout(_DROPOUT),
            nn.Linear(64, n_classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Levels or MFCCs `(batch, 1, bins, frames)`, or samples `(batch, 1, n)`, to logits `(batch, n_classes)`."""
        maps = self.features(self.normalise(x)).flatten(2)
        return self.head(torch.cat([maps.amax(dim=2), maps.mean(dim=2)], dim=1))


class LateFusion(nn.Module):
    """The maps of raw audio and of MFCCs of one excerpt, side by side in time, through an LSTM.

    The printed parameter count leaves no room for batch norm of the inputs: both are to be standardised with the mean
    and deviation of the training part.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.audio = _blocks_1d()
        self.mfcc = _blocks_2d(_MFCC_POOLS)
        self.lstm = nn.LSTM(256, 128, batch_first=True)
        self.dropout = nn.Dropout(_DROPOUT)
        self.classify = nn.Linear(128, n_classes)

    def forward(self, audio: Tensor, mfcc: Tensor) -> Tensor:
        """Samples `(batch, 1, 131072)` and MFCCs `(batch, 1, 20, 512)` to logits `(batch, n_classes)`."""
        heard, seen = self.audio(audio), self.mfcc(mfcc).squeeze(2)
        # At other rates than the study's the branches divide one excerpt into different numbers of steps.
        seen = nn.functional.interpolate(seen, heard.shape[2]) if seen.shape[2] != heard.shape[2] else seen
        steps = torch.cat([heard, seen], dim=1).transpose(1, 2)
        _, (states, _) = self.lstm(steps)
        return self.classify(self.dropout(states[-1]))


#: (bands, frames) of the three max-pools.
_MEL_POOLS = (4, 4), (4, 8), (4, 8)
_MFCC_POOLS = (2, 2), (2, 2), (5, 2)


def _blocks_1d() -> nn.Sequential:
    """Four blocks, the kernels of each half as long as the last: `(batch, 1, 131072)` to `(batch, 128, 64)`."""
    layers: list[nn.Module] = []
    for channels, filters, kernel, pool in zip(_CHANNELS, _CHANNELS[1:], (64, 32, 16, 8), (8, 8, 2, 1), strict=False):
        convolution = nn.Conv1d(channels, filters, kernel, stride=2, padding=kernel // 2 - 1)
        layers += [convolution, nn.BatchNorm1d(filters), nn.ReLU()]
        if pool > 1:
            layers.append(nn.MaxPool1d(pool))
    return nn.Sequential(*layers)


def _blocks_2d(pools: tuple[tuple[int, int], ...]) -> nn.Sequential:
    """Four blocks: `(batch, 1, bins, frames)` to `(batch, 128, ...)`, smaller by the pools."""
    layers: list[nn.Module] = []
    for channels, filters, pool in zip(_CHANNELS, _CHANNELS[1:], (*pools, None), strict=False):
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
        if pool:
            layers.append(nn.MaxPool2d(pool))
    return nn.Sequential(*layers)


@system("padova2023/cnn1d", input=_AUDIO)
def cnn1d(n_classes: int) -> nn.Module:
    """The 1D CNN on raw audio; 158,106 parameters at 8 classes."""
    return PooledCNN(n_classes, nn.BatchNorm1d(1), _blocks_1d())


@system("padova2023/cnn2d-mel", input=_LOG_MEL)
def cnn2d_mel(n_classes: int) -> nn.Module:
    """The 2D CNN on log-mel spectrograms; 139,306 parameters at 8 classes."""
    return PooledCNN(n_classes, nn.BatchNorm2d(1), _blocks_2d(_MEL_POOLS))


@system("padova2023/cnn2d-mfcc", input=_MFCC)
def cnn2d_mfcc(n_classes: int) -> nn.Module:
    """The 2D CNN on MFCCs; 139,306 parameters at 8 classes, those of the other: only the pools differ."""
    return PooledCNN(n_classes, nn.BatchNorm2d(1), _blocks_2d(_MFCC_POOLS))


@system("padova2023/late-fusion", input=replace(_AUDIO, standardise=True), further=(replace(_MFCC, standardise=True),))
def late_fusion(n_classes: int) -> nn.Module:
    """Raw audio and MFCCs joined by an LSTM; 412,728 parameters at 8 classes."""
    return LateFusion(n_classes)


ensemble("padova2023/ensemble-1", members=("padova2023/cnn1d", "padova2023/cnn2d-mel", "padova2023/cnn2d-mfcc"))
ensemble("padova2023/ensemble-2", members=("padova2023/late-fusion", "padova2023/cnn2d-mel"))
