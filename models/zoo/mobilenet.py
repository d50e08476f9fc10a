"""MobileNets: V1 and V2 with width multiplier 1, and V3-Large.

The state dicts of V2 and V3 have the keys and shapes of torchvision's `mobilenet_v2` and `mobilenet_v3_large`, so that
public weights load. torchvision has no V1; its keys here follow V2's.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from mgc.models.zoo.layers import BatchNorm2d

# Howard et al., "MobileNets", 2017, Table 1: output channels and stride of each depthwise separable block.
_V1 = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)

# Sandler et al., "MobileNetV2", 2018, Table 2: expansion factor, output channels, number of blocks, stride of the first
# block.
_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

# Howard et al., "Searching for MobileNetV3", 2019, Table 1: kernel, expanded channels, output channels,
# squeeze-and-excitation, hard-swish (else ReLU), stride.
_V3_LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


class MobileNetV1(nn.Module):
    """MobileNetV1: a convolution and 13 depthwise separable blocks.

    Args:
        n_classes: number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_convolution(3, 32, 3, nn.ReLU, stride=2)]
        channels = 32
        for filters, stride in _V1:
            depthwise = _convolution(channels, channels, 3, nn.ReLU, stride, groups=channels)
            blocks.append(nn.Sequential(depthwise, _convolution(channels, filters, 1, nn.ReLU)))
            channels = filters
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, n_classes)
        self.apply(_init)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures `(batch, 3, height, width)` to logits `(batch, n_classes)`; the study uses 224 × 224 pixels."""
        return self.classifier(self.features(x).mean(dim=(2, 3)))


class MobileNetV2(nn.Module):
    """MobileNetV2: 17 inverted residual blocks with linear bottlenecks.

    Args:
        n_classes: number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_convolution(3, 32, 3, nn.ReLU6, stride=2)]
        channels = 32
        for expansion, filters, count, stride in _V2:
            for i in range(count):
                blocks.append(LinearBottleneck(channels, expansion, filters, 1 if i else stride))
                channels = filters
        self.features = nn.Sequential(*blocks, _convolution(channels, 1280, 1, nn.ReLU6))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, n_classes))
        self.apply(_init)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures `(batch, 3, height, width)` to logits `(batch, n_classes)`; the study uses 224 × 224 pixels."""
        return self.classifier(self.features(x).mean(dim=(2, 3)))


class LinearBottleneck(nn.Module):
    """V2's inverted residual block with a linear bottleneck.

    A 1×1 convolution expands the channels, a 3×3 depthwise one filters them, and a 1×1 one without activation projects
    them back. The input is added if its shape equals the output's.

    Args:
        channels: input channels.
        expansion: expansion factor; 1 leaves out the expanding convolution.
        filters: output channels.
        stride: stride of the depthwise convolution.
    """

    def __init__(self, channels: int, expansion: int, filters: int, stride: int) -> None:
        super().__init__()
        width = channels * expansion
        widen = [_convolution(channels, width, 1, nn.ReLU6)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *widen,
            _convolution(width, width, 3, nn.ReLU6, stride, groups=width),
            nn.Conv2d(width, filters, 1, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.residual = stride == 1 and channels == filters

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, height, width)` to `(batch, filters, ceil(height / stride), ceil(width / stride))`."""
        y = self.conv(x)
        return x + y if self.residual else y


class MobileNetV3(nn.Module):
    """MobileNetV3-Large: 15 inverted residual blocks, some with squeeze-and-excitation.

    Args:
        n_classes: number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 16
        for kernel, expansion, filters, squeeze, swish, stride in _V3_LARGE:
            blocks.append(InvertedResidual(channels, kernel, expansion, filters, squeeze, swish, stride))
            channels = filters
        self.features = nn.Sequential(
            _keras_convolution(3, 16, 3, nn.Hardswish, stride=2),
            *blocks,
            _keras_convolution(channels, 960, 1, nn.Hardswish),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(960, 1280), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1280, n_classes)
        )
        self.apply(_init)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures `(batch, 3, height, width)` to logits `(batch, n_classes)`; the study uses 224 × 224 pixels."""
        return self.classifier(self.pool(self.features(x)).flatten(1))


class InvertedResidual(nn.Module):
    """V3's inverted residual block: V2's with a choice of kernel and activation, and optional squeeze-and-excitation.

    Args:
        channels: input channels.
        kernel: side of the depthwise kernel.
        expansion: channels of the depthwise convolution; if equal to `channels`, the expanding convolution is left out.
        filters: output channels.
        squeeze: whether squeeze-and-excitation follows the depthwise convolution.
        swish: whether the activation is hard-swish instead of ReLU.
        stride: stride of the depthwise convolution.
    """

    def __init__(
        self, channels: int, kernel: int, expansion: int, filters: int, squeeze: bool, swish: bool, stride: int
    ) -> None:
        super().__init__()
        activation = nn.Hardswish if swish else nn.ReLU
        layers: list[nn.Module] = []
        if expansion != channels:
            layers.append(_keras_convolution(channels, expansion, 1, activation))
        layers.append(_keras_convolution(expansion, expansion, kernel, activation, stride, groups=expansion))
        if squeeze:
            layers.append(SqueezeExcitation(expansion, _round8(expansion / 4)))
        layers.append(_keras_convolution(expansion, filters, 1, None))
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and channels == filters

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, height, width)` to `(batch, filters, ceil(height / stride), ceil(width / stride))`."""
        y = self.block(x)
        return x + y if self.residual else y


class SqueezeExcitation(nn.Module):
    """V3's squeeze-and-excitation: scale each channel by a hard-sigmoid gate, computed from every channel's mean.

    The two dense layers are 1×1 convolutions, as in torchvision's state dict.

    Args:
        channels: input and output channels.
        squeezed: channels between the two layers.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of a map `(batch, channels, height, width)`; the shape stays."""
        gate = self.fc2(nn.functional.relu(self.fc1(self.pool(x))))
        return x * nn.functional.hardsigmoid(gate)


def _convolution(
    channels: int,
    filters: int,
    kernel: int,
    activation: type[nn.Module] | None,
    stride: int = 1,
    groups: int = 1,
    norm: type[nn.BatchNorm2d] = nn.BatchNorm2d,
) -> nn.Sequential:
    """Build a convolution without bias, a batch norm and, unless `activation` is None, an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        norm(filters),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


#: Convolution of V3, whose batch norm has Keras's constants in torchvision, too; V1 and V2 have PyTorch's.
_keras_convolution = partial(_convolution, norm=BatchNorm2d)


def _round8(width: float) -> int:
    """Round a width to the nearest multiple of 8 that is at least nine tenths of it."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def _init(module: nn.Module) -> None:
    """Initialise a convolution or dense layer as torchvision's MobileNets do."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
