"""Networks of the registry with seeded weights, and random inputs for them."""

from __future__ import annotations

import torch
from torch import nn

from mgc.models.registry import systems

#: Ids of all neural systems.
IDS = [system.id for system in systems.systems() if system.kind == "neural"]
#: Shape of a picture; smaller than the study's, for speed.
PICTURE = (3, 64, 64)


def random_batch(system: systems.System, size: int, seed: int = 0) -> list[torch.Tensor]:
    """Draw the arguments of a system's module: one normal tensor `(size, *shape)` per input."""
    shapes = [PICTURE if spec.adapter == "picture" else spec.shape for spec in system.inputs]
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, *shape, generator=generator) for shape in shapes]


def build(system: systems.System, n_classes: int, seed: int = 0) -> nn.Module:
    """Build a system's module after seeding PyTorch."""
    torch.manual_seed(seed)
    return system.build(n_classes)
