"""Xu et al., "Research on Music Genre Classification Based on Residual Network", 2022: MobileNet on STFT pictures.

The version is not named; MobileNetV3-Large is the one whose size with 8 classes is the printed 16.2 MB. Its state dict
has the keys and shapes of the reference implementation (torchvision), so that public weights load.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.layers import BatchNorm2d
from models.registry import InputSpec, system

_PICTURE = InputSpec("picture", features=("stft",))

# Howard et al., "Searching for MobileNetV3", 2019, Table 1: kernel, expansion, output channels, squeeze-and-excitation,
# hard-swish (else ReLU), stride.
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


class MobileNetV3(nn.Module):
    """MobileNetV3-Large."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 16
        for kernel, expansion, filters, squeeze, swish, stride in _V3_LARGE:
            blocks.append(InvertedResidual(channels, kernel, expansion, filters, squeeze, swish, stride))
            channels = filters
        self.features = nn.Sequential(
            _convolution(3, 16, 3, nn.Hardswish, stride=2), *blocks, _convolution(channels, 960, 1, nn.Hardswish)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(960, 1280), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1280, n_classes)
        )
        self.apply(_init)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures `(batch, 3, height, width)` to logits `(batch, n_classes)`; the study's are 224 × 224."""
        return self.classifier(self.pool(self.features(x)).flatten(1))


class InvertedResidual(nn.Module):
    """Widen by 1×1, convolve each channel by itself, weigh the channels, narrow by 1×1; plus the input if it fits."""

    def __init__(
        self, channels: int, kernel: int, expansion: int, filters: int, squeeze: bool, swish: bool, stride: int
    ) -> None:
        super().__init__()
        activation = nn.Hardswish if swish else nn.ReLU
        layers: list[nn.Module] = []
        if expansion != channels:
            layers.append(_convolution(channels, expansion, 1, activation))
        layers.append(_convolution(expansion, expansion, kernel, activation, stride, groups=expansion))
        if squeeze:
            layers.append(SqueezeExcitation(expansion, _round8(expansion / 4)))
        layers.append(_convolution(expansion, filters, 1, None))
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and channels == filters

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, height, width)` to `(batch, filters, ceil(height / stride), ceil(width / stride))`."""
        y = self.block(x)
        return x + y if self.residual else y


class SqueezeExcitation(nn.Module):
    """Channels scaled by a gate in [0, 1] that sees the mean of each.

    The reference layout makes its two dense layers 1×1 convolutions.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, height, width)` to the same shape."""
        gate = self.fc2(nn.functional.relu(self.fc1(self.pool(x))))
        return x * nn.functional.hardsigmoid(gate)


def _convolution(
    channels: int, filters: int, kernel: int, activation: type[nn.Module] | None, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution without bias, batch norm (the reference has Keras's constants), activation."""
    layers = [
        nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        BatchNorm2d(filters),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


def _round8(width: float) -> int:
    """The nearest multiple of 8, but not less than nine tenths of `width`."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def _init(module: nn.Module) -> None:
    """Random weights as the reference draws them."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


@system("xu2022/mobilenet", input=_PICTURE)
def mobilenet(n_classes: int) -> nn.Module:
    """MobileNetV3-Large; 4,212,280 parameters at 8 classes."""
    return MobileNetV3(n_classes)
