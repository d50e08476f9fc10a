"""Bjelikj et al., "Music Genre Classification: Different Methods Exploration", KTH, 2020.

Residual CNNs, recurrent CNNs, residual CNNs beside a GRU, kNN and SVM. Where the authors' released Keras code and the
paper's figures disagree, the networks follow the code: its parameter counts and its log belong to the printed results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mgc.models.registry.systems import InputSpec, system
from mgc.models.zoo.layers import (
    BatchNorm1d,
    BatchNorm2d,
    LastStateGRU,
    SameConv2d,
    he_normal_,
    he_uniform_,
    init_keras,
)

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.pipeline import Pipeline

_LOG_MEL = InputSpec("relative", features=("mel",), bands=128, frames=128)


class Block(nn.Module):
    """Residual block: a 3×3 convolution plus a shortcut through a 1×1 bottleneck.

    Blocks come in pairs. The shortcut of the first block of a pair reads the block's input. The shortcut of the second
    block reads the output of the first shortcut, not the sum that is the second block's input, and so bypasses the sum.

    Args:
        channels: channels of the block's input, and of the previous shortcut.
        filters: output channels.
        bottleneck: width of the shortcut's bottleneck.
        starts_pair: whether the block is the first of a pair. If so, it halves both axes, and its shortcut reads the
            max-pooled input.
    """

    def __init__(self, channels: int, filters: int, bottleneck: int, starts_pair: bool) -> None:
        super().__init__()
        self.starts_pair = starts_pair
        self.conv = SameConv2d(channels, filters, 3, stride=2 if starts_pair else 1)
        self.norm = BatchNorm2d(filters)
        self.shortcut = nn.Sequential(
            nn.MaxPool2d(2) if starts_pair else nn.Identity(),
            nn.Conv2d(channels, bottleneck, 1),
            BatchNorm2d(bottleneck),
            nn.ReLU(),
            nn.Conv2d(bottleneck, filters, 1),
            BatchNorm2d(filters),
        )

    def forward(self, x: Tensor, previous_shortcut: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the block's output and the output of its shortcut.

        Args:
            x: block input `(batch, channels, height, width)`.
            previous_shortcut: output of the previous block's shortcut, of the same shape. The first block of a pair
                ignores it.

        Returns:
            Two maps `(batch, filters, height, width)`, of half the height and width if the block starts a pair.
        """
        shortcut = self.shortcut(x if self.starts_pair else previous_shortcut)
        return nn.functional.relu(self.norm(self.conv(x)) + shortcut), shortcut


class Trunk(nn.Module):
    """A stem with stride 2, then residual blocks. The first block of each pair halves both axes again.

    Args:
        widths: filters of each block.
        bottlenecks: bottleneck width of each block's shortcut.
    """

    def __init__(self, widths: tuple[int, ...], bottlenecks: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(SameConv2d(1, 32, 5, stride=2), BatchNorm2d(32), nn.ReLU())
        inputs = (32, *widths[:-1])
        self.blocks = nn.ModuleList(
            Block(channels, filters, bottleneck, starts_pair=i % 2 == 0)
            for i, (channels, filters, bottleneck) in enumerate(zip(inputs, widths, bottlenecks, strict=True))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map log-mel spectrograms `(batch, 1, 128 bands, 128 frames)` to maps `(batch, widths[-1], 8, 8)`."""
        x = shortcut = self.stem(x)
        for block in self.blocks:
            x, shortcut = block(x, shortcut)
        return x


class ResidualCNN(nn.Module):
    """Residual CNN: residual blocks, two dense layers, and batch norm on the logits.

    Args:
        n_classes: number of classes.
        released_module: build the network of the authors' released module, which has a sixth block and one more
            convolution. By default build the network of their log, which belongs to the printed 50.25 %.
    """

    def __init__(self, n_classes: int, released_module: bool = False) -> None:
        super().__init__()
        self.trunk = _cnn_trunk(six_blocks=released_module)
        self.head = nn.Sequential(
            *([_tail(128)] if released_module else []),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4 if released_module else 64 * 8 * 8, 128),
            BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, n_classes),
            BatchNorm1d(n_classes),
        )
        _init_residual(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map log-mel spectrograms `(batch, 1, 128 bands, 128 frames)` to logits `(batch, n_classes)`."""
        return self.head(self.trunk(x))


class CNNRNN(nn.Module):
    """Residual blocks beside a bidirectional GRU on the spectrogram itself; one dense layer reads both.

    The authors pool the spectrogram to 64 frames and let the GRU step along the mel bands, from low to high, with 64
    frames per step.

    Args:
        n_classes: number of classes.
        figure_trunk: use the trunk of the paper's figure. By default use the wider trunk of the authors' log, which
            belongs to the printed 52.5 %.
        scan_time: let the GRU step along the 64 pooled frames instead, with 128 bands per step.
    """

    def __init__(self, n_classes: int, figure_trunk: bool = False, scan_time: bool = False) -> None:
        super().__init__()
        self.scan_time = scan_time
        self.trunk = (
            _cnn_trunk()
            if figure_trunk
            else Trunk((128, 256, 512, 512, 512, 128), bottlenecks=(16, 16, 32, 32, 64, 64))
        )
        self.tail = nn.Identity() if figure_trunk else _tail(128)
        self.flatten = nn.Flatten()
        self.pool = nn.MaxPool2d((1, 2))
        self.gru = LastStateGRU(128 if scan_time else 64, 64, bidirectional=True)
        self.classify = nn.Linear((64 * 8 * 8 if figure_trunk else 64 * 4 * 4) + 128, n_classes)
        _init_residual(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map log-mel spectrograms `(batch, 1, 128 bands, 128 frames)` to logits `(batch, n_classes)`."""
        bands = self.pool(x).squeeze(1)
        state = self.gru(bands.transpose(1, 2) if self.scan_time else bands)
        return self.classify(torch.cat([self.flatten(self.tail(self.trunk(x))), state], dim=1))


class CRNN(nn.Module):
    """Recurrent CNN: four convolutions at full resolution (their pools have stride 1), then a GRU.

    As in the authors' code, only the first map of the last convolution reaches the GRU, which steps along its mel
    bands, from low to high. The other maps and their batch norm cannot influence the output, and get no gradient.

    Args:
        n_classes: number of classes.
        widths: filters of each convolution.
        all_maps: let the GRU step along the frames instead, and read every map's mean over the bands.
    """

    def __init__(self, n_classes: int, widths: tuple[int, int, int, int], all_maps: bool = False) -> None:
        super().__init__()
        self.all_maps = all_maps
        layers: list[nn.Module] = []
        for channels, filters, pool in zip((1, *widths), widths, (2, 3, 4, 4), strict=False):
            layers += [
                nn.Conv2d(channels, filters, 3, padding=1),
                BatchNorm2d(filters),
                nn.ReLU(),
                nn.MaxPool2d(pool, stride=1),
                nn.Dropout(0.1),
            ]
        self.features = nn.Sequential(*layers)
        self.gru = LastStateGRU(widths[-1] if all_maps else 119, 68)
        self.classify = nn.Linear(68, n_classes)
        init_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map log-mel spectrograms `(batch, 1, 128 bands, 128 frames)` to logits `(batch, n_classes)`."""
        maps = self.features(x)
        return self.classify(self.gru(maps.mean(dim=2).transpose(1, 2) if self.all_maps else maps[:, 0]))


def _cnn_trunk(six_blocks: bool = False) -> Trunk:
    """Build the trunk of the logged CNN, with five blocks, or of the released module, with six."""
    if six_blocks:
        return Trunk((64, 128, 256, 128, 64, 128), bottlenecks=(16, 16, 32, 32, 64, 64))
    return Trunk((64, 128, 256, 128, 64), bottlenecks=(16, 16, 32, 32, 64))


def _tail(channels: int) -> nn.Sequential:
    """Build the convolution behind a trunk: `(batch, channels, 8, 8)` to `(batch, 64, 4, 4)`."""
    return nn.Sequential(SameConv2d(channels, 64, 3), BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2))


def _init_residual(model: nn.Module) -> None:
    """Initialise with He-uniform weights, the 3×3 convolutions from the third block on with He-normal ones."""
    init_keras(model, he_uniform_)
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for block in blocks[2:]:
        he_normal_(block.conv.weight)


@system("kth2020/cnn", input=_LOG_MEL)
def cnn(n_classes: int) -> nn.Module:
    """The residual CNN: 1,328,120 parameters with 8 classes, as in the authors' log."""
    return ResidualCNN(n_classes)


@system("kth2020/cnn-released", input=_LOG_MEL)
def cnn_released(n_classes: int) -> nn.Module:
    """The residual CNN of the authors' released module: 1,095,800 parameters with 8 classes."""
    return ResidualCNN(n_classes, released_module=True)


@system("kth2020/crnn", input=_LOG_MEL)
def crnn(n_classes: int) -> nn.Module:
    """The recurrent CNN with the widths of the paper's figure: 206,148 parameters with 8 classes.

    72,765 of them belong to maps that the GRU does not read, and never get a gradient.
    """
    return CRNN(n_classes, widths=(32, 64, 128, 64))


@system("kth2020/crnn-137", input=_LOG_MEL)
def crnn_137(n_classes: int) -> nn.Module:
    """The recurrent CNN with the widths of the authors' code: 462,843 parameters with 8 classes.

    168,096 of them belong to maps that the GRU does not read, and never get a gradient.
    """
    return CRNN(n_classes, widths=(68, 137, 137, 137))


@system("kth2020/cnn-rnn", input=_LOG_MEL)
def cnn_rnn(n_classes: int) -> nn.Module:
    """The wide residual CNN beside a GRU: 7,139,304 parameters with 8 classes, as in the authors' log."""
    return CNNRNN(n_classes)


@system("kth2020/cnn-rnn-fig", input=_LOG_MEL)
def cnn_rnn_fig(n_classes: int) -> nn.Module:
    """The residual CNN's blocks beside a GRU, as the paper's text describes them: 886,120 parameters with 8 classes."""
    return CNNRNN(n_classes, figure_trunk=True)


@system("kth2020/knn", input=_LOG_MEL, kind="classical", grid={"n_neighbors": (4, 8, 16, 32, 64)})
def knn(n_classes: int) -> Pipeline:
    """The 8 nearest neighbours, weighted by inverse distance, on 15 principal components."""
    from sklearn.neighbors import KNeighborsClassifier

    # Brute force is exact, quick in 15 dimensions, and keeps tree objects out of the saved model.
    return _pca_pipeline(KNeighborsClassifier(n_neighbors=8, weights="distance", algorithm="brute"))


@system("kth2020/svm", input=_LOG_MEL, kind="classical", grid={"C": (0.1, 1.0, 10.0, 100.0)})
def svm(n_classes: int) -> Pipeline:
    """A support vector machine with an RBF kernel and calibrated probabilities, on 15 principal components."""
    from sklearn.svm import SVC

    from mgc.models.classical import calibrate

    # break_ties: equal votes of the one-vs-one machines go to the most confident class, as in the probabilities, and
    # not to the first one.
    return _pca_pipeline(calibrate(SVC(kernel="rbf", C=1.0, gamma="scale", break_ties=True)))


def _pca_pipeline(classifier: ClassifierMixin) -> Pipeline:
    """Build a pipeline that standardises a slice's pixels, keeps 15 principal components and classifies these."""
    from sklearn.decomposition import IncrementalPCA
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    # Incremental, because a slice is 64 kB of pixels and all slices together may not fit into memory.
    return Pipeline([("standardise", StandardScaler()), ("pca", IncrementalPCA(15)), ("classify", classifier)])
