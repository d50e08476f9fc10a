"""The stream alone, without a network: slices a second, beside the bus, a DataLoader and a plain gather."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import torch
from loaders import WORKERS, make_loaders

from gpu_parts.measurement import Row, Setup, no_time, rate, rate_within, repeated
from gpu_parts.sources import DEEPEST, RESIDENCIES, open_source
from mgc.models.data.stream import Batch

#: Names of the loaders in the table.
NAMES = {
    "device": "stream, resident",
    "host": "stream, from host memory",
    "stream": "stream, from disk",
    "DataLoader": "DataLoader, from the store",
    "WebDataset": "WebDataset, from tar files",
    "gather": "plain gather on the device",
}
#: Loaders whose epochs take long: they are measured for some seconds instead of a whole epoch.
SLOW = ("DataLoader", "WebDataset")
#: Loaders whose frames cross the bus in every epoch.
BUS = ("host", "stream")


def measure_loading(setup: Setup) -> Iterator[Row]:
    """Measure the bus, and then every loader in both dtypes."""
    bus = _bus_rate(setup)
    kind = "pinned memory to the device" if setup.is_cuda else "copy in memory"
    yield Row(f"bus: {kind}", f"{bus / 1e9:.1f} GB/s", figures={"bytes_per_s": bus})
    source = open_source(setup, DEEPEST)
    workers = min(8, os.cpu_count() or 1) if setup.is_cuda else WORKERS
    scratch = setup.folder / "loading"
    scratch.mkdir(exist_ok=True)
    for decode in (False, True):
        dtype = "float32" if decode else "uint8"
        loaders = make_loaders(source.store, scratch, decode, setup.device, source.batch_size, RESIDENCIES, workers)
        rates: dict[str, float] = {}
        for name, epoch in loaders.items():
            if setup.left < 4:
                yield no_time(f"{NAMES[name]}, {dtype}")
                continue
            rates[name] = _loader_rate(setup, name, epoch)
            yield _row(name, dtype, rates, source.bytes_per_slice, bus)


def _bus_rate(setup: Setup) -> float:
    """Bytes a second of a copy from pinned memory to the GPU; on the CPU of a copy in memory."""
    n = setup.size(256_000_000, 4_000_000)
    host = torch.ones(n, dtype=torch.uint8)
    if setup.is_cuda:
        host = host.pin_memory()
    target = torch.empty(n, dtype=torch.uint8, device=setup.device)
    return n / repeated(setup, lambda: target.copy_(host, non_blocking=True)).median


def _loader_rate(setup: Setup, name: str, epoch: Callable[[], Iterable]) -> float:
    """Slices a second of a loader; an epoch that fills the memory which a loader keeps does not count."""

    def sizes() -> Iterator[int]:
        for batch in epoch():
            yield len(batch.frames if isinstance(batch, Batch) else batch)

    if name in SLOW:
        return rate_within(setup, sizes, setup.size(4, 0))
    if name != "stream":  # its shards are in the page cache: the loaders before it have read them
        sum(sizes())
    return rate(setup, sizes, 1.0 if setup.is_cuda else 0.0)


def _row(name: str, dtype: str, rates: dict[str, float], slice_bytes: float, bus: float) -> Row:
    figures = {"slices_per_s": rates[name]}
    text = f"{rates[name]:,.0f} slices/s"
    if name in BUS:
        figures["bus_share"] = rates[name] * slice_bytes / bus
        text += f", {figures['bus_share']:.0%} of the bus"
    if name in SLOW:
        figures["stream_ratio"] = rates["stream"] / rates[name]
        text += f"; the stream from disk is {figures['stream_ratio']:.1f} times as fast"
    if name == "gather":
        figures["resident_ratio"] = rates["device"] / rates[name]
        text += f"; the resident stream has {figures['resident_ratio']:.0%} of that"
    return Row(f"{NAMES[name]}, {dtype}", text, figures=figures)
