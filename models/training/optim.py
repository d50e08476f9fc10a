"""Optimisers, learning rate schedules and losses, built from a recipe."""

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

_OPTIMIZERS: dict[str, Any] = {"adam": Adam, "adamw": AdamW, "rmsprop": RMSprop, "sgd": SGD}


def build_optimizer(recipe: Optimizer, parameters: Iterable[torch.nn.Parameter]) -> TorchOptimizer:
    """Build the optimiser of a recipe.

    Args:
        recipe: optimiser name and settings; a setting that is None is not passed to PyTorch.
        parameters: weights to optimise.
    """
    settings = {"eps": recipe.eps, "betas": recipe.betas, "alpha": recipe.rho, "momentum": recipe.momentum}
    settings = {name: value for name, value in settings.items() if value is not None}
    return _OPTIMIZERS[recipe.name](parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, **settings)


def build_schedule(optimizer: TorchOptimizer, recipe: Training, steps_per_epoch: int) -> ChainedScheduler:
    """Build the learning rate schedule that is stepped after every update.

    The rate is the product of three factors: linear warm-up, the optimiser's hyperbolic decay `1 / (1 + decay * t)`
    after `t` updates, and half a cosine over the whole training.

    Args:
        optimizer: optimiser whose learning rate is scheduled.
        recipe: training settings.
        steps_per_epoch: updates per epoch.
    """
    warmup, decay = recipe.loop.warmup, recipe.optimizer.decay
    schedulers: list[LRScheduler] = [MultiplicativeLR(optimizer, lambda t: (1 + decay * (t - 1)) / (1 + decay * t))]
    if recipe.loop.schedule == "cosine":
        schedulers.append(CosineAnnealingLR(optimizer, recipe.epochs * steps_per_epoch))
    if warmup:
        schedulers.append(LinearLR(optimizer, 1 / warmup, 1.0, warmup - 1))
    return ChainedScheduler(schedulers)


def build_plateau(optimizer: TorchOptimizer, recipe: Training) -> ReduceLROnPlateau | None:
    """Build the plateau schedule that is stepped after every epoch with the monitored metric.

    Returns:
        None unless the recipe's schedule is `plateau`.
    """
    if recipe.loop.schedule != "plateau":
        return None
    loop = recipe.loop
    # threshold=0 counts any improvement, however small, as the choice of the best epoch does.
    return ReduceLROnPlateau(optimizer, recipe.mode, loop.plateau_factor, loop.plateau_patience, threshold=0.0)


def build_loss(recipe: Training, class_weights: Tensor | None) -> Loss:
    """Build the training loss of a recipe: the mean over the slices of a batch, with the recipe's label smoothing.

    Args:
        recipe: training settings.
        class_weights: float32 `(classes,)`: the mean is weighted by the class of each slice; None weighs all alike.
    """
    settings: dict[str, Any] = {}
    if recipe.loop.label_smoothing:
        settings["label_smoothing"] = recipe.loop.label_smoothing
    if class_weights is not None:
        settings["weight"] = class_weights
    return functools.partial(LOSSES[recipe.loss], **settings) if settings else LOSSES[recipe.loss]


def balanced_class_weights(labels: np.ndarray, n_classes: int, device: torch.device) -> Tensor:
    """Weigh each class inversely to its number of training slices, as scikit-learn's `class_weight="balanced"` does.

    Args:
        labels: class index of each training slice, `(slices,)`.
        n_classes: outputs of the network.
        device: device of the training batches.

    Returns:
        float32 `(classes,)`; the mean weight over the training slices is 1.
    """
    counts = np.bincount(labels, minlength=n_classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return torch.tensor(weights, dtype=torch.float32, device=device)


def main_logits(outputs: Outputs) -> Tensor:
    """Return the logits `(batch, classes)` of the main head, which predictions are made from."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def total_and_main_loss(loss: Loss, outputs: Outputs, target: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the loss to minimise, and the part of it that compares with a validation loss.

    Args:
        loss: loss of logits `(batch, classes)` and class indices `(batch,)`.
        outputs: logits `(batch, classes)` of the main head, alone or followed by those of the auxiliary heads.
        target: class indices, int64 `(batch,)`.

    Returns:
        The loss of the main head plus `AUXILIARY_WEIGHT` times that of each auxiliary head; the loss of the main head.
        Without auxiliary heads, both are the same tensor.
    """
    if isinstance(outputs, Tensor):
        main = loss(outputs.float(), target)
        return main, main
    logits, *auxiliary = (head.float() for head in outputs)  # under autocast, heads return half precision
    main = loss(logits, target)
    return main + AUXILIARY_WEIGHT * torch.stack([loss(head, target) for head in auxiliary]).sum(), main


def binary_on_softmax(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Compute Keras's `binary_crossentropy` of softmax outputs: one binary loss per class, averaged over the classes.

    The networks of kth2020 were trained with it; a uniform prediction of 8 classes scores 0.3768.

    Args:
        logits: `(batch, classes)`.
        target: class indices, int64 `(batch,)`.
        weight: class weights `(classes,)`: the mean over the batch is weighted by the class of each slice; None
            weighs all alike.
        label_smoothing: share of each target that is spread over all classes, as in
            `torch.nn.functional.cross_entropy`.

    Returns:
        The mean over the batch, a scalar.
    """
    epsilon = 1e-7  # Keras clips probabilities to [1e-7, 1 - 1e-7]
    p = logits.float().softmax(dim=1).clamp(epsilon, 1 - epsilon)
    one_hot = F.one_hot(target, logits.shape[1]).float()
    smoothed = one_hot * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    losses = -(smoothed * p.log() + (1 - smoothed) * (-p).log1p()).mean(dim=1)
    return losses.mean() if weight is None else (losses * weight[target]).sum() / weight[target].sum()


#: Losses of logits `(batch, classes)` and class indices `(batch,)`, by the name that recipes use.
LOSSES: dict[str, Loss] = {"cross-entropy": F.cross_entropy, "binary-on-softmax": binary_on_softmax}
