"""Where the host waits for the device in the training loop: counted by the profiler, and located by PyTorch's warnings.

The loop reads the loss of an update, which must be finite, and its number of correct slices: both at once, when the
next update is in the queue of the device. On a GPU this read waits for an event. Every other wait is one that nobody
asked for.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import REPOSITORY
from loaders import endless_batches
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function
from train import make_learner

from gpu_parts.measurement import Row, Setup, needs_cuda, no_time, synchronise
from gpu_parts.sources import DEEPEST, RESIDENCIES, SMALLEST, SYSTEMS, open_source
from gpu_parts.steps import NAMES, update
from mgc.models.data.stream import Batch
from mgc.models.training.learner import Learner

#: Waits of an update that are wanted, on a GPU; elsewhere, an update is done when the host reads its values.
WANTED = 1
#: Calls of the CUDA runtime by which the host waits for the device.
CALLS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
#: Operators that read a value of a tensor; elsewhere than on a GPU they stand for the calls, and are not judged: some
#: operators, such as `one_hot`, check values on a CPU only. Optimisers read counters that are on the host; these are
#: left out.
READS, OPTIMISER = "aten::_local_scalar_dense", "Optimizer.step"
#: What PyTorch warns of in its debug mode of synchronisations.
WARNING = "called a synchronizing CUDA operation"
#: Name of the profiled range.
RANGE = "mgc updates"


def count_waits(setup: Setup) -> Iterator[Row]:
    """Count the waits of an update for each system and residency."""
    for id in (SMALLEST,) if setup.smoke else SYSTEMS:
        source = open_source(setup, id)
        learner, _ = make_learner(id, source.batch_size, source.frames, setup.device)
        for residency in RESIDENCIES:
            label = f"waits for the device, {id}, {NAMES[residency]}"
            if setup.left < 3:
                yield no_time(label)
                continue
            stream = source.stream(setup, residency)
            batches = endless_batches(stream)
            steps = setup.size(3 if id == DEEPEST else 20, 3)  # an update of the deepest one has thousands of events
            yield _count(setup, label, learner, batches, steps)
            batches.close()
            stream.release()
    if not setup.is_cuda:
        yield needs_cuda("lines of code that wait for the device")
        return
    yield from _locate(setup)


def _count(setup: Setup, label: str, learner: Learner, batches: Iterator[Batch], steps: int) -> Row:
    """Count the waits of some updates by the profiler."""
    update(learner, batches, setup.size(3, 1))
    synchronise(setup.device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setup.is_cuda else [])]
    with profile(activities=activities) as profiler:
        with record_function(RANGE):
            update(learner, batches, steps)
        synchronise(setup.device)
    counts = _counts(profiler.events(), setup.is_cuda)
    per_update = sum(counts.values()) / steps
    unwanted = per_update - (WANTED if setup.is_cuda else 0)
    shown = ", ".join(f"{name} {count / steps:.1f}" for name, count in sorted(counts.items()))
    figures = {"waits_per_update": per_update, "unwanted_per_update": unwanted}
    figures |= {f"{name}_per_update": count / steps for name, count in counts.items()}
    text = f"{per_update:.1f} an update, {max(unwanted, 0):.1f} of them not asked for ({shown})"
    met = round(unwanted, 1) <= 0 if setup.is_cuda else None
    return Row(label, text, f"{WANTED} an update", met, figures)


def _counts(events: Any, is_cuda: bool) -> Counter[str]:
    """Count the calls that wait, within the profiled range only: the profiler itself waits at its beginning and end."""
    # The range also has an event on the GPU, of its kernels.
    on_host = [event for event in events if event.device_type == DeviceType.CPU]
    spans = [event.time_range for event in on_host if event.name == RANGE]
    assert spans, "the profiler has not recorded the range"
    start, end = min(span.start for span in spans), max(span.end for span in spans)
    counts: Counter[str] = Counter()
    for event in on_host:
        if not start <= event.time_range.start <= end:
            continue
        if is_cuda and event.name in CALLS:
            counts[event.name] += 1
        if not is_cuda and event.name == READS and not _in_optimiser(event):
            counts[event.name] += 1
    assert counts or not is_cuda, "the profiler has recorded no call that waits, although the loop reads every loss"
    return counts


def _in_optimiser(event: Any) -> bool:
    """Whether an operator runs within the step of an optimiser."""
    while event is not None:
        if event.name.startswith(OPTIMISER):
            return True
        event = event.cpu_parent
    return False


def _locate(setup: Setup) -> Iterator[Row]:
    """Name the lines of code that wait, by the warnings of PyTorch's debug mode of synchronisations."""
    source = open_source(setup, SMALLEST)
    learner, _ = make_learner(SMALLEST, source.batch_size, source.frames, setup.device)
    for residency in RESIDENCIES:
        batches = endless_batches(source.stream(setup, residency))
        update(learner, batches, 3)
        steps = 10
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                update(learner, batches, steps)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        lines = Counter(f"{_relative(one.filename)}:{one.lineno}" for one in caught if WARNING in str(one.message))
        batches.close()
        shown = ", ".join(f"{line} {count / steps:g}" for line, count in lines.most_common()) or "none"
        figures = {line: count / steps for line, count in lines.items()}
        yield Row(f"lines that wait, and how often an update, {NAMES[residency]}", shown, figures=figures)


def _relative(file: str) -> str:
    """Path of a module below the repository, or its last two parts."""
    path = Path(file).resolve()
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else Path(*path.parts[-2:]))
