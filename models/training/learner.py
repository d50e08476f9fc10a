"""The learner: a network, and all that changes with it from one update to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mgc.models.data.augment import Augmenter
from mgc.models.data.stream import Batch
from mgc.models.network import Network
from mgc.models.parallel.ranks import ALONE, Ranks
from mgc.models.registry.recipes import Training
from mgc.models.training.optim import (
    build_loss,
    build_optimizer,
    build_plateau,
    build_schedule,
    build_weight,
    main_logits,
    total_loss,
)

_AMP = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Learner:
    """Makes updates of a network as a recipe says.

    Args:
        network: freshly initialised, on the device.
        recipe: how to train.
        labels: class indices of the slices to train on, `(slices,)`.
        n_classes: outputs.
        batches: updates of an epoch.
        device: where batches are.
        augmenter: changes what is learnt from.
        ranks: the processes that make an update together, of the gradient of all their batches as one.

    Attributes:
        parts: everything that has a state.
    """

    def __init__(
        self,
        network: Network,
        recipe: Training,
        labels: np.ndarray,
        n_classes: int,
        batches: int,
        device: torch.device,
        augmenter: Augmenter | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._ranks = ranks
        self._recipe, self._network, self._device, self._augmenter = recipe, network, device, augmenter
        self._loss = build_loss(recipe, labels, n_classes, device)
        self._weight = build_weight(recipe, labels, n_classes, device)
        self.optimizer = build_optimizer(recipe.optimizer, network.model.parameters())
        self._schedule = build_schedule(self.optimizer, recipe, batches)
        self._plateau = build_plateau(self.optimizer, recipe)
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.loop.amp == "fp16")
        average = get_ema_multi_avg_fn(recipe.loop.ema)
        self._averaged = AveragedModel(network, multi_avg_fn=average, use_buffers=True) if recipe.loop.ema else None
        # A graph for each size of batch: one for any size would depend on which comes first, hence on interruptions.
        forward = ranks.parallel(network)
        self._forward = torch.compile(forward, dynamic=False) if recipe.loop.compile else forward
        parts = {
            "model": network.model,
            "inputs": network.inputs,
            "optimizer": self.optimizer,
            "schedule": self._schedule,
            "plateau": self._plateau,
            "scaler": self._scaler,
            "averaged": self._averaged,
        }
        self.parts: dict[str, Any] = {name: part for name, part in parts.items() if part is not None}

    @property
    def network(self) -> Network:
        """The network to validate and to keep: the average, where there is one."""
        return cast(Network, self._averaged.module) if self._averaged is not None else self._network

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        return float(self.optimizer.param_groups[0]["lr"])

    @lr.setter
    def lr(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def update(self, batch: Batch, epoch: int) -> tuple[float, int]:
        """Learn from a batch.

        Returns:
            The mean loss, which may be no number, and how many of the slices are recognised. Of several processes, what
            each adds to the mean loss of all their batches.
        """
        frames, others, share = batch.frames, batch.labels, 1.0
        if self._augmenter is not None:
            frames, others, share = self._augmenter(batch, epoch)
        amp = _AMP[self._recipe.loop.amp]
        with torch.autocast(self._device.type, amp, enabled=amp is not None):
            output = self._forward(frames)
        loss = total_loss(self._loss, output, batch.labels)
        if share < 1:
            loss = share * loss + (1 - share) * total_loss(self._loss, output, others)
        loss = loss * self._part(batch.labels)
        self.optimizer.zero_grad()
        # Gradients are means over the processes, where the sum is wanted.
        self._scaler.scale(loss * self._ranks.size).backward()
        if self._recipe.loop.clip:
            self._scaler.unscale_(self.optimizer)
            clip_grad_norm_(self._network.model.parameters(), self._recipe.loop.clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self._schedule.step()
        if self._averaged is not None:
            self._averaged.update_parameters(self._network)
        return loss.item(), int((main_logits(output).argmax(dim=1) == batch.labels).sum())

    def _part(self, labels: Tensor) -> float:
        """What part of the slices of all processes these are, each slice weighing what its class does in the loss."""
        if self._ranks.size == 1:
            return 1.0
        ours = len(labels) if self._weight is None else float(self._weight[labels].sum())
        (whole,) = self._ranks.total(ours)
        return ours / whole

    def rehearse(self, shapes: Sequence[tuple[int, int, int]]) -> None:
        """Use the memory of an update, without making one.

        Args:
            shapes: `(batch, frames, bins)` of each input.

        Raises:
            torch.OutOfMemoryError: there is not enough.
        """
        self.optimizer.zero_grad()
        weights = [weight for weight in self._network.model.parameters() if weight.requires_grad]
        # The first update makes the optimiser's moments: of Adam's two for each weight, of the others' no more.
        moments = [torch.empty_like(weight) for weight in weights * 2] if not self.optimizer.state else []
        frames = [torch.zeros(shape, device=self._device) for shape in shapes]
        labels = torch.zeros(shapes[0][0], dtype=torch.int64, device=self._device)
        amp = _AMP[self._recipe.loop.amp]
        with torch.autocast(self._device.type, amp, enabled=amp is not None):
            # Not with the other processes, which do not rehearse.
            forward = self._forward if self._ranks.size == 1 else self._network
            output = forward(frames[0] if len(frames) == 1 else tuple(frames))
        total_loss(self._loss, output, labels).backward()
        del moments

    def close(self, scores: dict[str, float]) -> None:
        """Note the scores of an epoch."""
        if self._plateau is not None:
            self._plateau.step(scores[self._recipe.monitor])
