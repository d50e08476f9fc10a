"""Optimisers, their schedules and losses, as recipes name them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.optim import Optimizer as TorchOptimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    ReduceLROnPlateau,
)

from mgc.models.network import Outputs
from mgc.models.registry.recipes import Optimizer, Training

Loss = Callable[[Tensor, Tensor], Tensor]
#: Weight of the loss of each auxiliary head (Szegedy et al., "Going Deeper with Convolutions", 2015, section 5).
AUXILIARY_WEIGHT = 0.3

_KINDS: dict[str, Any] = {"adam": Adam, "adamw": AdamW, "rmsprop": RMSprop, "sgd": SGD}


def build_optimizer(recipe: Optimizer, parameters: Iterable[torch.nn.Parameter]) -> TorchOptimizer:
    """The optimiser of a recipe."""
    settings = {"eps": recipe.eps, "betas": recipe.betas, "alpha": recipe.rho, "momentum": recipe.momentum}
    own = {name: value for name, value in settings.items() if value is not None}
    return _KINDS[recipe.name](parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, **own)


def build_schedule(optimizer: TorchOptimizer, recipe: Training, epoch: int) -> ChainedScheduler:
    """The schedule of the learning rate that is stepped once per update: warm-up, decay and cosine, multiplied.

    Args:
        optimizer: whose rate it is.
        recipe: how to train.
        epoch: updates of an epoch.
    """
    warmup, decay = recipe.loop.warmup, recipe.optimizer.decay
    parts: list[LRScheduler] = [MultiplicativeLR(optimizer, lambda t: (1 + decay * (t - 1)) / (1 + decay * t))]
    if recipe.loop.schedule == "cosine":
        parts.append(CosineAnnealingLR(optimizer, recipe.epochs * epoch))
    if warmup:
        parts.append(LinearLR(optimizer, 1 / warmup, 1.0, warmup - 1))
    return ChainedScheduler(parts)


def build_plateau(optimizer: TorchOptimizer, recipe: Training) -> ReduceLROnPlateau | None:
    """The schedule that is stepped once per epoch, by the monitored metric, where the recipe has one."""
    if recipe.loop.schedule != "plateau":
        return None
    loop = recipe.loop
    # Better means what it does for the epoch that is kept: by however little.
    return ReduceLROnPlateau(optimizer, recipe.mode, loop.plateau_factor, loop.plateau_patience, threshold=0.0)


def build_loss(recipe: Training, labels: np.ndarray, n_classes: int, device: torch.device) -> Loss:
    """The loss that a recipe trains with: of a batch, the mean over its slices, weighted where classes weigh.

    Args:
        recipe: its loss and its label smoothing.
        labels, n_classes, device: see `build_weight`.
    """
    settings: dict[str, Any] = {}
    if recipe.loop.label_smoothing:
        settings["label_smoothing"] = recipe.loop.label_smoothing
    if (weight := build_weight(recipe, labels, n_classes, device)) is not None:
        settings["weight"] = weight
    return functools.partial(LOSSES[recipe.loss], **settings) if settings else LOSSES[recipe.loss]


def build_weight(recipe: Training, labels: np.ndarray, n_classes: int, device: torch.device) -> Tensor | None:
    """What each class weighs, float32 `(classes,)`; None where all weigh the same.

    Args:
        recipe: whether classes weigh.
        labels: class indices of the slices to train on, `(slices,)`: a class weighs as little as it has many of them,
            on average over the slices 1.
        n_classes: outputs of the network.
        device: where batches are.
    """
    if not recipe.loop.class_weights:
        return None
    counts = np.bincount(labels, minlength=n_classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return torch.tensor(weights, dtype=torch.float32, device=device)


def main_logits(outputs: Outputs) -> Tensor:
    """The logits `(batch, classes)` that predictions are made from."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def total_loss(loss: Loss, outputs: Outputs, target: Tensor) -> Tensor:
    """The loss of a network's logits and, by their weight, those of its auxiliary heads."""
    if isinstance(outputs, Tensor):
        return loss(outputs.float(), target)
    logits, *auxiliary = (each.float() for each in outputs)  # under autocast they are not
    return loss(logits, target) + AUXILIARY_WEIGHT * torch.stack([loss(each, target) for each in auxiliary]).sum()


def binary_on_softmax(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Keras `binary_crossentropy` on softmax outputs: mean over the classes of "this class or not".

    kth2020's networks were trained so; a uniform prediction of 8 classes scores 0.3768.

    Args:
        logits: `(batch, classes)`.
        target: class indices, int64 `(batch,)`.
        weight: of each class, `(classes,)`; a slice weighs as its own class does.
        label_smoothing: share of a target that all classes get alike, as in `torch.nn.functional.cross_entropy`.
    """
    tiny = 1e-7  # where Keras cuts probabilities off
    p = logits.float().softmax(dim=1).clamp(tiny, 1 - tiny)
    hot = F.one_hot(target, logits.shape[1]).float()
    hot = hot * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    losses = -(hot * p.log() + (1 - hot) * (-p).log1p()).mean(dim=1)
    return losses.mean() if weight is None else (losses * weight[target]).sum() / weight[target].sum()


#: Losses of logits `(batch, classes)` and class indices `(batch,)`, by their names in recipes.
LOSSES: dict[str, Loss] = {"cross-entropy": F.cross_entropy, "binary-on-softmax": binary_on_softmax}
