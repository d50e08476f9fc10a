"""Every network of the registry with fixed weights, and random inputs for it."""

from __future__ import annotations

import torch
from torch import nn

from mgc.models.registry import systems

IDS = [system.id for system in systems.systems() if system.kind == "neural"]
PICTURE = (3, 64, 64)  # smaller than the study's, to be quick


def random_batch(system: systems.System, size: int, seed: int = 0) -> list[torch.Tensor]:
    """The arguments of its module."""
    shapes = [PICTURE if needs.adapter == "picture" else needs.shape for needs in system.inputs]
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, *shape, generator=generator) for shape in shapes]


def build(system: systems.System, n_classes: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return system.build(n_classes)
