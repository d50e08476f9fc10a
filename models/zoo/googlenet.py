"""GoogLeNet with batch norm (Szegedy et al., "Going Deeper with Convolutions", 2015).

The state dict has the keys and shapes of torchvision's `googlenet`, so that public weights load. As in torchvision, the
"5×5" branches have 3×3 kernels, pools round their output sizes up, and the last pool is 2×2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GoogLeNet(nn.Module):
    """GoogLeNet: nine inception blocks, and two auxiliary classifiers in the middle that only training uses.

    Args:
        n_classes: number of classes.
    """

    #: Names of the modules that predictions do not use. Parameter counts leave them out, and weight files may too.
    training_only = ("aux1", "aux2")

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.conv1 = Convolution(3, 64, 7, stride=2)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = Convolution(64, 64, 1)
        self.conv3 = Convolution(64, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = Inception(192, 64, (96, 128), (16, 32), 32)
        self.inception3b = Inception(256, 128, (128, 192), (32, 96), 64)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = Inception(480, 192, (96, 208), (16, 48), 64)
        self.inception4b = Inception(512, 160, (112, 224), (24, 64), 64)
        self.inception4c = Inception(512, 128, (128, 256), (24, 64), 64)
        self.inception4d = Inception(512, 112, (144, 288), (32, 64), 64)
        self.inception4e = Inception(528, 256, (160, 320), (32, 128), 128)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.inception5a = Inception(832, 256, (160, 320), (32, 128), 128)
        self.inception5b = Inception(832, 384, (192, 384), (48, 128), 128)
        self.aux1 = AuxiliaryHead(512, n_classes)
        self.aux2 = AuxiliaryHead(528, n_classes)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1024, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Map pictures `(batch, 3, height, width)` to logits `(batch, n_classes)`; the study uses 224 × 224 pixels.

        Returns:
            The logits in evaluation mode. In training mode a tuple of the logits and those of the first and the second
            auxiliary head.
        """
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        x = early = self.inception4a(x)
        x = late = self.inception4d(self.inception4c(self.inception4b(x)))
        x = self.maxpool4(self.inception4e(x))
        x = self.inception5b(self.inception5a(x))
        logits = self.fc(self.dropout(x.mean(dim=(2, 3))))
        return (logits, self.aux1(early), self.aux2(late)) if self.training else logits


class Convolution(nn.Module):
    """Convolution without bias, batch norm and ReLU.

    Args:
        channels: input channels.
        filters: output channels.
        kernel: side of the square kernel, odd; the padding is half of it.
        stride: stride along both axes.
    """

    def __init__(self, channels: int, filters: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(filters, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, height, width)` to `(batch, filters, ceil(height / stride), ceil(width / stride))`."""
        return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    """Inception block: four branches whose maps are concatenated along the channels.

    The branches are a 1×1 convolution; a 3×3 and a "5×5" convolution, each behind a 1×1 one that reduces the channels;
    and a 3×3 max-pool with a 1×1 convolution.

    Args:
        channels: input channels.
        filters_1x1: filters of the first branch.
        filters_3x3, filters_5x5: (reduced channels, filters) of the second and the third branch.
        filters_pool: filters of the last branch.
    """

    def __init__(
        self,
        channels: int,
        filters_1x1: int,
        filters_3x3: tuple[int, int],
        filters_5x5: tuple[int, int],
        filters_pool: int,
    ) -> None:
        super().__init__()
        self.branch1 = Convolution(channels, filters_1x1, 1)
        self.branch2 = nn.Sequential(Convolution(channels, filters_3x3[0], 1), Convolution(*filters_3x3, 3))
        self.branch3 = nn.Sequential(Convolution(channels, filters_5x5[0], 1), Convolution(*filters_5x5, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), Convolution(channels, filters_pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, height, width)` to `(batch, filters of all branches, height, width)`."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class AuxiliaryHead(nn.Module):
    """Auxiliary classifier on an intermediate map; its loss brings gradients to the layers before the map.

    Args:
        channels: input channels.
        n_classes: number of classes.
    """

    def __init__(self, channels: int, n_classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.conv = Convolution(channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, height, width)` to logits `(batch, n_classes)`."""
        return self.fc2(self.dropout(F.relu(self.fc1(self.conv(self.pool(x)).flatten(1)))))
