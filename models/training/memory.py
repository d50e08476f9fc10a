"""What would fit a device whose memory is exhausted, found by trying it."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch

from mgc.models.data.parts import Part
from mgc.models.training.learner import Learner
from mgc.pipeline.errors import RunError


def exhausted(learner: Learner, parts: Sequence[Part], size: int, processes: int = 1) -> RunError:
    """The error that says which size of batch fits, and which one where frames do not stay on the device.

    The training is over: frames are forgotten on the way, and running statistics spoilt.

    Args:
        learner: of the training, nothing of whose last update is held any more.
        parts: training and validation split.
        size: slices of the last batch; 0 where there has been none.
        processes: that make a batch together, this size being one's part of it.
    """
    device = parts[0].stream.device
    resident = [stream for part in parts for stream in part.streams if stream.residency == "device"]
    elsewhere = "stream" if device.type == "cpu" else "host"
    held = f"{sum(stream.nbytes for stream in resident) / 1e6:.0f} MB of frames"
    if not size:
        return RunError(f"{device}: no memory for {held}", f"leave them elsewhere: --residency {elsewhere}")
    found = []
    if (fitting := _largest(learner, parts[0], size // 2)) is not None:
        found.append(f"--batch-size {fitting * processes}")
    if resident:
        for stream in resident:
            stream.release()
        released = _largest(learner, parts[0], size)
        if released is not None and released != fitting:
            same = released == size
            found.append(f"--residency {elsewhere}" + ("" if same else f" --batch-size {released * processes}"))
    problem = f"{device}: no memory for batches of {size} slices" + (f" beside {held}" if resident else "")
    return RunError(problem, f"what fits: {', or '.join(found)}" if found else "no batch fits: choose a smaller system")


def _largest(learner: Learner, training: Part, size: int) -> int | None:
    """The largest of `size`, its half, its quarter and so on that fits; none of a lone slice."""
    while size >= 2:
        try:
            learner.rehearse([(size, stream.frames, stream.bins) for stream in training.streams])
        except torch.OutOfMemoryError:
            pass
        else:
            return size
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size //= 2
    return None
