"""Aloisi et al., "Music Genre Recognition with Convolutional Neural Networks", Padova, 2023.

CNNs on raw audio, on log-mel spectrograms and on MFCCs; a late fusion of raw audio and MFCCs by an LSTM; and ensembles.
The figures with the layer sizes were not available. The channels, heads and input normalisation used here are the only
ones that give all the printed parameter counts; strides, pools and paddings give the printed shapes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from mgc.models.registry.systems import InputSpec, ensemble, system

_CHANNELS = (1, 16, 32, 64, 128)
_DROPOUT = 0.3

# The pools reduce time by 4 · 8 · 8, so that they need 256 frames; the study's excerpts have 512.
_LOG_MEL = InputSpec("absolute", features=("mel",), bands=128, frames=512, min_frames=256)
_MFCC = InputSpec("mfcc", features=("mel", "mfcc"), bands=20, frames=512, min_frames=8)
# The study's 2^18 samples at 44.1 kHz are 2^17 at half the rate. Strides and pools reduce 2,048 samples (4 frames) to
# one value.
_AUDIO = InputSpec("waveform", features=("waveform",), bands=512, frames=256, min_frames=4)


class PooledCNN(nn.Module):
    """CNN whose dense head reads the maximum and the mean of each map of the last convolution.

    Args:
        n_classes: number of classes.
        normalise: batch norm of the input.
        features: convolution blocks, with 128 output channels.
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
        """Map an input to logits `(batch, n_classes)`.

        Args:
            x: log-mel spectrograms or MFCCs `(batch, 1, bins, frames)`, or samples `(batch, 1, n_samples)`.
        """
        maps = self.features(self.normalise(x)).flatten(2)
        return self.head(torch.cat([maps.amax(dim=2), maps.mean(dim=2)], dim=1))


class LateFusion(nn.Module):
    """Late fusion: an LSTM reads the maps of a 1D CNN on raw audio and of a 2D CNN on MFCCs, concatenated step by step.

    The printed parameter count leaves no room for batch norm of the inputs. Both inputs must be standardised with the
    mean and standard deviation of the training split.

    Args:
        n_classes: number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.audio = _blocks_1d()
        self.mfcc = _blocks_2d(_MFCC_POOLS)
        self.lstm = nn.LSTM(256, 128, batch_first=True)
        self.dropout = nn.Dropout(_DROPOUT)
        self.classify = nn.Linear(128, n_classes)

    def forward(self, audio: Tensor, mfcc: Tensor) -> Tensor:
        """Map samples `(batch, 1, 131072)` and MFCCs `(batch, 1, 20, 512)` to logits `(batch, n_classes)`."""
        audio_maps, mfcc_maps = self.audio(audio), self.mfcc(mfcc).squeeze(2)
        # At other sample rates than the study's, the two branches give different numbers of steps for one excerpt.
        if mfcc_maps.shape[2] != audio_maps.shape[2]:
            mfcc_maps = nn.functional.interpolate(mfcc_maps, audio_maps.shape[2])
        steps = torch.cat([audio_maps, mfcc_maps], dim=1).transpose(1, 2)
        _, (states, _) = self.lstm(steps)
        return self.classify(self.dropout(states[-1]))


#: Sizes (bins, frames) of the three max-pools.
_MEL_POOLS = (4, 4), (4, 8), (4, 8)
_MFCC_POOLS = (2, 2), (2, 2), (5, 2)


def _blocks_1d() -> nn.Sequential:
    """Build the four 1D blocks: `(batch, 1, 131072)` to `(batch, 128, 64)`. Each kernel is half as long as the last."""
    layers: list[nn.Module] = []
    for channels, filters, kernel, pool in zip(_CHANNELS, _CHANNELS[1:], (64, 32, 16, 8), (8, 8, 2, 1), strict=False):
        convolution = nn.Conv1d(channels, filters, kernel, stride=2, padding=kernel // 2 - 1)
        layers += [convolution, nn.BatchNorm1d(filters), nn.ReLU()]
        if pool > 1:
            layers.append(nn.MaxPool1d(pool))
    return nn.Sequential(*layers)


def _blocks_2d(pools: tuple[tuple[int, int], ...]) -> nn.Sequential:
    """Build the four 2D blocks: `(batch, 1, bins, frames)` to `(batch, 128, bins / pools, frames / pools)`."""
    layers: list[nn.Module] = []
    for channels, filters, pool in zip(_CHANNELS, _CHANNELS[1:], (*pools, None), strict=False):
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
        if pool:
            layers.append(nn.MaxPool2d(pool))
    return nn.Sequential(*layers)


@system("padova2023/cnn1d", input=_AUDIO)
def cnn1d(n_classes: int) -> nn.Module:
    """The 1D CNN on raw audio: 158,106 parameters with 8 classes."""
    return PooledCNN(n_classes, nn.BatchNorm1d(1), _blocks_1d())


@system("padova2023/cnn2d-mel", input=_LOG_MEL)
def cnn2d_mel(n_classes: int) -> nn.Module:
    """The 2D CNN on log-mel spectrograms: 139,306 parameters with 8 classes."""
    return PooledCNN(n_classes, nn.BatchNorm2d(1), _blocks_2d(_MEL_POOLS))


@system("padova2023/cnn2d-mfcc", input=_MFCC)
def cnn2d_mfcc(n_classes: int) -> nn.Module:
    """The 2D CNN on MFCCs: 139,306 parameters with 8 classes, as the log-mel CNN has. Only the pools differ."""
    return PooledCNN(n_classes, nn.BatchNorm2d(1), _blocks_2d(_MFCC_POOLS))


@system("padova2023/late-fusion", input=replace(_AUDIO, standardise=True), further=(replace(_MFCC, standardise=True),))
def late_fusion(n_classes: int) -> nn.Module:
    """Late fusion of raw audio and MFCCs by an LSTM: 412,728 parameters with 8 classes."""
    return LateFusion(n_classes)


ensemble("padova2023/ensemble-1", members=("padova2023/cnn1d", "padova2023/cnn2d-mel", "padova2023/cnn2d-mfcc"))
ensemble("padova2023/ensemble-2", members=("padova2023/late-fusion", "padova2023/cnn2d-mel"))
