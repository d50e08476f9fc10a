"""Gradual unfreezing: pretrained blocks stay as they are at first, and are trained one after the other from the top.

The method is that of Howard and Ruder, "Universal language model fine-tuning for text classification", ACL 2018,
section 3.3. The blocks of a network are its children that have weights, from the input up.
"""

from __future__ import annotations

from torch import nn


def blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of a network, from the input up; the last one is its head."""
    return [child for child in model.children() if any(True for _ in child.parameters())]


def n_thawed(n_blocks: int, every: int, epoch: int) -> int:
    """Return how many blocks are trained in an epoch, counted from the head down.

    Args:
        n_blocks: number of blocks of the network.
        every: epochs after which one more block is trained; 0 trains all from the beginning.
        epoch: number of the epoch, from 0.
    """
    return min(1 + epoch // every, n_blocks) if every else n_blocks


def set_training(model: nn.Module, every: int, epoch: int) -> int:
    """Set the blocks of a network that an epoch trains to training mode, and freeze the others.

    The weights of a frozen block need no gradients, and it computes as in evaluation: without dropout, and with its
    batch-norm statistics as they are.

    Args:
        model: the network.
        every, epoch: see `n_thawed`.

    Returns:
        The number of blocks that are trained.
    """
    model.train()
    parts = blocks(model)
    n = n_thawed(len(parts), every, epoch)
    for number, block in enumerate(parts):
        is_trained = number >= len(parts) - n
        block.requires_grad_(is_trained)
        block.train(is_trained)
    return n
