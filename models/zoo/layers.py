"""Keras layers in PyTorch: `same` padding, batch norm, recurrent layers and initial weights.

kth2020, ubc2020 and vit2021 were written in Keras, whose defaults differ from PyTorch's. Each layer here has the state
dict of the PyTorch layer that it extends.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Compute the padding (before, after) of one axis that gives `ceil(size / stride)` outputs.

    An odd total puts the extra position after, as in TensorFlow.
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad the height and width of `x` `(batch, channels, height, width)` as Keras's `same` does for a square kernel."""
    top, bottom = same_padding(x.shape[-2], kernel, stride)
    left, right = same_padding(x.shape[-1], kernel, stride)
    return F.pad(x, (left, right, top, bottom), value=value)


class SameConv2d(nn.Conv2d):
    """Keras `Conv2D(padding="same")` with a square kernel.

    On even sizes with stride 2, `same` pads unevenly. PyTorch's `padding=kernel // 2` gives the same shape but samples
    one position earlier.
    """

    def __init__(self, channels: int, filters: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, filters, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, height, width)` to `(batch, filters, ceil(height / stride), ceil(width / stride))`."""
        return super().forward(pad_same(x, self.kernel_size[0], self.stride[0]))


class SameMaxPool2d(nn.Module):
    """Keras `MaxPooling2D(padding="same")` with a square window; the padding is -inf and never the maximum."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Pool `(batch, channels, height, width)` to `ceil(height / stride)` × `ceil(width / stride)`."""
        return F.max_pool2d(pad_same(x, self.kernel, self.stride, value=-math.inf), self.kernel, self.stride)


#: Keras's batch-norm constants. Keras's momentum of 0.99 weights the old value; PyTorch's momentum weights the new one.
_EPS, _MOMENTUM = 1e-3, 0.01


class BatchNorm1d(nn.BatchNorm1d):
    """Keras `BatchNormalization` of `(batch, channels)`; evaluation corrects the running statistics' bias."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=_EPS, momentum=_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(batch, channels)`; the shape stays. Evaluation calls `bias_corrected_batch_norm`."""
        return super().forward(x) if self.training else bias_corrected_batch_norm(self, x)


class BatchNorm2d(nn.BatchNorm2d):
    """Keras `BatchNormalization` of `(batch, channels, height, width)`; evaluation corrects the statistics' bias."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=_EPS, momentum=_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(batch, channels, height, width)`; the shape stays. Evaluation: `bias_corrected_batch_norm`."""
        return super().forward(x) if self.training else bias_corrected_batch_norm(self, x)


def bias_corrected_batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Normalise by a layer's running statistics, corrected for their bias towards the initial zeros and ones.

    Each update keeps 0.99 of the running statistics. After the 32 updates of an epoch on a small corpus, the initial
    values still make up 72 % of them: xu2022/mobilenet on 1,018 slices then validates at chance for eight epochs,
    although it has memorised its training set. This function removes the initial values' share, as Adam's bias
    correction does for its moments; after 700 updates the share is below a thousandth. Training and the state dict stay
    those of PyTorch's layer.

    Args:
        layer: batch-norm layer with Keras's momentum.
        x: input `(batch, channels, ...)`.

    Returns:
        The normalised input, of the same shape.
    """
    names = "running_mean", "running_var", "num_batches_tracked"
    mean, variance, updates = (layer.get_buffer(name) for name in names)
    initial = torch.where(updates > 0, 0.99**updates, 0.0)
    mean = mean / (1 - initial)
    variance = ((variance - initial) / (1 - initial)).clamp_min(0)
    return F.batch_norm(x, mean, variance, layer.weight, layer.bias, eps=layer.eps)


class LastStateGRU(nn.Module):
    """Keras `GRU(return_sequences=False)`, or `Bidirectional(GRU)`: a GRU that returns its last hidden state.

    TensorFlow 2's GRU has two bias vectors (`reset_after=True`), like PyTorch's; only the order of the gates differs.

    Args:
        input_size: values per step.
        units: hidden size of each direction.
        bidirectional: whether a second GRU reads the sequence backwards.
        layers: number of stacked layers.
    """

    def __init__(self, input_size: int, units: int, bidirectional: bool = False, layers: int = 1) -> None:
        super().__init__()
        self.directions = 2 if bidirectional else 1
        self.gru = nn.GRU(input_size, units, layers, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the last layer's last state for sequences `(batch, steps, input_size)`.

        Returns:
            States `(batch, units)`; with two directions `(batch, 2 * units)`, the forward state first.
        """
        _, states = self.gru(x)
        return states[-self.directions :].transpose(0, 1).flatten(1)


def glorot_uniform_(weight: Tensor) -> Tensor:
    """Fill a weight by Keras's default, `glorot_uniform` (PyTorch's `xavier_uniform_`), in place."""
    return nn.init.xavier_uniform_(weight)


def he_uniform_(weight: Tensor) -> Tensor:
    """Fill a weight by Keras's `he_uniform`, uniform with variance 2 / fan_in, in place."""
    return nn.init.kaiming_uniform_(weight, nonlinearity="relu")


def he_normal_(weight: Tensor) -> Tensor:
    """Fill a weight by Keras's `he_normal` in place.

    The distribution is a normal truncated at two standard deviations and widened to variance 2 / fan_in.
    """
    fan_in = weight[0].numel()  # the first axis of a weight counts outputs
    # A unit normal truncated at ±2 has a standard deviation of 0.87962566; Keras divides by the same number.
    std = math.sqrt(2 / fan_in) / 0.87962566103423978
    return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


@torch.no_grad()
def init_keras(model: nn.Module, kernel: Callable[[Tensor], Tensor] = glorot_uniform_) -> None:
    """Initialise every convolution, dense and recurrent layer of a model as Keras does, in place.

    Args:
        model: module whose layers are initialised.
        kernel: in-place initialiser for the weights of convolutions and dense layers. Recurrent layers always get
            Keras's defaults.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            kernel(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.GRU | nn.LSTM):
            _init_recurrent(module)


def _init_recurrent(module: nn.GRU | nn.LSTM) -> None:
    """Initialise a recurrent layer with Glorot-uniform input and orthogonal recurrent kernels.

    Biases are 0, except those of an LSTM's forget gate, which are 1.
    """
    for name, parameter in module.named_parameters():
        if name.startswith("weight_ih"):
            glorot_uniform_(parameter)
        elif name.startswith("weight_hh"):
            nn.init.orthogonal_(parameter)
        else:
            nn.init.zeros_(parameter)
            # Keras has one bias vector where PyTorch adds two, so only the first gets the 1. Gate order: i, f, g, o.
            if isinstance(module, nn.LSTM) and name.startswith("bias_ih"):
                parameter[module.hidden_size : 2 * module.hidden_size] = 1.0
