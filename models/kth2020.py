"""Bjelikj et al., "Music Genre Classification: Different Methods Exploration", KTH, 2020: residual CNN, kNN and SVM.

The networks follow the authors' released Keras code where it and the paper's figures disagree: its parameter count and
its log are those of the printed results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from models.layers import BatchNorm1d, BatchNorm2d, SameConv2d, he_normal_, he_uniform_, init_keras
from models.registry import InputSpec, system

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
    """The network of the printed 50.25 %: five blocks, two dense layers, and batch norm on the logits."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.trunk = Trunk((64, 128, 256, 128, 64), reduced=(16, 16, 32, 32, 64))
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * 8 * 8, 128),
            BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, n_classes),
            BatchNorm1d(n_classes),
        )
        init_keras(self, he_uniform_)
        blocks = [module for module in self.modules() if isinstance(module, Block)]
        for block in blocks[2:]:
            he_normal_(block.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Log-mel spectrograms `(batch, 1, 128 bands, 128 frames)` to logits `(batch, n_classes)`."""
        return self.head(self.trunk(x))


@system("kth2020/cnn", input=_LOG_MEL)
def cnn(n_classes: int) -> nn.Module:
    """The residual CNN; 1,328,120 parameters at 8 classes, as the authors' log says."""
    return ResidualCNN(n_classes)


@system("kth2020/knn", input=_LOG_MEL, kind="classical")
def knn(n_classes: int) -> Pipeline:
    """The 8 nearest neighbours, weighted by inverse distance."""
    from sklearn.neighbors import KNeighborsClassifier

    # Brute force is exact, quick in 15 dimensions, and needs no tree object in the saved model.
    return _on_components(KNeighborsClassifier(n_neighbors=8, weights="distance", algorithm="brute"))


@system("kth2020/svm", input=_LOG_MEL, kind="classical")
def svm(n_classes: int) -> Pipeline:
    """A support vector machine with a radial kernel, its decision values calibrated into probabilities."""
    from sklearn.svm import SVC

    from models.classical import calibrated

    # Equal votes of the pairwise machines go to the most confident class, as in the probabilities, not to the first.
    return _on_components(calibrated(SVC(kernel="rbf", C=1.0, gamma="scale", break_ties=True)))


def _on_components(classifier: ClassifierMixin) -> Pipeline:
    """The classifier on 15 principal components of a slice's standardised pixels."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    # The seed is of PCA's randomised solver, whose result would otherwise change from run to run.
    pca = PCA(15, random_state=0)
    return Pipeline([("standardise", StandardScaler()), ("pca", pca), ("classify", classifier)])
