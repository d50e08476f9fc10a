"""Output shapes and numbers of parameters of the modules of a network."""

import torch
from torch import nn


def output_shapes(model: nn.Module, names: list[str], *shape: int) -> dict[str, tuple[int, ...]]:
    """Return the output shape, without the batch axis, of the named modules for a random input.

    Args:
        model: network; on the meta device it computes shapes but no values.
        names: names of modules of the network.
        shape: shape of the input without the batch axis.
    """
    shapes = {}

    def record_shape(name: str) -> None:
        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            shapes[name] = tuple(output.shape[1:])

        model.get_submodule(name).register_forward_hook(hook)

    for name in names:
        record_shape(name)
    with torch.no_grad():
        model.eval()(torch.randn(1, *shape, device=next(model.parameters()).device))
    return shapes


def n_params(model: nn.Module, name: str) -> int:
    """Return the number of parameters of the named module."""
    return sum(parameter.numel() for parameter in model.get_submodule(name).parameters())
