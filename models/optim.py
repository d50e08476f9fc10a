"""Optimisers, their schedules and losses, as recipes name them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam, RMSprop
from torch.optim import Optimizer as TorchOptimizer
from torch.optim.lr_scheduler import LambdaLR

from models.recipes import Optimizer

Loss = Callable[[Tensor, Tensor], Tensor]
#: What a network puts out in training: logits `(batch, classes)`, alone or before those of its auxiliary heads.
Outputs = Tensor | tuple[Tensor, ...]

#: Weight of the loss of each auxiliary head (Szegedy et al., "Going Deeper with Convolutions", 2015, section 5).
AUXILIARY_WEIGHT = 0.3


def build_optimizer(recipe: Optimizer, parameters: Iterable[torch.nn.Parameter]) -> tuple[TorchOptimizer, LambdaLR]:
    """The optimiser and the schedule of its learning rate, which is stepped once per update."""
    settings: dict[str, Any] = {"lr": recipe.lr, "eps": recipe.eps, "weight_decay": recipe.weight_decay}
    optimizer: TorchOptimizer
    if recipe.name == "rmsprop":
        optimizer = RMSprop(parameters, **settings | {"alpha": recipe.rho})
    else:
        optimizer = Adam(parameters, **settings | {"betas": recipe.betas})
    return optimizer, LambdaLR(optimizer, lambda update: 1 / (1 + recipe.decay * update))


def main_logits(outputs: Outputs) -> Tensor:
    """The logits `(batch, classes)` that predictions are made from."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def total_loss(loss: Loss, outputs: Outputs, target: Tensor) -> Tensor:
    """The loss of a network's logits and, by their weight, those of its auxiliary heads."""
    if isinstance(outputs, Tensor):
        return loss(outputs, target)
    logits, *auxiliary = outputs
    return loss(logits, target) + AUXILIARY_WEIGHT * torch.stack([loss(each, target) for each in auxiliary]).sum()


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
