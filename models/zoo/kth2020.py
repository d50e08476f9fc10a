"""Bjelikj et al., "Music Genre Classification: Different Methods Exploration", KTH, 2020.

Residual CNNs, recurrent CNNs, residual CNNs beside a GRU, kNN and SVM. The networks follow the authors' released Keras
code where it and the paper's figures disagree: its parameter counts and its log are those of the printed results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mgc.models.registry.systems import InputSpec, system
from mgc.models.zoo.layers import BatchNorm1d, BatchNorm2d, LastGRU, SameConv2d, he_normal_, he_uniform_, init_keras

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.pipeline import Pipeline

_LOG_MEL = InputSpec("relative", features=("mel",), bands=128, frames=128)


class Block(nn.Module):
    """A 3×3 convolution beside a 1×1 bottleneck.

    The two are summed, but the bottlenecks also form a chain of their own: that of an even block reads the previous
    bottleneck's output, before the sum, and so bypasses it.

    Args:
        channels: of the block's input, and of the previous shortcut.
        filters: of the output.
        reduced: width of the bottleneck.
        opens: whether the block starts a chain: it halves both axes, and its shortcut reads the pooled input.
    """

    def __init__(self, channels: int, filters: int, reduced: int, opens: bool) -> None:
        super().__init__()
        self.opens = opens
        self.conv = SameConv2d(channels, filters, 3, stride=2 if opens else 1)
        self.norm = BatchNorm2d(filters)
        self.shortcut = nn.Sequential(
            nn.MaxPool2d(2) if opens else nn.Identity(),
            nn.Conv2d(channels, reduced, 1),
            BatchNorm2d(reduced),
            nn.ReLU(),
            nn.Conv2d(reduced, filters, 1),
            BatchNorm2d(filters),
        )

    def forward(self, x: Tensor, chain: Tensor) -> tuple[Tensor, Tensor]:
        """The block's output and its shortcut, both `(batch, filters, height, width)`."""
        shortcut = self.shortcut(x if self.opens else chain)
        return nn.functional.relu(self.norm(self.conv(x)) + shortcut), shortcut


class Trunk(nn.Module):
    """A strided stem and residual blocks, of which every second one, the first included, halves both axes.

    Args:
        widths: filters of each block.
        reduced: bottleneck width of each block.
    """

    def __init__(self, widths: tuple[int, ...], reduced: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(SameConv2d(1, 32, 5, stride=2), BatchNorm2d(32), nn.ReLU())
        inputs = (32, *widths[:-1])
        self.blocks = nn.ModuleList(
            Block(channels, filters, narrow, opens=i % 2 == 0)
            for i, (channels, filters, narrow) in enumerate(zip(inputs, widths, reduced, strict=True))
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, 1, 128, 128)` to `(batch, widths[-1], 8, 8)`."""
        x = chain = self.stem(x)
        for block in self.blocks:
            x, chain = block(x, chain)
        return x


class ResidualCNN(nn.Module):
    """Residual blocks, two dense layers, and batch norm on the logits.

    Args:
        n_classes: outputs.
        released: the network of the released module, which has a sixth block and a convolution more, instead of the
            one that was logged with the printed 50.25 %.
    """

    def __init__(self, n_classes: int, released: bool = False) -> None:
        super().__init__()
        self.trunk = _cnn_trunk(released)
        self.head = nn.Sequential(
            *([_tail(128)] if released else []),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4 if released else 64 * 8 * 8, 128),
            BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, n_classes),
            BatchNorm1d(n_classes),
        )
        _init_residual(self)

    def forward(self, x: Tensor) -> Tensor:
        """Log-mel spectrograms `(batch, 1, 128 bands, 128 frames)` to logits `(batch, n_classes)`."""
        return self.head(self.trunk(x))


class CNNRNN(nn.Module):
    """Residual blocks beside a bidirectional GRU that reads the spectrogram itself.

    The GRU's pool halves the time axis, so its sequence is the mel bands, from low to high, of 64 pooled frames each.

    Args:
        n_classes: outputs.
        as_drawn: the trunk of the paper's figure, instead of the wider one that was logged with the printed 52.5 %.
        scan_time: let the GRU read the 64 pooled frames in their order instead, 128 bands each.
    """

    def __init__(self, n_classes: int, as_drawn: bool = False, scan_time: bool = False) -> None:
        super().__init__()
        self.scan_time = scan_time
        self.trunk = (
            _cnn_trunk() if as_drawn else Trunk((128, 256, 512, 512, 512, 128), reduced=(16, 16, 32, 32, 64, 64))
        )
        self.tail = nn.Identity() if as_drawn else _tail(128)
        self.flatten = nn.Flatten()
        self.pool = nn.MaxPool2d((1, 2))
        self.gru = LastGRU(128 if scan_time else 64, 64, both_ways=True)
        self.classify = nn.Linear((64 * 8 * 8 if as_drawn else 64 * 4 * 4) + 128, n_classes)
        _init_residual(self)

    def forward(self, x: Tensor) -> Tensor:
        """Log-mel spectrograms `(batch, 1, 128 bands, 128 frames)` to logits `(batch, n_classes)`."""
        rows = self.pool(x).squeeze(1)
        state = self.gru(rows.transpose(1, 2) if self.scan_time else rows)
        return self.classify(torch.cat([self.flatten(self.tail(self.trunk(x))), state], dim=1))


class CRNN(nn.Module):
    """Four convolutions at full resolution (their pools have stride 1), then a GRU.

    Only the first map of the last convolution reaches the GRU, whose sequence is its rows, the mel bands from low to
    high: the other maps and their batch norm cannot influence the output, and get no gradient.

    Args:
        n_classes: outputs.
        widths: filters of each convolution.
        all_maps: let the GRU read the mean over the bands of every map instead, frame by frame.
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
        self.gru = LastGRU(widths[-1] if all_maps else 119, 68)
        self.classify = nn.Linear(68, n_classes)
        init_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Log-mel spectrograms `(batch, 1, 128 bands, 128 frames)` to logits `(batch, n_classes)`."""
        maps = self.features(x)
        return self.classify(self.gru(maps.mean(dim=2).transpose(1, 2) if self.all_maps else maps[:, 0]))


def _cnn_trunk(sixth: bool = False) -> Trunk:
    """The blocks of the CNN that was logged; the released module has a sixth one."""
    if sixth:
        return Trunk((64, 128, 256, 128, 64, 128), reduced=(16, 16, 32, 32, 64, 64))
    return Trunk((64, 128, 256, 128, 64), reduced=(16, 16, 32, 32, 64))


def _tail(channels: int) -> nn.Sequential:
    return nn.Sequential(SameConv2d(channels, 64, 3), BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2))


def _init_residual(model: nn.Module) -> None:
    """He-uniform weights, but He-normal ones in the 3×3 convolutions of the blocks from the third on."""
    init_keras(model, he_uniform_)
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for block in blocks[2:]:
        he_normal_(block.conv.weight)


@system("kth2020/cnn", input=_LOG_MEL)
def cnn(n_classes: int) -> nn.Module:
    """The residual CNN; 1,328,120 parameters at 8 classes, as the authors' log says."""
    return ResidualCNN(n_classes)


@system("kth2020/cnn-released", input=_LOG_MEL)
def cnn_released(n_classes: int) -> nn.Module:
    """The residual CNN of the released module; 1,095,800 parameters at 8 classes."""
    return ResidualCNN(n_classes, released=True)


@system("kth2020/crnn", input=_LOG_MEL)
def crnn(n_classes: int) -> nn.Module:
    """The recurrent CNN with the widths of the paper's figure; 206,148 parameters at 8 classes, 72,765 of them dead."""
    return CRNN(n_classes, widths=(32, 64, 128, 64))


@system("kth2020/crnn-137", input=_LOG_MEL)
def crnn_137(n_classes: int) -> nn.Module:
    """The recurrent CNN with the widths of the code; 462,843 parameters at 8 classes, 168,096 of them dead."""
    return CRNN(n_classes, widths=(68, 137, 137, 137))


@system("kth2020/cnn-rnn", input=_LOG_MEL)
def cnn_rnn(n_classes: int) -> nn.Module:
    """A wide residual CNN beside a GRU; 7,139,304 parameters at 8 classes, as the authors' log says."""
    return CNNRNN(n_classes)


@system("kth2020/cnn-rnn-fig", input=_LOG_MEL)
def cnn_rnn_fig(n_classes: int) -> nn.Module:
    """The residual CNN's blocks beside a GRU, as the prose has it; 886,120 parameters at 8 classes."""
    return CNNRNN(n_classes, as_drawn=True)


@system("kth2020/knn", input=_LOG_MEL, kind="classical", grid={"n_neighbors": (4, 8, 16, 32, 64)})
def knn(n_classes: int) -> Pipeline:
    """The 8 nearest neighbours, weighted by inverse distance."""
    from sklearn.neighbors import KNeighborsClassifier

    # Brute force is exact, quick in 15 dimensions, and needs no tree object in the saved model.
    return _on_components(KNeighborsClassifier(n_neighbors=8, weights="distance", algorithm="brute"))


@system("kth2020/svm", input=_LOG_MEL, kind="classical", grid={"C": (0.1, 1.0, 10.0, 100.0)})
def svm(n_classes: int) -> Pipeline:
    """A support vector machine with a radial kernel, its decision values calibrated into probabilities."""
    from sklearn.svm import SVC

    from mgc.models.classical import calibrated

    # Equal votes of the pairwise machines go to the most confident class, as in the probabilities, not to the first.
    return _on_components(calibrated(SVC(kernel="rbf", C=1.0, gamma="scale", break_ties=True)))


def _on_components(classifier: ClassifierMixin) -> Pipeline:
    """The classifier on 15 principal components of a slice's standardised pixels."""
    from sklearn.decomposition import IncrementalPCA
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    # Fitted block by block: a slice is 64 kB of pixels, and all of them together may be more than the memory holds.
    return Pipeline([("standardise", StandardScaler()), ("pca", IncrementalPCA(15)), ("classify", classifier)])
