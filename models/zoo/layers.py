"""Keras layers in PyTorch: `same` padding, batch-norm constants, recurrent layers and initial weights.

kth2020, ubc2020 and vit2021 were written in Keras; with PyTorch's own defaults their networks would be others. The
state dict of each layer is that of the PyTorch layer it extends.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding (before, after) that makes `ceil(size / stride)` outputs; the odd one goes after, as in TensorFlow."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """`x` `(batch, channel, height, width)`, its last two axes padded for a square kernel."""
    top, bottom = same_padding(x.shape[-2], kernel, stride)
    left, right = same_padding(x.shape[-1], kernel, stride)
    return F.pad(x, (left, right, top, bottom), value=value)


class SameConv2d(nn.Conv2d):
    """Keras `Conv2D(padding="same")` with a square kernel.

    On even sizes with stride 2 the padding is lopsided: `padding=kernel // 2` gives the same shape but samples one
    position earlier.
    """

    def __init__(self, channels: int, filters: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, filters, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, height, width)` to `(batch, filters, ceil(height / stride), ceil(width / stride))`."""
        return super().forward(pad_same(x, self.kernel_size[0], self.stride[0]))


class SameMaxPool2d(nn.Module):
    """Keras `MaxPooling2D(padding="same")` with a square window; what is padded never wins."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, height, width)` to `(batch, channels, ceil(height / stride), ceil(width / stride))`."""
        return F.max_pool2d(pad_same(x, self.kernel, self.stride, value=-math.inf), self.kernel, self.stride)


#: Constants of Keras's batch norm. Its momentum of 0.99 is the share of the old value, PyTorch's that of the new one.
_EPS, _MOMENTUM = 1e-3, 0.01


class BatchNorm1d(nn.BatchNorm1d):
    """Keras `BatchNormalization` of `(batch, channels)`, in evaluation by `normalise`."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=_EPS, momentum=_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels)` to the same shape."""
        return super().forward(x) if self.training else normalise(self, x)


class BatchNorm2d(nn.BatchNorm2d):
    """Keras `BatchNormalization` of `(batch, channels, height, width)`, in evaluation by `normalise`."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=_EPS, momentum=_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, height, width)` to the same shape."""
        return super().forward(x) if self.training else normalise(self, x)


def normalise(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Batch norm by a layer's running statistics, without what is left in them of their initial values.

    Each update keeps 0.99 of them. After the 32 updates of an epoch on a small corpus they are still to 72 % the zeros
    and ones they began with: xu2022/mobilenet on 1,018 slices validates at chance for eight epochs, though it has
    learned its training set by heart. That remainder is taken out here, as Adam does with its moments; after 700
    updates it is below a thousandth. Training and the state dict are those of PyTorch's layer.

    Args:
        layer: in evaluation.
        x: `(batch, channels, ...)`.

    Returns:
        The same shape.
    """
    names = "running_mean", "running_var", "num_batches_tracked"
    mean, variance, updates = (layer.get_buffer(name) for name in names)
    initial = torch.where(updates > 0, 0.99**updates, 0.0)
    mean = mean / (1 - initial)
    variance = ((variance - initial) / (1 - initial)).clamp_min(0)
    return F.batch_norm(x, mean, variance, layer.weight, layer.bias, eps=layer.eps)


class LastGRU(nn.Module):
    """Keras `GRU`, or with `both_ways` `Bidirectional(GRU)`, that returns its last state.

    TensorFlow 2's GRU has two bias vectors as PyTorch's has (`reset_after=True`); only the order of the gates differs.

    Args:
        inputs: values per step.
        units: of each direction.
        both_ways: whether a second GRU reads the sequence from its end.
        layers: stacked; all but the last pass on their whole sequence.
    """

    def __init__(self, inputs: int, units: int, both_ways: bool = False, layers: int = 1) -> None:
        super().__init__()
        self.directions = 2 if both_ways else 1
        self.gru = nn.GRU(inputs, units, layers, batch_first=True, bidirectional=both_ways)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, steps, inputs)` to `(batch, units)`, or `(batch, 2 * units)`: the forward state, then the other."""
        _, states = self.gru(x)
        return states[-self.directions :].transpose(0, 1).flatten(1)


def glorot_uniform_(weight: Tensor) -> Tensor:
    """Keras's default kernels."""
    return nn.init.xavier_uniform_(weight)


def he_uniform_(weight: Tensor) -> Tensor:
    """Keras `he_uniform`: uniform with variance 2 / fan_in."""
    return nn.init.kaiming_uniform_(weight, nonlinearity="relu")


def he_normal_(weight: Tensor) -> Tensor:
    """Keras `he_normal`: normal, cut off at two deviations and widened to variance 2 / fan_in."""
    fan_in = weight[0].numel()  # a weight's first axis is its outputs
    # Cutting a unit normal at 2 leaves a deviation of 0.87962566 (Keras divides by the same number).
    std = math.sqrt(2 / fan_in) / 0.87962566103423978
    return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


@torch.no_grad()
def init_keras(model: nn.Module, kernel: Callable[[Tensor], Tensor] = glorot_uniform_) -> None:
    """Initialise every convolution, dense and recurrent layer as Keras does.

    Args:
        model: the layers.
        kernel: draws the weights of convolutions and dense layers; recurrent layers have Keras's defaults.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            kernel(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.GRU | nn.LSTM):
            _init_recurrent(module)


def _init_recurrent(module: nn.GRU | nn.LSTM) -> None:
    """Glorot-uniform kernels, orthogonal recurrent kernels, zero biases but for an LSTM's forget gate, which has 1."""
    for name, parameter in module.named_parameters():
        if name.startswith("weight_ih"):
            glorot_uniform_(parameter)
        elif name.startswith("weight_hh"):
            nn.init.orthogonal_(parameter)
        else:
            nn.init.zeros_(parameter)
            # PyTorch adds two bias vectors where Keras has one: the 1 stands in the first. Gates are i, f, g, o.
            if isinstance(module, nn.LSTM) and name.startswith("bias_ih"):
                parameter[module.hidden_size : 2 * module.hidden_size] = 1.0
