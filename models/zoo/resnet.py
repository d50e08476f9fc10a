"""ResNet and ResNeXt with bottleneck blocks, with or without attention.

The state dicts have the keys and shapes of torchvision's `resnet101` and `resnext101_32x8d`, so that public weights
load.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

#: Ratio of a block's output channels to the width of its stage.
EXPANSION = 4

#: Constructor of an attention module from its number of channels.
Attention = Callable[[int], nn.Module]


class Bottleneck(nn.Module):
    """Bottleneck block: 1×1, 3×3 and 1×1 convolutions, each with batch norm, plus the input.

    The stride is that of the 3×3 convolution, as in torchvision, and not of the first 1×1 convolution, as in the paper.

    Args:
        channels: input channels.
        width: width of the stage; the block has `4 * width` output channels.
        stride: stride of the 3×3 convolution.
        groups: groups of the 3×3 convolution.
        width_per_group: channels per group in a stage of width 64.
        attention: constructor of the module between the last batch norm and the sum; None for no attention.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int = 1,
        groups: int = 1,
        width_per_group: int = 64,
        attention: Attention | None = None,
    ) -> None:
        super().__init__()
        inner, filters = width * width_per_group // 64 * groups, width * EXPANSION
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, filters, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(filters)
        self.attention = attention(filters) if attention else None
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != filters:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, height, width)` to 4 * `width` channels and `ceil(size / stride)` along both axes."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.attention is not None:
            y = self.attention(y)
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """ResNet (He et al., "Deep Residual Learning for Image Recognition", 2016), or ResNeXt with more than one group.

    ResNeXt: Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", 2017.

    Args:
        blocks: number of blocks in each of the four stages; 3-4-23-3 is ResNet-101.
        n_classes: number of classes.
        groups, width_per_group: see `Bottleneck`; 32 and 8 make ResNeXt 32x8d.
        attention: see `Bottleneck`; None for no attention.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        n_classes: int,
        groups: int = 1,
        width_per_group: int = 64,
        attention: Attention | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)

        def stage(channels: int, width: int, count: int, stride: int) -> nn.Sequential:
            first = Bottleneck(channels, width, stride, groups, width_per_group, attention)
            rest = [
                Bottleneck(width * EXPANSION, width, 1, groups, width_per_group, attention) for _ in range(count - 1)
            ]
            return nn.Sequential(first, *rest)

        self.layer1 = stage(64, 64, blocks[0], stride=1)
        self.layer2 = stage(256, 128, blocks[1], stride=2)
        self.layer3 = stage(512, 256, blocks[2], stride=2)
        self.layer4 = stage(1024, 512, blocks[3], stride=2)
        self.fc = nn.Linear(2048, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures `(batch, 3, height, width)` to logits `(batch, n_classes)`; the study uses 224 × 224 pixels."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(dim=(2, 3)))
