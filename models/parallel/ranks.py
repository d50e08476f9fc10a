"""Ranks: the processes that train one network together, and the communication between them.

Every process makes every update, each with its part of the epoch (`mgc.models.data.sampling`), and all have the same
weights afterwards. Rank 0 alone prepares the run, prints and writes files. Ctrl-C, a damaged shard or a loss that is
not finite in one process stops all of them at the same step.

Frames and gradients are on the device, messages on the host: NCCL communicates tensors on a GPU, Gloo all others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from mgc.models.parallel.device import choose_device
from mgc.models.parallel.launcher import PEER_LOST_CODE, RENDEZVOUS_VARIABLE, is_launched
from mgc.pipeline.errors import MgcError, RunError, SpecError

T = TypeVar("T")


@dataclass
class Ranks:
    """This process among the processes that train together; by default it is the only one.

    The methods that communicate must be called by all processes in the same order: each waits for the others.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes (PyTorch's world size).
        local_rank: number of this process among those on this machine, from 0.
        local_size: number of processes on this machine.
        dismissed: whether the other processes have been told that no run follows.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    dismissed: bool = field(default=False, repr=False)
    _interrupted: bool = field(default=False, repr=False)
    _shared_error: MgcError | None = field(default=None, repr=False)

    @property
    def share(self) -> tuple[int, int]:
        """This process and the number of processes, as `mgc.models.data.stream.Batching.share`."""
        return self.rank, self.size

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which prints and writes."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """Return the device of a name; with several processes, `cuda` is a GPU of its own for each.

        Raises:
            MgcError: there is no such device, or there are fewer GPUs than processes on this machine.
        """
        device = choose_device(name)
        if self.size > 1 and device.type == "mps":
            raise SpecError(f"--device mps: {self.size} processes cannot share one GPU", "leave --nproc out")
        if self.size == 1 or device.type != "cuda":
            return device
        if device.index is not None:
            raise SpecError(f"--device {name}: each of {self.size} processes needs its own GPU", "choose cuda or cpu")
        if (count := torch.cuda.device_count()) < self.local_size:
            gpus = "1 GPU" if count == 1 else f"{count} GPUs"
            problem = f"--nproc {self.local_size}: this machine has {gpus}"
            remedy = f"start {count}, or choose --device cpu" if count > 1 else "leave --nproc out"
            raise MgcError(problem, remedy)
        device = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(device)  # NCCL and CUDA's default streams use the current device
        return device

    def reseed(self, seed: int) -> None:
        """Seed PyTorch differently in each process, for dropout; rank 0 keeps its random state."""
        if self.rank:
            entropy = np.random.SeedSequence(seed, spawn_key=(self.rank,)).generate_state(1, np.uint64)
            torch.manual_seed(int(entropy[0] >> np.uint64(1)))

    # -- steps ------------------------------------------------------------------------------------------------------

    def lockstep(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield batches in step with the other processes: each one once every process has its own.

        Args:
            batches: batches of this process; all processes must have the same number.

        Raises:
            MgcError: a process could not read its batch; all processes raise its error.
            KeyboardInterrupt: a process was interrupted.
        """
        if self.size == 1:
            yield from batches
            return
        end = object()
        iterator = iter(batches)
        while True:
            batch, error = end, None
            try:
                batch = next(iterator, end)
            except MgcError as caught:
                error = caught
            self._raise_together(error)
            if batch is end:
                return
            yield cast(T, batch)

    def _raise_together(self, error: MgcError | None) -> None:
        """Raise in all processes if one of them has an error or was interrupted."""
        flags = torch.tensor([self._interrupted, error is not None], dtype=torch.int32)
        distributed.all_reduce(flags, distributed.ReduceOp.MAX)
        interrupted, failed = flags.tolist()
        if failed:
            errors = self.all_gather((type(error), error.problem, error.remedy) if error else None)
            kind, problem, remedy = next(each for each in errors if each)
            raise self.shared_error(kind(problem, remedy))
        if interrupted:
            raise KeyboardInterrupt

    def shared_error(self, error: MgcError) -> MgcError:
        """Mark an error that all processes raise, so that only rank 0 reports it; return it."""
        self._shared_error = error
        return error

    # -- communication ----------------------------------------------------------------------------------------------

    def sum(self, *values: float) -> list[float]:
        """Add up each value over all processes."""
        if self.size == 1:
            return list(values)
        return self.all_reduce(torch.tensor(values, dtype=torch.float64)).tolist()

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Add up a tensor on the host over all processes, in place; return it."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def all_gather(self, value: T) -> list[T]:
        """Gather the value of every process, by rank: plain values and tensors on the host."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Broadcast the value of rank 0: plain values and tensors on the host."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    # -- networks ---------------------------------------------------------------------------------------------------

    def data_parallel(self, network: nn.Module) -> nn.Module:
        """Wrap a network in `DistributedDataParallel`: rank 0's weights are broadcast, gradients are averaged.

        Batch normalisation uses the statistics of each process's own part of the batch. Rank 0's running statistics are
        broadcast before each forward pass.
        """
        if self.size == 1:
            return network
        device = next(network.parameters()).device
        return DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Broadcast rank 0's buffers, such as the running statistics of batch normalisation."""
        if self.size > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, src=0)


SINGLE_PROCESS = Ranks()


@contextlib.contextmanager
def join(n: int | None = None) -> Iterator[Ranks]:
    """Join the processes that torchrun or `mgc.models.parallel.launcher` started along with this one.

    In this context, Ctrl-C takes effect between two steps. A process that loses another one exits with `PEER_LOST_CODE`
    and prints nothing; errors that all processes raise are printed by rank 0 only.

    Args:
        n: expected number of processes; None for any.

    Yields:
        This process among them; `SINGLE_PROCESS` if it was started by neither.

    Raises:
        SpecError: there are not `n` processes.
        RunError: the processes cannot reach each other.
    """
    if not is_launched():
        yield SINGLE_PROCESS
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if n not in (None, size):
        raise SpecError(f"--nproc {n}: this is one of {size} processes", "leave the option out")
    if size == 1:
        yield SINGLE_PROCESS
        return
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", size))
    ranks = Ranks(rank, size, local_rank, local_size)
    url = os.environ.get(RENDEZVOUS_VARIABLE, "env://")
    if url != "env://":
        threading.Thread(target=_exit_with_launcher, daemon=True).start()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        ranks._interrupted = True

    previous_handler = signal.signal(signal.SIGINT, on_interrupt)
    try:
        _init_process_group(url, rank, size)
        yield ranks
        distributed.destroy_process_group()
    except RuntimeError as error:
        if not _is_peer_lost(error):
            raise
        _exit(PEER_LOST_CODE)
    except (KeyboardInterrupt, MgcError) as error:
        if not ranks.is_main and (error is ranks._shared_error or isinstance(error, KeyboardInterrupt)):
            _exit(130 if isinstance(error, KeyboardInterrupt) else 1)
        raise
    finally:
        signal.signal(signal.SIGINT, previous_handler)


def _init_process_group(url: str, rank: int, size: int) -> None:
    """Initialise PyTorch's process group; raise `RunError` if the processes cannot reach each other."""
    try:
        store, *_ = next(rendezvous(url, rank, size))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        problem = f"process {rank + 1} of {size} cannot reach the others: {str(error).splitlines()[0]}"
        raise RunError(problem, "start all of them with one address: torchrun's --rdzv-endpoint") from error


def _is_peer_lost(error: RuntimeError) -> bool:
    """Whether an error says that another process is gone. Gloo has no exception class for it."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def _exit(code: int) -> None:
    """Exit at once, without clean-up, which may wait for processes that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _exit_with_launcher() -> None:
    """Exit when the launcher is gone and closes the pipe to this process's stdin."""
    while os.read(0, 1024):
        pass
    os._exit(PEER_LOST_CODE)
