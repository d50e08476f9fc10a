"""Validation of a network in training: loss and accuracies on the validation split."""

from __future__ import annotations

import math

import numpy as np
import torch

from mgc.models.data.split_data import SplitData
from mgc.models.network import Network, outputs
from mgc.models.parallel.ranks import SINGLE_PROCESS, Ranks
from mgc.models.registry.recipes import Training
from mgc.models.training.optim import LOSSES
from mgc.pipeline.errors import RunError, StoreError


def validate(
    network: Network, recipe: Training, validation: SplitData, ranks: Ranks = SINGLE_PROCESS
) -> dict[str, float]:
    """Score a network on the validation split, leaving out slices that could not be read.

    Args:
        network: network to validate; it is left in evaluation mode.
        recipe: training settings; the loss is theirs, without label smoothing and class weights.
        validation: slices of the validation split.
        ranks: processes that validate together, each on its share of the slices.

    Returns:
        `loss` and `accuracy` by slice, and `track_accuracy`, see `accuracies`; the same values on all ranks.

    Raises:
        RunError: the loss is NaN or infinite.
        StoreError: no slice could be read.
    """
    logits = outputs(network, validation.stream, "validation", ranks)
    readable = np.flatnonzero(~validation.unreadable)
    if not len(readable):
        raise StoreError("no shard of the validation split can be read", "repair the store: `mgc extract --verify`")
    logits, labels = logits[readable], validation.stream.labels[readable]
    loss = float(LOSSES[recipe.loss](logits, torch.from_numpy(labels)))
    if not math.isfinite(loss):
        raise ranks.shared_error(RunError(f"the validation loss is {loss}", "train with a lower learning rate: --lr"))
    tracks = np.unique(validation.tracks[readable], return_inverse=True)[1]
    # Rank 0's scores, as machines may differ in the last bit: one would stop early and another go on.
    return ranks.broadcast({"loss": loss} | accuracies(logits.softmax(dim=1).numpy(), labels, tracks))


def accuracies(probabilities: np.ndarray, labels: np.ndarray, tracks: np.ndarray) -> dict[str, float]:
    """Compute accuracy by slice, and by track from the mean probabilities of its slices.

    Args:
        probabilities: float `(slices, classes)`.
        labels: class index of each slice, int `(slices,)`.
        tracks: track index of each slice, from 0, int `(slices,)`.

    Returns:
        `accuracy` and `track_accuracy`.
    """
    sums = np.zeros((tracks.max() + 1, probabilities.shape[1]))
    np.add.at(sums, tracks, probabilities)
    track_labels = np.zeros(len(sums), np.int64)
    track_labels[tracks] = labels
    return {
        "accuracy": float(np.mean(probabilities.argmax(axis=1) == labels)),
        "track_accuracy": float(np.mean(sums.argmax(axis=1) == track_labels)),
    }
