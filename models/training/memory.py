"""Advice on running out of device memory: the batch size and residency that fit, found by dry runs."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch

from mgc.models.data.split_data import SplitData
from mgc.models.training.learner import Learner
from mgc.pipeline.errors import RunError


def out_of_memory_error(learner: Learner, splits: Sequence[SplitData], batch_size: int) -> RunError:
    """Build the error of a training that ran out of device memory, with the options that fit as its remedy.

    Call it at the end of the training only: it drops the frames on the device and spoils the running statistics of
    batch normalisation.

    Args:
        learner: learner of the training; the tensors of its last update must be freed already.
        splits: training and validation split, in this order.
        batch_size: slices of this process's last batch; 0 if memory ran out before the first one.
    """
    training, n_processes = splits[0], learner.ranks.size
    device = training.stream.device
    resident = [stream for split in splits for stream in split.streams if stream.residency == "device"]
    residency = "stream" if device.type == "cpu" else "host"
    frames = f"{sum(stream.nbytes for stream in resident) / 1e6:.0f} MB of frames"
    if not batch_size:
        return RunError(f"{device}: no memory for {frames}", f"leave them elsewhere: --residency {residency}")
    choices = []
    if (beside_frames := _largest_batch_size(learner, training, batch_size // 2)) is not None:
        choices.append(f"--batch-size {beside_frames * n_processes}")
    if resident:
        for stream in resident:
            stream.release()
        without_frames = _largest_batch_size(learner, training, batch_size)
        if without_frames is not None and without_frames != beside_frames:
            smaller = "" if without_frames == batch_size else f" --batch-size {without_frames * n_processes}"
            choices.append(f"--residency {residency}{smaller}")
    problem = f"{device}: no memory for batches of {batch_size} slices" + (f" beside {frames}" if resident else "")
    remedy = f"what fits: {', or '.join(choices)}" if choices else "no batch fits: choose a smaller system"
    return RunError(problem, remedy)


def _largest_batch_size(learner: Learner, training: SplitData, batch_size: int) -> int | None:
    """Halve the batch size until an update fits; None if two slices, the least for batch normalisation, do not fit."""
    while batch_size >= 2:
        try:
            learner.dry_run([(batch_size, stream.frames, stream.bins) for stream in training.streams])
        except torch.OutOfMemoryError:
            pass
        else:
            return batch_size
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        batch_size //= 2
    return None
