"""A pretended GPU: tensors on a device of their own, computed on the CPU.

It shows without a GPU what any second device shows: an operation on tensors of two devices raises, and every copy from
one to the other and every value that the host reads from the device is counted. The results equal the CPU's bit for
bit. Streams, events, pinned memory and all else of CUDA are not pretended.

`install` changes the whole process: call it in one of its own, before mgc is imported.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
NAME = "pretended"
#: Operations whose host waits for the values of their tensors.
_READS = (aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default, aten.masked_select.default)


def install() -> torch.device:
    """Register the device in this process, and return it. Operations on it need `PretendedGpu` around them.

    Inference mode becomes `torch.no_grad`: PyTorch makes views in it of real tensors only.
    """
    torch.inference_mode = torch.no_grad  # type: ignore[assignment,misc]
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    return torch.device(NAME, 0)


class OnDevice(Tensor):
    """A tensor on the pretended GPU.

    Attributes:
        on_cpu: its values.
    """

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, on_cpu: Tensor) -> OnDevice:
        strides, offset = on_cpu.stride(), on_cpu.storage_offset()
        return torch.Tensor._make_wrapper_subclass(
            cls, on_cpu.shape, strides=strides, storage_offset=offset, dtype=on_cpu.dtype, device=f"{NAME}:0"
        )

    def __init__(self, on_cpu: Tensor) -> None:
        self.on_cpu = on_cpu

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.on_cpu})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.on_cpu.__reduce_ex__(protocol)  # as a file with a GPU's tensors is read where there is none

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert _active is not None, "a tensor of the pretended GPU is used outside its context"
        return _active.run(func, args, kwargs or {})


@dataclass
class Counts:
    """What host and device exchanged, by the function of mgc that did it, such as `mgc.models.parallel.transfer.send`.

    Attributes:
        sent: copies to the device.
        received: copies from the device.
        read: operations for which the host reads values on the device.
    """

    sent: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)


class PretendedGpu(TorchDispatchMode):
    """Context in which the pretended GPU works, for one thread.

    Args:
        counts: counts to add to; None to begin new ones.

    Attributes:
        counts: what host and device exchanged.
    """

    def __init__(self, counts: Counts | None = None) -> None:
        super().__init__()
        self.counts = counts or Counts()
        self._functions = _Functions()

    def __enter__(self) -> PretendedGpu:
        global _active
        _active = self
        self._functions.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._functions.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Compute an operation on the CPU; its results are on the device that they would be on."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        takes_device = any(isinstance(tensor, OnDevice) for tensor in tensors)
        device = kwargs.get("device")
        onto_device = takes_device if device is None else torch.device(device).type == NAME
        if takes_device and func in _READS:
            self.counts.read[_caller()] += 1
        on_cpu = {key: _unwrap(value) for key, value in kwargs.items() if key != "pin_memory"}
        result = func(*tree_map(_unwrap, args), **on_cpu)
        if func is aten._local_scalar_dense.default:
            return result
        if func is aten.copy_.default:
            self._count_copy(isinstance(args[1], OnDevice), isinstance(args[0], OnDevice))
            return args[0]
        if func is aten._to_copy.default:
            self._count_copy(takes_device, onto_device)
            return OnDevice(result) if onto_device else result
        if takes_device and any(tensor.dim() and not isinstance(tensor, OnDevice) for tensor in tensors):
            raise RuntimeError(f"{func}: tensors on two devices")
        if not onto_device:
            return result
        return return_and_correct_aliasing(func, args, kwargs, tree_map(_wrap, result))

    def _count_copy(self, from_device: bool, onto_device: bool) -> None:
        if from_device != onto_device:
            (self.counts.sent if onto_device else self.counts.received)[_caller()] += 1


_active: PretendedGpu | None = None


class _Functions(TorchFunctionMode):
    """Functions that PyTorch computes past dispatch modes, or by kernels that only GPUs have."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and "device" in kwargs:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func in (torch.lstm, torch.gru) and isinstance(args[0], OnDevice):
            return tree_map(_move, func(*tree_map(_move, args), **kwargs))
        return func(*args, **kwargs)


class _Move(torch.autograd.Function):
    """Move a tensor to the CPU or from it, and its gradient back, uncounted."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        return _moved(tensor)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _moved(gradient)


class _Module:
    """What PyTorch asks of the module that is named as the device."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Do nothing: random numbers are the CPU's."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _caller() -> str:
    """Name of the function of mgc that runs; empty where PyTorch runs alone, as in the thread of a backward pass."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not frame.f_globals.get("__name__", "").startswith("mgc."):
        frame = frame.f_back
    return f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}" if frame is not None else ""


def _moved(tensor: Tensor) -> Tensor:
    return tensor.on_cpu.clone() if isinstance(tensor, OnDevice) else OnDevice(tensor)


def _move(value: Any) -> Any:
    return _Move.apply(value) if isinstance(value, Tensor) else value


def _unwrap(value: Any) -> Any:
    if isinstance(value, OnDevice):
        return value.on_cpu
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value


def _wrap(value: Any) -> Any:
    return OnDevice(value) if isinstance(value, Tensor) else value
