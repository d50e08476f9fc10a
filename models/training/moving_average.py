"""The exponential moving average of a network's weights."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """Exponential moving average of weights, running statistics and counters.

    The counters of batch normalisation belong to the statistics: `layers.bias_corrected_batch_norm` finds the share of
    the initial values by them. They are rounded down.

    PyTorch's own update sends the number of updates to the device each time, and a GPU's host waits for that. This one
    keeps it on the host.

    Args:
        network: network to average; the average begins as a copy of it.
        decay: share of the average that an update keeps, between 0 and 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Average the weights of the network in; the first time, copy them."""
        is_first = not self.n_averaged
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for average, value in zip(_tensors(self.module), _tensors(model), strict=True):
            if is_first:
                average.copy_(value)
            elif not average.is_floating_point():
                average.copy_(self._decay * average + (1 - self._decay) * value)
            else:
                averages.append(average)
                values.append(value)
        if averages:
            torch._foreach_lerp_(averages, values, 1 - self._decay)
        self.n_averaged += 1


def _tensors(network: nn.Module) -> itertools.chain[Tensor]:
    return itertools.chain(network.parameters(), network.buffers())
