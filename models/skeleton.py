"""Networks without weights, to count them by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


def n_params(build: Callable[[int], nn.Module], n_classes: int) -> int:
    """Trainable parameters of the network that `build` makes, found without memory for them or time to draw them."""
    with torch.device("meta"), _Undrawn():
        model = build(n_classes)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


class _Undrawn(TorchFunctionMode):
    """Leaves out normal draws: the first one on the meta device imports PyTorch's compiler, which takes a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in ("normal_", "kaiming_normal_"):  # a tensor's method, or a function of torch.nn.init
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
