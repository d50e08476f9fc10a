"""Public weights: what a network starts from instead of random numbers.

A file is what `torch.save` made of a state dict, as it is or under the key `model` or `state_dict`; a run's best.pt is
one too. It must hold every tensor of the network by its name, and no other, but for these:

- The head, every tensor whose shape depends on the number of classes, is left as initialised where the file has another
  number of classes.
- The first convolution may have another number of input channels: its weights are summed over them and dealt out
  evenly, which makes the same of an input whose channels are all equal. A picture has three, as photographs do, so
  ImageNet weights are taken as they are.
- What is not part of a plain network, attention and heads that only training uses, is left as initialised where it is
  missing.
- Running statistics that do not say how many updates they come from count as settled.

Public weights of GoogLeNet expect pixels in [-1, 1], not normalised by ImageNet's means and deviations: the inputs
differ by a factor of 0.45 and an offset, which the batch norm behind the first convolution takes up in training.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgc.models.registry.skeleton import skeleton
from mgc.models.registry.systems import System
from mgc.pipeline.errors import ModelError

_COUNTER = "num_batches_tracked"
#: Updates after which nothing is left of initial running statistics: 0.99 ** 10_000 is 2e-44.
_SETTLED = 10_000


@dataclass(frozen=True)
class Weights:
    """A file of weights made to fit a network.

    Attributes:
        file: where they come from.
        sha256: digest of the file's bytes.
        tensors: those the network takes over, by its names.
        fresh: names of those that stay as initialised.
    """

    file: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    fresh: tuple[str, ...]

    @property
    def origin(self) -> dict[str, Any]:
        """What a run records about them."""
        return {"file": str(self.file.resolve()), "sha256": self.sha256, "fresh": list(self.fresh)}

    def __str__(self) -> str:
        text = f"starts from {self.file}"
        if not self.fresh:
            return text
        some = ", ".join(self.fresh[:3]) + (" ..." if len(self.fresh) > 3 else "")
        return f"{text}; random are {len(self.fresh)} of {len(self.tensors) + len(self.fresh)} tensors: {some}"


def read(file: Path, system: System, n_classes: int) -> Weights:
    """Weights for a system's network of so many classes. Nothing in the file is executed.

    Raises:
        ModelError: the file cannot be read or holds no weights, or they are another network's.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"--weights {file}: {error.strerror}", "check the path and its rights") from None
    where = f"--weights {file}"
    model, wider = (skeleton(system.build, n) for n in (n_classes, n_classes + 1))
    tensors, fresh = _fit(_state(data, where), model, wider, where, system.id)
    return Weights(file, hashlib.sha256(data).hexdigest(), tensors, fresh)


def _state(data: bytes, where: str) -> dict[str, Tensor]:
    remedy = "name a state dict saved by torch.save, such as those of torchvision"
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever zip, pickle and torch raise for foreign bytes
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{where}: no weights ({first_line})", remedy) from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{where}: no state dict", remedy)
    return state


def _fit(
    state: dict[str, Tensor], model: torch.nn.Module, wider: torch.nn.Module, where: str, id: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors that `model` takes over, and the names of those it does not.

    Args:
        state: the file's.
        model: without memory for its weights, as is `wider`.
        wider: the same with another number of classes.
        where, id: file and system, for messages.
    """
    remedy = f"name weights of the network that {id} is"
    wanted = model.state_dict()
    head = {name for name, value in wider.state_dict().items() if value.shape != wanted[name].shape}
    first = next((name for name, value in wanted.items() if value.ndim == 4), "")
    if foreign := state.keys() - wanted.keys():
        raise ModelError(f"{where}: {id} has no {min(foreign)}", remedy)
    taken: dict[str, Tensor] = {}
    fresh = []
    for name, value in wanted.items():
        if name.endswith(_COUNTER):
            taken[name] = state[name] if state.get(name, 0) else torch.tensor(_SETTLED)
        elif name not in state:
            if not _optional(name, model):
                raise ModelError(f"{where}: {name} of {id} is missing", remedy)
            fresh.append(name)
        elif state[name].shape == value.shape:
            taken[name] = state[name]
        elif name in head and state[name].shape[1:] == value.shape[1:]:
            fresh.append(name)
        elif name == first and state[name].shape[:1] + state[name].shape[2:] == value.shape[:1] + value.shape[2:]:
            channels = value.shape[1]
            taken[name] = (state[name].float().sum(dim=1, keepdim=True) / channels).repeat(1, channels, 1, 1)
        else:
            found, needed = ("×".join(map(str, each.shape)) or "a number" for each in (state[name], value))
            raise ModelError(f"{where}: {name} is {found}, in {id} {needed}", remedy)
    return taken, tuple(fresh)


def _optional(name: str, model: torch.nn.Module) -> bool:
    """Whether a plain network has no such tensor."""
    return "attention" in name.split(".") or name.split(".")[0] in getattr(model, "training_only", ())
