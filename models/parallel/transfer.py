"""Transfers between host and device that do not make the host wait.

A GPU works through a queue that the host fills. A host that waits for each result leaves the GPU without work until it
has prepared the next batch. So what the device needs is sent from pinned memory, and results are read one batch late.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


def send(values: np.ndarray, device: torch.device) -> Tensor:
    """Copy an array to the device. To a GPU, the copy joins the queue.

    Args:
        values: array of any shape. It may be changed after the call, except where the device is the CPU: then the
            tensor shares its memory.
        device: device of the tensor.
    """
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Transfer:
    """The copy of a tensor to the host. From a GPU it joins the queue, and creating it does not wait.

    Args:
        values: tensor on any device, without gradient.
    """

    def __init__(self, values: Tensor) -> None:
        # PyTorch copies from a GPU to pinned memory of its own. Only CUDA has the event that tells of the copy's end.
        self._values = values.to("cpu", non_blocking=values.is_cuda)
        self._end = torch.cuda.current_stream(values.device).record_event() if values.is_cuda else None

    @property
    def is_queued(self) -> bool:
        """Whether `read` may have to wait for the device."""
        return self._end is not None

    def read(self) -> Tensor:
        """Wait for the copy, but not for what was queued after it, and return it."""
        if self._end is not None:
            self._end.synchronize()
        return self._values


def read_late(transfers: Iterable[tuple[T, Transfer]]) -> Iterator[tuple[T, Tensor]]:
    """Read transfers in their order: queued ones only after the next one was made, others at once.

    Args:
        transfers: pairs of anything and a transfer; producing the next pair queues its work.

    Yields:
        The first of each pair, and the tensor on the host.
    """
    queued: tuple[T, Transfer] | None = None
    for item, transfer in transfers:
        if queued is not None:
            yield queued[0], queued[1].read()
        queued = (item, transfer)
        if not transfer.is_queued:
            yield item, transfer.read()
            queued = None
    if queued is not None:
        yield queued[0], queued[1].read()
