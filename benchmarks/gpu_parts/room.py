"""Memory: what frames take against what `--residency` predicts, and a training that runs out of memory."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterator
from unittest import mock

import common
import torch
from torch import Tensor

from gpu_parts.measurement import Row, Setup, needs_cuda
from gpu_parts.sources import DEEPEST, RESIDENCIES, SMALLEST, Source, noise_store, open_source
from gpu_parts.steps import NAMES
from mgc.models.data import sampling
from mgc.models.data.stream import Residency
from mgc.models.network import Network, Outputs
from mgc.models.parallel.device import free_memory
from mgc.models.training.assembly import open_run
from mgc.models.training.options import Options
from mgc.models.training.preparation import prepare
from mgc.models.training.train import train
from mgc.pipeline.errors import RunError

#: Memory that is left to the training that is to run out of it, in bytes.
SPARE_BYTES = 6_000_000_000
#: Slices that fit into a batch without a GPU, where a limit stands for the memory.
SLICES_THAT_FIT = 12


def measure_memory(setup: Setup) -> Iterator[Row]:
    """Compare the memory of an epoch with the predicted one, for each residency; then the choice on a full device."""
    source = open_source(setup, DEEPEST)
    for residency in RESIDENCIES:
        yield _measure(setup, source, residency)
    if setup.is_cuda:
        yield _choice(setup)
    else:
        yield needs_cuda("residency chosen on a device that is nearly full")


def _measure(setup: Setup, source: Source, residency: Residency) -> Row:
    """Read an epoch and compare the memory that it took on the device with the prediction."""
    device = setup.device
    stream = source.stream(setup, residency)
    before, host_before = _begin(device)
    batch_bytes = 0
    for batch in stream.batches():
        assert isinstance(batch.frames, Tensor)
        batch_bytes = batch.frames.nbytes
    del batch
    peak = torch.cuda.max_memory_allocated(device) - before if setup.is_cuda else 0
    kept = torch.cuda.memory_allocated(device) - before if setup.is_cuda else 0
    host = max(common.peak_mb() * 1e6 - host_before, 0)
    frames = stream.nbytes
    stream.release()
    # At most two groups of shards are on the device at a time.
    predicted = frames if residency == "device" else min(frames, 2 * sampling.GROUP_BYTES)
    figures = {
        "frames_bytes": frames,
        "predicted_bytes": predicted,
        "batch_bytes": batch_bytes,
        "host_peak_bytes": host,
    }
    name = f"memory of an epoch, {NAMES[residency]}"
    if not setup.is_cuda:
        text = f"{frames / 1e6:.0f} MB of frames, {host / 1e6:.0f} MB more in the process"
        return Row(name, text, figures=figures)
    figures |= {"device_peak_bytes": peak, "device_kept_bytes": kept}
    figures["device_reserved_bytes"] = torch.cuda.max_memory_reserved(device)
    # A batch as stored, its copy in float32, its index, and the batch before: eight times its size as stored, and more.
    allowed = 1.02 * predicted + 6 * batch_bytes
    text = f"{peak / 1e6:.0f} MB at most, {kept / 1e6:.0f} MB kept; predicted {predicted / 1e6:.0f} MB"
    text += f" beside batches of {batch_bytes / 1e6:.0f} MB; {host / 1e6:.0f} MB of the host's"
    return Row(name, text, f"≤ {allowed / 1e6:.0f} MB", peak <= allowed, figures)


def _begin(device: torch.device) -> tuple[int, float]:
    """Reset the peaks; return the bytes that are allocated on the device, and the peak of the process."""
    gc.collect()
    common.reset_peak()
    if device.type != "cuda":
        return 0, common.peak_mb() * 1e6
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device), common.peak_mb() * 1e6


def _choice(setup: Setup) -> Row:
    """Let `--residency auto` choose while the frames do not fit into half of the free memory, but would without it."""
    store = noise_store(setup, SMALLEST, 960, 96)
    folder = setup.folder / "residency"
    run = prepare([store], Options(model=SMALLEST, device=str(setup.device)), folder, echo=lambda line: None)
    ((frames, before),) = open_run(run, [store]).residency
    spare = max(int(1.5 * frames), 200_000_000)  # more than the frames, less than twice as much
    with occupied(setup, spare):
        free = free_memory(setup.device)
        ((_, after),) = open_run(run, [store]).residency
    met = before == "device" and (after == "host") == (frames > free / 2)
    text = f"{after} with {free / 1e6:.0f} MB free, {before} on the empty device; {frames / 1e6:.0f} MB of frames"
    return Row("residency chosen", text, "host, then device", met, {"free_bytes": free, "frames_bytes": frames})


@contextlib.contextmanager
def occupied(setup: Setup, spare: int) -> Iterator[None]:
    """Fill the memory of the GPU but for some bytes."""
    gc.collect()
    torch.cuda.empty_cache()
    ballast = torch.empty(max(free_memory(setup.device) - spare, 0), dtype=torch.uint8, device=setup.device)
    try:
        yield
    finally:
        del ballast
        torch.cuda.empty_cache()


def exhaust_memory(setup: Setup) -> Iterator[Row]:
    """Train with a batch that does not fit, and then with the batch size that the message of mgc names."""
    id, batch_size = (DEEPEST, 512) if setup.is_cuda else (SMALLEST, 32)
    store = noise_store(setup, id, setup.size(96, 8), 8)
    folder = setup.folder / "exhausted"

    def attempt(size: int) -> None:
        options = Options(id, epochs=1, batch_size=size, device=str(setup.device), seed=0, residency="device")
        train([store], options, folder, echo=lambda line: None)

    with occupied(setup, SPARE_BYTES) if setup.is_cuda else limited():
        try:
            attempt(batch_size)
        except RunError as error:
            message = str(error)
        else:
            yield Row("out of memory", f"batches of {batch_size} fit", "an error", False)
            return
        gc.collect()
        if setup.is_cuda:
            torch.cuda.empty_cache()
        advice = re.search(r"--batch-size (\d+)", message)
        bar = "an error that names a batch size"
        yield Row("out of memory: what mgc says", message, bar, advice is not None and "no memory for" in message)
        if not advice:
            return
        size = int(advice.group(1))
        text, trains = f"--batch-size {size} trains", True
        try:
            attempt(size)
        except RunError as error:
            text, trains = f"--batch-size {size}: {error}", False
        yield Row("out of memory: its advice", text, "it trains", trains, {"batch_size": size})


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Let a network run out of memory in training with more slices than some: without a GPU, for a limit of memory."""
    forward = Network.forward

    def limited_forward(self: Network, frames: Tensor | tuple[Tensor, ...]) -> Outputs:
        if self.training and len(frames) > SLICES_THAT_FIT:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, frames)

    with mock.patch.object(Network, "forward", limited_forward):
        yield
