"""What the parts share: rows of the table, the settings of a run, and timing on a CPU or a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import common  # noqa: F401  before NumPy: it limits the threads of the libraries
import torch
from common import Spread

#: `measured`: a figure. `failed`: the measurement raised an error or ran out of time. `absent`: something that the
#: measurement needs is not on this machine.
Status = Literal["measured", "failed", "absent"]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: what was measured.
        text: the figure with its unit, or why there is none.
        bar: the bar that the figure must meet; empty for none.
        met: whether it meets the bar; None without a bar or a figure, and for the times of a smoke run.
        figures: the numbers behind the text, by name, with the unit in the name.
        status: see `Status`.
        details: more lines than the table has room for, such as a traceback.
    """

    name: str
    text: str
    bar: str = ""
    met: bool | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    status: Status = "measured"
    details: str = ""

    @property
    def verdict(self) -> str:
        """The last cell of the table."""
        if self.status != "measured":
            return self.status
        return "" if self.met is None else "met" if self.met else "NOT MET"


@dataclass(frozen=True)
class Setup:
    """Settings of a part.

    Attributes:
        device: device to measure.
        smoke: take the smallest sizes; the figures mean nothing.
        folder: folder that all parts share, for stores of noise and for runs.
        deadline: time by `time.monotonic` after which the part is ended.
    """

    device: torch.device
    smoke: bool
    folder: Path
    deadline: float

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a CUDA GPU."""
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds that are left for the part, less a reserve of two."""
        return self.deadline - time.monotonic() - 2

    def size(self, full: int, smoke: int) -> int:
        """One of two sizes."""
        return smoke if self.smoke else full


def needs_cuda(name: str) -> Row:
    """Row of what only a CUDA GPU has."""
    return Row(name, "needs CUDA", status="absent")


def no_time(name: str) -> Row:
    """Row of what the time of a part does not suffice for."""
    return Row(name, "not measured: no time was left", status="failed")


def synchronise(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds that a device takes for some work; on a GPU between two events in its current stream."""
    if device.type != "cuda":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    synchronise(device)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    stream = torch.cuda.current_stream(device)
    begin.record(stream)
    work()
    end.record(stream)
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def repeated(setup: Setup, work: Callable[[], object], rounds: int = 20) -> Spread:
    """Spread of the seconds of some short work; the first three calls, which are slow, do not count."""
    for _ in range(setup.size(3, 1)):
        work()
    return Spread.of([timed(setup.device, work) for _ in range(setup.size(rounds, 2))])


def rate(setup: Setup, epoch: Callable[[], Iterator[int]], seconds: float) -> float:
    """Slices a second of a loader, over whole epochs that together take at least some seconds.

    Args:
        setup: settings.
        epoch: starts an epoch, which yields the number of slices of each batch.
        seconds: time to measure for.
    """
    n, start = 0, time.perf_counter()
    while True:
        n += sum(epoch())
        synchronise(setup.device)
        if (passed := time.perf_counter() - start) >= seconds:
            return n / passed


def rate_within(setup: Setup, epoch: Callable[[], Iterator[int]], seconds: float) -> float:
    """Slices a second of a slow loader, from its second batch until some seconds are over or the epoch ends."""
    batches = epoch()
    next(batches)
    n, start = 0, time.perf_counter()
    for size in batches:
        n += size
        if time.perf_counter() - start >= seconds:
            break
    synchronise(setup.device)
    return n / (time.perf_counter() - start)
