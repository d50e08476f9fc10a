"""Ranks: the processes that train one network together, and what they tell each other.

All of them make every update, each with its stretch of the epoch (`data.stream`), and have the same weights after
it. The first one alone prepares the run, prints and writes; the others follow it. What happens to one happens to all,
at the same step: Ctrl-C, a damaged shard, a loss that is no number.

Frames and gradients are on the device, messages on the host: NCCL for what is on a GPU, Gloo for everything else.
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
    """This process among those that train together; alone where nothing is said.

    Every method is to be called by all of them in the same order, as they wait for each other in it.

    Attributes:
        rank: number of this one, from 0.
        size: how many there are.
        local, local_size: the same among those of this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    _interrupted: bool = field(default=False, repr=False)
    _known: MgcError | None = field(default=None, repr=False)

    @property
    def share(self) -> tuple[int, int]:
        """Which stretch of an epoch is this one's, of how many; see `mgc.models.data.stream.Stream`."""
        return self.rank, self.size

    @property
    def is_main(self) -> bool:
        """Whether this one prints and writes."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this name, of GPUs each process its own.

        Raises:
            MgcError: there is no such device, or there are fewer GPUs than processes on this machine.
        """
        device = choose_device(name)
        if self.size == 1 or device.type != "cuda":
            return device
        if device.index is not None:
            raise SpecError(f"--device {name}: {self.size} processes have a GPU each", "choose cuda or cpu")
        if (count := torch.cuda.device_count()) < self.local_size:
            gpus = "1 GPU" if count == 1 else f"{count} GPUs"
            problem = f"--nproc {self.local_size}: this machine has {gpus}"
            raise SpecError(problem, f"start {count}, or choose --device cpu" if count > 1 else "leave it out")
        device = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(device)  # NCCL and CUDA's default streams go by it
        return device

    def reseed(self, seed: int) -> None:
        """Start random numbers such as dropout's anew, other ones in each process: the first one's stay as they are."""
        if self.rank:
            entropy = np.random.SeedSequence(seed, spawn_key=(self.rank,)).generate_state(1, np.uint64)
            torch.manual_seed(int(entropy[0] >> np.uint64(1)))

    # -- steps ------------------------------------------------------------------------------------------------------

    def lockstep(self, batches: Iterable[T]) -> Iterator[T]:
        """What `batches` gives, each once every process has its own; all have to give as many.

        Raises:
            MgcError: one could not be read, by whichever process.
            KeyboardInterrupt: one of the processes has been interrupted.
        """
        if self.size == 1:
            yield from batches
            return
        end = object()
        iterator = iter(batches)
        while True:
            found, error = end, None
            try:
                found = next(iterator, end)
            except MgcError as caught:
                error = caught
            self._agree(error)
            if found is end:
                return
            yield cast(T, found)

    def _agree(self, error: MgcError | None) -> None:
        happened = torch.tensor([self._interrupted, error is not None], dtype=torch.int32)
        distributed.all_reduce(happened, distributed.ReduceOp.MAX)
        interrupted, failed = happened.tolist()
        if failed:
            broadcast = self.all_gather((type(error), error.problem, error.remedy) if error else None)
            kind, problem, remedy = next(each for each in broadcast if each)
            raise self.shared_error(kind(problem, remedy))
        if interrupted:
            raise KeyboardInterrupt

    def shared_error(self, error: MgcError) -> MgcError:
        """The error, which all processes raise: the first one says so."""
        self._known = error
        return error

    # -- messages ---------------------------------------------------------------------------------------------------

    def sum(self, *values: float) -> list[float]:
        """The sum of each value over all processes."""
        if self.size == 1:
            return list(values)
        return self.all_reduce(torch.tensor(values, dtype=torch.float64)).tolist()

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """A tensor on the host, in place made the sum over all processes."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def all_gather(self, value: T) -> list[T]:
        """The value of every process; plain values and tensors on the host."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """The first process's value."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    # -- networks ---------------------------------------------------------------------------------------------------

    def data_parallel(self, network: nn.Module) -> nn.Module:
        """The network, whose gradients are means over the processes from now on, and its weights the first one's.

        Statistics of batch normalisation are of each process's own part of a batch. The running ones are the first
        process's, which hands them out before each forward pass.
        """
        if self.size == 1:
            return network
        device = next(network.parameters()).device
        return DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Give all processes the first one's running statistics."""
        if self.size > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, src=0)


SINGLE_PROCESS = Ranks()


@contextlib.contextmanager
def join(n: int | None = None) -> Iterator[Ranks]:
    """The processes that this one is started with, by torchrun or `parallel.launcher`; alone where it is by neither.

    Until they part, Ctrl-C takes effect between two steps. A process whose fellow has ended exits with `LEFT_ALONE`,
    and says nothing; nor do others than the first one of what all of them know.

    Args:
        n: how many there are to be, where that was said.

    Raises:
        SpecError: there are more or fewer than `n`.
        RunError: they do not find each other.
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
        threading.Thread(target=_end_with_the_launcher, daemon=True).start()

    def interrupted(number: int, frame: FrameType | None) -> None:
        ranks._interrupted = True

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        _meet(url, rank, size)
        yield ranks
        distributed.destroy_process_group()
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        _exit(PEER_LOST_CODE)
    except (KeyboardInterrupt, MgcError) as error:
        if not ranks.is_main and (error is ranks._known or isinstance(error, KeyboardInterrupt)):
            _exit(130 if isinstance(error, KeyboardInterrupt) else 1)
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _meet(url: str, rank: int, size: int) -> None:
    """Join the others; `RunError` where that fails."""
    try:
        store, *_ = next(rendezvous(url, rank, size))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        problem = f"process {rank + 1} of {size} does not find the others: {str(error).splitlines()[0]}"
        raise RunError(problem, "start all of them, with one address: torchrun's --rdzv-endpoint") from error


def _is_lost(error: RuntimeError) -> bool:
    """Whether an error is about a process that is gone. Gloo's have no class of their own."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def _exit(code: int) -> None:
    """End at once: what would be tidied up may wait for processes that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_with_the_launcher() -> None:
    while os.read(0, 1024):
        pass
    os._exit(PEER_LOST_CODE)
