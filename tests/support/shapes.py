"""Layer by layer: what a network's modules put out, and how many weights they have."""

import torch
from torch import nn


def output_shapes(model: nn.Module, names: list[str], *shape: int) -> dict[str, tuple[int, ...]]:
    """Output shape, without the batch, of the named modules for one random input of this shape.

    A model on the meta device computes nothing, and has all its shapes.
    """
    found = {}

    def note(name: str) -> None:
        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            found[name] = tuple(output.shape[1:])

        model.get_submodule(name).register_forward_hook(hook)

    for name in names:
        note(name)
    with torch.no_grad():
        model.eval()(torch.randn(1, *shape, device=next(model.parameters()).device))
    return found


def n_params(model: nn.Module, name: str) -> int:
    """Trainable parameters of the named module."""
    return sum(parameter.numel() for parameter in model.get_submodule(name).parameters())
