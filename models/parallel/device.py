"""The device that a model runs on: its choice, its free memory, and the state of its random number generators."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

import torch
from torch import Tensor

from mgc.pipeline.errors import MgcError, SpecError

_CGROUP = Path("/sys/fs/cgroup")
# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def choose_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is the GPU if there is one, else the CPU.

    Args:
        name: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        SpecError: it is not the name of a device.
        MgcError: this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,4})?", name):
        raise SpecError(f"--device {name}: not the name of a device", "choose auto, cpu, cuda, cuda:N or mps")
    device = torch.device(name)
    remedy = "choose auto or cpu"
    if device.type == "mps" and not torch.backends.mps.is_available():
        built = "" if torch.backends.mps.is_built() else " (this PyTorch is built without MPS)"
        raise MgcError(f"--device mps: there is no Apple GPU{built}", remedy)
    if device.type == "cuda" and not torch.cuda.is_available():
        built = "" if torch.version.cuda else " (this PyTorch is built for the CPU)"
        raise MgcError(f"--device {name}: there is no CUDA GPU{built}", remedy)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise MgcError(
            f"--device {name}: the GPUs of this machine are {'cuda:0' if not last else f'cuda:0 to cuda:{last}'}",
            remedy,
        )
    return device


def wide_dtype(device: torch.device) -> torch.dtype:
    """The widest float dtype of a device: float64; on MPS float32, and what needs more is computed on the host."""
    return torch.float32 if device.type == "mps" else torch.float64


def require_amp(amp: str, device: torch.device) -> None:
    """Raise `SpecError` if a device cannot train in a mixed precision (`off`, `bf16` or `fp16`)."""
    if amp != "off" and device.type == "mps":
        raise SpecError(f"--amp {amp}: on MPS, mgc trains in float32", "choose off")
    if amp == "fp16" and device.type != "cuda":
        raise SpecError(f"--amp fp16 needs a CUDA GPU, and this trains on {device.type}", "choose bf16 or off")


def free_memory(device: torch.device) -> int:
    """Return the free memory of a device in bytes; for the CPU that of the host, within the limit of a container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_host_memory(), _cgroup_memory())


def _host_memory() -> int:
    """Memory that is available on the host, in bytes."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux: assume that half of all memory is free
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _cgroup_memory() -> int:
    """Memory that the control group may still use, in bytes; file caches that the kernel can drop count as free."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        cached = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return limit - used + int(cached["inactive_file"])
    except (OSError, KeyError, ValueError):  # no control group, or one without a limit: "max"
        return 2**63


def retain_freed_memory() -> None:
    """Make glibc retain the memory of freed CPU tensors for new ones; with another C library, do nothing.

    By default, glibc returns blocks of 32 MB and more to the kernel, which must find and zero them again for the next
    activation: a training step of xu2022/mobilenet then takes a sixth longer. What has been freed before this call
    goes back.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.malloc_trim(0)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def seed_everything(seed: int) -> None:
    """Seed PyTorch's random number generators on every device, and make cuDNN use deterministic algorithms."""
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of PyTorch's random number generators on host and device, as uint8 tensors by name."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Restore the state that `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])
