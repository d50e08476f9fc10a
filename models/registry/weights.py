"""Pretrained weights: initialise a network from a file instead of at random.

The file is a state dict saved by `torch.save`, by itself or under the key `model` or `state_dict` (a run's best.pt will
do), or a safetensors file. Those of `mgc download musicnn` have names: see `find`. It must hold every tensor of the
network under the same name, and no other tensor, with these exceptions:

- Head: if the file has another number of classes, every tensor whose shape depends on it keeps its random initial
  values.
- First convolution: if the file has another number of input channels, the weights are summed over them and divided
  equally among the network's channels, which gives the same output for inputs whose channels are all equal. A picture
  has three channels, as photographs do, so ImageNet weights are used unchanged.
- Attention modules, and heads that only training uses: they keep their random initial values if the file lacks them.
- Running statistics without a number of updates count as converged.

Public GoogLeNet weights expect pixels in [-1, 1], and not pixels normalised by ImageNet's means and standard
deviations. The two differ by a factor of 0.45 and an offset, which the batch norm behind the first convolution learns
in training.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgc.models.registry import systems
from mgc.models.registry.skeleton import build_on_meta
from mgc.models.registry.systems import System
from mgc.pipeline.downloads.published_weights import PublishedNetwork, published_weights, published_weights_names
from mgc.pipeline.downloads.weights import ORIGIN, SUFFIX
from mgc.pipeline.errors import ModelError
from mgc.pipeline.workspace import Workspace

_COUNTER = "num_batches_tracked"
#: Number of updates after which the initial running statistics no longer count: 0.99 ** 10_000 is 2e-44.
_CONVERGED = 10_000


@dataclass(frozen=True)
class Weights:
    """Tensors of a weights file, matched to a network.

    Attributes:
        file: path of the file.
        sha256: SHA-256 digest of the file's bytes, in hexadecimal.
        tensors: tensors to load into the network, by their names in its state dict.
        fresh: names of the tensors that keep their random initial values.
        origin: what the metadata of a published file say, such as `trained_on` and `licence`; empty for other files.
    """

    file: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    fresh: tuple[str, ...]
    origin: Mapping[str, Any]

    @property
    def provenance(self) -> dict[str, Any]:
        """The entry `weights` of a run's config.json: file, digest, and the tensors that the file did not give."""
        origin = {"origin": dict(self.origin)} if self.origin else {}
        return {"file": str(self.file.resolve()), "sha256": self.sha256, "fresh": list(self.fresh)} | origin

    def __str__(self) -> str:
        """One line for the log of a run."""
        licence = f" (trained on {self.origin['trained_on']}, licence {self.origin['licence']})" if self.origin else ""
        text = f"initial weights: {self.file}{licence}"
        if not self.fresh:
            return text
        names = ", ".join(self.fresh[:3]) + (" ..." if len(self.fresh) > 3 else "")
        n_tensors = len(self.tensors) + len(self.fresh)
        return f"{text}; {len(self.fresh)} of {n_tensors} tensors are initialised at random: {names}"


def find(name: Path, system: System, workspace: Workspace) -> Path:
    """Return the file that `--weights` names.

    Args:
        name: path of a file; or `musicnn`, or `musicnn/MTT_musicnn`, weights that `mgc download` fetched.
        system: system whose weights are wanted; without the name of a network, the first one of the system is taken.
        workspace: workspace that holds downloaded weights.

    Returns:
        The path of the file; a path that is no such name is returned as it is.

    Raises:
        ModelError: the weights are not downloaded, or belong to another system.
    """
    package, _, network_name = name.as_posix().partition("/")
    if name.exists() or package not in published_weights_names():
        return name
    networks = published_weights(package).networks
    named = [network for network in networks if network.name == network_name] if network_name else list(networks)
    fitting = [network for network in named if network.system == system.id]
    if not fitting:
        known = ", ".join(f"{package}/{network.name} ({network.system})" for network in networks)
        raise ModelError(f"--weights {name}: no weights of {system.id}", f"there are {known}")
    file = _downloaded(package, fitting[0], workspace)
    if not file.is_file():
        raise ModelError(f"--weights {name}: {file} is not there", f"get it with `mgc download {package}`")
    return file


def _downloaded(package: str, network: PublishedNetwork, workspace: Workspace) -> Path:
    return workspace.weights / package / f"{network.name}{SUFFIX}"


def load_trained(name: str, workspace: Workspace) -> tuple[System, torch.nn.Module, Weights]:
    """Load a network with all its downloaded weights, its outputs included.

    Args:
        name: `musicnn/MSD_musicnn` and so on; `musicnn` is the first of its networks.
        workspace: workspace that holds downloaded weights.

    Returns:
        The system, the network in evaluation mode on the CPU, with one output per tag, and its weights; the names of
        the tags are `origin["tags"]`.

    Raises:
        ModelError: there are no weights of this name, they are not downloaded, or damaged.
    """
    package, _, network_name = name.partition("/")
    networks = published_weights(package).networks if package in published_weights_names() else ()
    named = [network for network in networks if network_name in ("", network.name)]
    if not named:
        raise ModelError(f"there are no weights {name!r}", "`mgc download` lists what there is")
    system = systems.get(named[0].system)
    file = find(Path(package, named[0].name), system, workspace)
    n_tags = len(named[0].tags)
    weights, model = read(file, system, n_tags), system.build(n_tags)
    model.load_state_dict(dict(weights.tensors))
    return system, model.eval(), weights


def read(file: Path, system: System, n_classes: int) -> Weights:
    """Read a weights file and match it to a system's network. No code in the file is executed.

    Args:
        file: path of the file.
        system: a neural system.
        n_classes: number of classes of the network.

    Raises:
        ModelError: the file cannot be read, holds no weights, or holds those of another network.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"--weights {file}: {error.strerror}", "check the path and its permissions") from None
    origin = _origin(data) if file.suffix == SUFFIX else {}
    if origin and origin.get("system") != system.id:
        problem = f"--weights {file}: these are weights of {origin.get('system')}, not of {system.id}"
        raise ModelError(problem, f"train that, or name weights of {system.id}")
    model, wider_model = (build_on_meta(system.build, n) for n in (n_classes, n_classes + 1))
    tensors, fresh = _match(_load_state(data, file), model, wider_model, file, system.id)
    return Weights(file, hashlib.sha256(data).hexdigest(), tensors, fresh, origin)


def _load_state(data: bytes, file: Path) -> dict[str, Tensor]:
    """Load the state dict in the bytes of a file.

    Raises:
        ModelError: the bytes are not a file of `torch.save` or safetensors, or it holds no state dict.
    """
    remedy = "name a state dict saved by torch.save, such as torchvision's, or a .safetensors file"
    try:
        if file.suffix == SUFFIX:
            from safetensors.torch import load

            state: Any = load(data)
        else:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch raise many types for other files
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"--weights {file}: no weights ({first_line})", remedy) from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"--weights {file}: no state dict", remedy)
    return state


def _origin(data: bytes) -> dict[str, Any]:
    """What the metadata of a safetensors file say about its origin, if mgc wrote it.

    A safetensors file begins with the length of its header, 8 bytes, and the header, a JSON object.
    """
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        origin = json.loads(header["__metadata__"][ORIGIN])
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return origin if isinstance(origin, dict) and {"trained_on", "licence"} <= origin.keys() else {}


def _match(
    state: dict[str, Tensor], model: torch.nn.Module, wider_model: torch.nn.Module, file: Path, id: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Match a state dict to a network.

    Args:
        state: state dict of the file.
        model: the network, on the meta device.
        wider_model: the same with another number of classes; it tells which tensors belong to the head.
        file, id: path of the file and id of the system, for messages.

    Returns:
        The tensors to load, by name, and the names of the tensors that keep their initial values.

    Raises:
        ModelError: a tensor is missing, unknown, or of another shape.
    """
    where, remedy = f"--weights {file}", f"name weights of the network of {id}"
    targets = model.state_dict()
    head = {name for name, value in wider_model.state_dict().items() if value.shape != targets[name].shape}
    first_convolution = next((name for name, value in targets.items() if value.ndim == 4), "")
    if unknown := state.keys() - targets.keys():
        raise ModelError(f"{where}: {id} has no {min(unknown)}", remedy)
    tensors: dict[str, Tensor] = {}
    fresh = []
    for name, target in targets.items():
        if name.endswith(_COUNTER):
            tensors[name] = state[name] if state.get(name, 0) else torch.tensor(_CONVERGED)
            continue
        if name not in state:
            if not _is_optional(name, model):
                raise ModelError(f"{where}: {name} of {id} is missing", remedy)
            fresh.append(name)
            continue
        value = state[name]
        if value.shape == target.shape:
            tensors[name] = value
        elif name in head and value.shape[1:] == target.shape[1:]:
            fresh.append(name)
        elif name == first_convolution and value.shape[:1] + value.shape[2:] == target.shape[:1] + target.shape[2:]:
            channels = target.shape[1]
            tensors[name] = (value.float().sum(dim=1, keepdim=True) / channels).repeat(1, channels, 1, 1)
        else:
            shape, target_shape = ("×".join(map(str, tensor.shape)) or "a scalar" for tensor in (value, target))
            raise ModelError(f"{where}: {name} has shape {shape}, but {target_shape} in {id}", remedy)
    return tensors, tuple(fresh)


def _is_optional(name: str, model: torch.nn.Module) -> bool:
    """Whether a tensor belongs to an attention module or to a head that only training uses."""
    return "attention" in name.split(".") or name.split(".")[0] in getattr(model, "training_only", ())
