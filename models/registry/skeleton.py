"""Networks without weights, to count and compare them by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


def n_params(build: Callable[[int], nn.Module], n_classes: int) -> int:
    """Trainable parameters of the network that `build` makes, without those of modules it names `training_only`."""
    model = skeleton(build, n_classes)
    aside = tuple(f"{name}." for name in getattr(model, "training_only", ()))
    counted = (p.numel() for name, p in model.named_parameters() if p.requires_grad and not name.startswith(aside))
    return sum(counted)


def skeleton(build: Callable[[int], nn.Module], n_classes: int) -> nn.Module:
    """The network that `build` makes, on the meta device: no memory for its weights, no time to draw them."""
    with torch.device("meta"), _Undrawn():
        return build(n_classes)


class _Undrawn(TorchFunctionMode):
    """Leaves out normal draws: the first one on the meta device imports PyTorch's compiler, which takes a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in ("normal_", "kaiming_normal_"):  # a tensor's method, or a function of torch.nn.init
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
