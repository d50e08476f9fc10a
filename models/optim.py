"""Optimisers, their schedules and losses, as recipes name them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam
from torch.optim import Optimizer as TorchOptimizer
from torch.optim.lr_scheduler import LambdaLR

from models.recipes import Optimizer

Loss = Callable[[Tensor, Tensor], Tensor]


def build_optimizer(recipe: Optimizer, parameters: Iterable[torch.nn.Parameter]) -> tuple[TorchOptimizer, LambdaLR]:
    """The optimiser and the schedule of its learning rate, which is stepped once per update."""
    optimizer = Adam(parameters, recipe.lr, betas=recipe.betas, eps=recipe.eps, weight_decay=recipe.weight_decay)
    return optimizer, LambdaLR(optimizer, lambda update: 1 / (1 + recipe.decay * update))


def binary_on_softmax(logits: Tensor, target: Tensor) -> Tensor:
    """Keras `binary_crossentropy` on softmax outputs: mean over the classes of "this class or not".

    kth2020's networks were trained so; a uniform prediction of 8 classes scores 0.3768.

    Args:
        logits: `(batch, classes)`.
        target: class indices, int64 `(batch,)`.
    """
    tiny = 1e-7  # where Keras cuts probabilities off
    p = logits.float().softmax(dim=1).clamp(tiny, 1 - tiny)
    chosen = F.one_hot(target, logits.shape[1]).bool()
    return -torch.where(chosen, p.log(), (-p).log1p()).mean()


#: Losses of logits `(batch, classes)` and class indices `(batch,)`, by their names in recipes.
LOSSES: dict[str, Loss] = {"cross-entropy": F.cross_entropy, "binary-on-softmax": binary_on_softmax}
