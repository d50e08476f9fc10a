"""Networks on the meta device: parameter counts and tensor shapes without memory for weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


def n_params(build: Callable[[int], nn.Module], n_classes: int) -> int:
    """Count the trainable parameters of a network.

    Args:
        build: builder of the network. Modules that the network lists in an attribute `training_only` are not counted.
        n_classes: number of classes.
    """
    model = build_on_meta(build, n_classes)
    training_only = tuple(f"{name}." for name in getattr(model, "training_only", ()))
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.startswith(training_only)
    )


def build_on_meta(build: Callable[[int], nn.Module], n_classes: int) -> nn.Module:
    """Build a network on the meta device: it has names and shapes, but takes no memory and no time to initialise."""
    with torch.device("meta"), _SkipNormalInit():
        return build(n_classes)


class _SkipNormalInit(TorchFunctionMode):
    """Skip normal initialisers: the first one on the meta device imports PyTorch's compiler, which takes a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in ("normal_", "kaiming_normal_"):  # a method of Tensor, or a function of torch.nn.init
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
