"""The learner: a network with its loss, optimiser and schedules, updated batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from mgc.models.data.augment import Augmenter
from mgc.models.data.stream import Batch
from mgc.models.network import Network
from mgc.models.parallel.ranks import SINGLE_PROCESS, Ranks
from mgc.models.parallel.transfer import Transfer
from mgc.models.registry.recipes import Training
from mgc.models.training import thawing
from mgc.models.training.moving_average import MovingAverage
from mgc.models.training.optim import (
    build_loss,
    build_optimizer,
    build_plateau,
    build_schedule,
    main_logits,
    total_and_main_loss,
)

_AUTOCAST_DTYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Outcome:
    """Loss and number of correctly classified slices of an update.

    Args:
        loss: float `()` on the device of the update.
        n_correct: integer `()`, there, too.
    """

    def __init__(self, loss: Tensor, n_correct: Tensor) -> None:
        # One transfer; float32 holds the slices of any batch exactly.
        self._transfer = Transfer(torch.stack([loss.detach().float(), n_correct.float()]))

    @property
    def is_queued(self) -> bool:
        """Whether `read` may have to wait for the device."""
        return self._transfer.is_queued

    def read(self) -> tuple[float, int]:
        """Wait for the update, but not for what was queued after it.

        Returns:
            Mean training loss of the main head over the batch, and number of correctly classified slices. The loss is
            NaN or infinite if the sum that is minimised is, to which auxiliary heads add. With several processes the
            loss is this process's share: the sum over the processes is the mean over their batches.
        """
        loss, n_correct = self._transfer.read().tolist()
        return loss, int(n_correct)


class Learner:
    """Updates a network with the optimiser, loss and schedules of a recipe.

    Args:
        network: initialised network, on the device of the batches.
        recipe: training settings.
        steps_per_epoch: updates per epoch; sets the length of the cosine schedule.
        class_weights: float32 `(classes,)` on the network's device, see `optim.balanced_class_weights`; None weighs all
            classes alike.
        augmenter: augments training batches; None leaves them as they are.
        ranks: processes that train together: each update uses the mean gradient over the batches of all of them.

    Attributes:
        recipe, augmenter, ranks: the arguments.
        device: device of the network.
        optimizer: PyTorch optimiser of the network's weights.
        components: objects with a `state_dict`, by their key in a checkpoint.
    """

    def __init__(
        self,
        network: Network,
        recipe: Training,
        steps_per_epoch: int,
        class_weights: Tensor | None = None,
        augmenter: Augmenter | None = None,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        self.recipe, self.augmenter, self.ranks = recipe, augmenter, ranks
        self.device = next(network.parameters()).device
        self._network = network
        self._class_weights = class_weights
        self._loss = build_loss(recipe, class_weights)
        self.optimizer = build_optimizer(recipe.optimizer, network.model.parameters())
        self._schedule = build_schedule(self.optimizer, recipe, steps_per_epoch)
        self._plateau = build_plateau(self.optimizer, recipe)
        self._autocast_dtype = _AUTOCAST_DTYPES[recipe.loop.amp]
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.loop.amp == "fp16")
        self._averaged = MovingAverage(network, recipe.loop.ema) if recipe.loop.ema else None
        self._n_trained = thawing.set_training(network.model, recipe.loop.thaw, 0)
        self._forward = self._wrap()
        components = {
            "model": network.model,
            "inputs": network.inputs,
            "optimizer": self.optimizer,
            "schedule": self._schedule,
            "plateau": self._plateau,
            "scaler": self._scaler,
            "averaged": self._averaged,
        }
        self.components: dict[str, Any] = {key: value for key, value in components.items() if value is not None}

    @property
    def network(self) -> Network:
        """The network to validate and save: the moving average of the weights if the recipe keeps one."""
        return cast(Network, self._averaged.module) if self._averaged is not None else self._network

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        return float(self.optimizer.param_groups[0]["lr"])

    @lr.setter
    def lr(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def train(self, epoch: int = 0) -> None:
        """Set the network to training mode, and freeze the blocks that the epoch does not train.

        Args:
            epoch: number of the epoch, from 0.
        """
        self._network.train()
        n_trained = thawing.set_training(self._network.model, self.recipe.loop.thaw, epoch)
        if n_trained != self._n_trained and self.ranks.size > 1:
            self._forward = self._wrap()  # DistributedDataParallel exchanges the gradients of its beginning
        self._n_trained = n_trained

    def update(self, batch: Batch, epoch: int) -> Outcome:
        """Make one update; on a GPU, queue it.

        Args:
            batch: slices of this process.
            epoch: number of the epoch, from 0; the augmentation is drawn by it.
        """
        frames, mixed_labels, share = batch.frames, batch.labels, 1.0
        if self.augmenter is not None:
            frames, mixed_labels, share = self.augmenter(batch, epoch)
        with self._autocast():
            output = self._forward(frames)
        loss, main = total_and_main_loss(self._loss, output, batch.labels)
        if share < 1:  # mixup: each slice is mixed with one of another label
            mixed_loss, mixed_main = total_and_main_loss(self._loss, output, mixed_labels)
            loss, main = share * loss + (1 - share) * mixed_loss, share * main + (1 - share) * mixed_main
        batch_share = self._batch_share(batch.labels)
        loss = loss * batch_share
        self.optimizer.zero_grad()
        # DistributedDataParallel averages gradients over the processes; the sum of their shares is wanted.
        self._scaler.scale(loss * self.ranks.size).backward()
        if self.recipe.loop.clip:
            self._scaler.unscale_(self.optimizer)
            clip_grad_norm_(self._network.model.parameters(), self.recipe.loop.clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self._schedule.step()
        if self._averaged is not None:
            self._averaged.update_parameters(self._network)
        if not isinstance(output, Tensor):
            loss = torch.where(loss.isfinite(), main * batch_share, loss)
        return Outcome(loss, (main_logits(output).argmax(dim=1) == batch.labels).sum())

    def end_epoch(self, scores: dict[str, float]) -> None:
        """Step the plateau schedule, if the recipe has one, with the monitored validation score of the epoch."""
        if self._plateau is not None:
            self._plateau.step(scores[self.recipe.monitor])

    def dry_run(self, shapes: Sequence[tuple[int, int, int]]) -> None:
        """Allocate the memory of an update by a forward and backward pass on zeros; no weight changes.

        Args:
            shapes: `(batch, frames, bins)` of each input.

        Raises:
            torch.OutOfMemoryError: the memory of the device is too small.
        """
        self.optimizer.zero_grad()
        weights = [weight for weight in self._network.model.parameters() if weight.requires_grad]
        # The first update also allocates the optimiser's moments: two per weight for Adam, at most two for the others.
        moments = [torch.empty_like(weight) for weight in weights * 2] if not self.optimizer.state else []
        frames = [torch.zeros(shape, device=self.device) for shape in shapes]
        labels = torch.zeros(shapes[0][0], dtype=torch.int64, device=self.device)
        with self._autocast():
            # The bare network: DistributedDataParallel would wait for processes that make no dry run.
            forward = self._forward if self.ranks.size == 1 else self._network
            output = forward(frames[0] if len(frames) == 1 else tuple(frames))
        total_and_main_loss(self._loss, output, labels)[0].backward()
        del moments

    def _wrap(self) -> nn.Module:
        """Wrap the network for processes that train together, and compile it, if the recipe asks for that."""
        forward = self.ranks.data_parallel(self._network)
        # dynamic=False compiles a graph for each batch size. A graph for any size would depend on the size of the first
        # batch, which differs after an interruption.
        return cast(nn.Module, torch.compile(forward, dynamic=False)) if self.recipe.loop.compile else forward

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self._autocast_dtype, enabled=self._autocast_dtype is not None)

    def _batch_share(self, labels: Tensor) -> float:
        """Return the share of this process's batch in the batches of all processes, by the sum of class weights."""
        if self.ranks.size == 1:
            return 1.0
        weight = len(labels) if self._class_weights is None else float(self._class_weights[labels].sum())
        (total_weight,) = self.ranks.sum(weight)
        return weight / total_weight
