"""Embedder: one layer of a network, as a function from windows of stored frames to vectors."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mgc.models.data import adapters
from mgc.models.embedding.onnx_model import OnnxModule, read_description
from mgc.models.parallel.device import choose_device, retain_freed_memory
from mgc.models.parallel.transfer import Transfer, send
from mgc.models.registry.weights import load_trained
from mgc.models.runs.commands import is_run
from mgc.models.runs.run import Run
from mgc.models.training.last_layer import LastLayer
from mgc.models.training.predict import load_network
from mgc.models.zoo.pons2019 import TaggingNetwork
from mgc.pipeline.downloads.published_weights import published_weights_names
from mgc.pipeline.errors import ModelError, RunError, SpecError
from mgc.pipeline.features import Embedding, FeatureSpec
from mgc.pipeline.workspace import Workspace

#: Name of the only layer of a run: the input of its last layer, or those of all members of a committee.
LAST = "last"
#: Networks that a name without any stands for. In grouped cross-validation, the two together are about as good as the
#: better one of them on all layers and classifiers that were tried, and that one is not always the same.
DEFAULTS = {"musicnn": "musicnn/MSD_musicnn+MTT_musicnn"}
#: Name of an ONNX file's output if its description names none.
FIRST = "first"


@dataclass(frozen=True)
class Embedder:
    """One layer of a network.

    Attributes:
        model: name of the network, see `Embedding.model`.
        layer: name of the layer.
        weights: SHA-256 of the network's weights, in hexadecimal.
        spec: feature that the network reads; a store may hold it in another dtype.
        window: frames of a window.
        module: maps windows, float32 `(batch, window, bins)` in the units of `spec`, to vectors `(batch, width)`.
        width: values of a vector.
        device: device of the module.
    """

    model: str
    layer: str
    weights: str
    spec: FeatureSpec
    window: int
    module: nn.Module
    width: int
    device: torch.device

    def embedding(self, hop: int, dtype: str = "float32") -> Embedding:
        """The feature of a store that holds a vector every `hop` frames."""
        return Embedding(
            model=self.model,
            layer=self.layer,
            width=self.width,
            weights=self.weights[:16],
            of=self.spec.as_option(),
            window=self.window * self.spec.hop_length,
            sr=self.spec.sr,
            hop_length=hop * self.spec.hop_length,
            dtype=dtype,
        )

    def __call__(self, windows: np.ndarray, stored: FeatureSpec) -> Transfer:
        """Compute the vectors of windows; on a GPU, queue that.

        Args:
            windows: `(batch, window, bins)`, as a store holds them.
            stored: feature of that store, for the meaning of its integers.

        Returns:
            float32 `(batch, width)`, on their way to the host.
        """
        values = send(windows, self.device).float()
        if stored.quantised:
            values = values.mul_(stored.scale).add_(stored.offset)
        with torch.inference_mode():
            return Transfer(self.module(values).float())


def of_run(run: Run, device: str = "auto") -> Embedder:
    """The layer before the last of a run's network, on windows as long as the run's slices.

    Raises:
        RunError: the run is unfinished or damaged, is not that of a network with one input, or its last layer does not
            give a row for each slice.
    """
    if not run.finished:
        raise RunError(f"{run.path}: its training is unfinished", f"continue it: `mgc train --resume --run {run.path}`")
    if run.config.get("kind") != "neural" or len(run.sources) > 1:
        raise RunError(f"{run.path}: {run.model} has no embeddings", "name the run of a network that reads one store")
    chosen = choose_device(device)
    network = load_network(run, [run.spec], chosen).eval()
    module = _Vectors(LastLayer(network, len(run.classes)))
    weights = hashlib.sha256(run.read(run.model_file())).hexdigest()
    embedder = build(run.path.name, LAST, weights, run.spec, run.frames, module, chosen)
    if not embedder.width:
        raise RunError(f"{run.path}: {run.model} has no last layer that gives a row for each slice", "name another run")
    return embedder


def of_weights(name: str, workspace: Workspace, layer: str | None = None, device: str = "auto") -> Embedder:
    """A layer of networks whose weights `mgc download` fetched; that of several networks side by side.

    Args:
        name: `musicnn/MTT_musicnn`, several as `musicnn/MSD_musicnn+MSD_vgg`; `musicnn` stands for `DEFAULT`.
        workspace: workspace that holds the weights.
        layer: name of the layer in each of the networks, or one for each, joined by `+`; None for those that the
            authors take.
        device: see `mgc.models.parallel.device.choose_device`.

    Raises:
        ModelError: there are no such weights, they are not downloaded, or damaged.
        SpecError: a network has no such layer, or they do not read the same frames.
    """
    chosen = choose_device(device)
    package, _, networks = DEFAULTS.get(name, name).partition("/")
    names = networks.split("+")
    wanted = layer.split("+") if layer is not None else [None] * len(names)
    wanted = wanted * len(names) if len(wanted) == 1 else wanted
    if len(wanted) != len(names):
        raise SpecError(f"--layer {layer}: {len(names)} networks", "name one layer for all, or one for each")
    layers, digests, modules = [], [], []
    for network_name, layer_name in zip(names, wanted, strict=True):
        system, network, weights = load_trained(f"{package}/{network_name}", workspace)
        assert isinstance(network, TaggingNetwork)
        layers.append(layer_name or network.EMBEDDING)
        if layers[-1] not in network.LAYERS:
            known = ", ".join(network.LAYERS)
            raise SpecError(f"--layer {layer_name}: {system.id} has none of this name", f"choose from {known}")
        digests.append(weights.sha256)
        modules.append(
            nn.Sequential(adapters.adapter(system.input, system.recipe.features), LayerModule(network, layers[-1]))
        )
    spec, window = system.recipe.features, system.input.frames
    assert window is not None
    return build(
        f"{package}/{networks}",
        layers[0] if len(set(layers)) == 1 else "+".join(layers),
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest(),
        spec,
        window,
        _SideBySide(modules).to(chosen).eval(),
        chosen,
    )


def of_onnx(path: Path) -> Embedder:
    """The output of an ONNX file whose input `<name>.toml` beside it describes; it runs on the CPU.

    Raises:
        SpecError: a file is missing or damaged, or they do not fit each other.
        MgcError: ONNX Runtime is not installed.
    """
    description = read_description(path.with_suffix(".toml"))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}", "check the path and its permissions") from None
    module = OnnxModule(data, description, path)
    layer, weights = description.output or FIRST, hashlib.sha256(data).hexdigest()
    try:
        return build(path.name, layer, weights, description.spec, description.frames, module, torch.device("cpu"))
    except Exception as error:  # ONNX Runtime has an error of its own for each kind of misfit
        problem = f"{path}: it does not take the input that {path.with_suffix('.toml').name} describes"
        raise SpecError(f"{problem} ({str(error).splitlines()[0]})", "mend the description") from None


def open_model(name: str, workspace: Workspace, layer: str | None = None, device: str = "auto") -> Embedder:
    """Open what MODEL of `mgc embed` names: a run's folder, an ONNX file, or downloaded weights.

    Raises:
        MgcError: there is no such model, or it cannot be used; see `of_run`, `of_onnx` and `of_weights`.
    """
    path = Path(name)
    if path.suffix == ".onnx" or is_run(path):
        if layer not in (None, LAST, FIRST):
            raise SpecError(f"--layer {layer}: {name} has one layer to take", "leave the option out")
        return of_onnx(path) if path.suffix == ".onnx" else of_run(Run.open(path), device)
    if name.partition("/")[0] not in published_weights_names():
        known = ", ".join(published_weights_names())
        raise ModelError(f"{name}: no run, no ONNX file and no downloaded weights", f"name a run's folder, or {known}")
    return of_weights(name, workspace, layer, device)


def of_spec(spec: Embedding, workspace: Workspace, device: str = "auto") -> Embedder:
    """Open the network that made the embeddings of a store.

    Args:
        spec: feature of the store.
        workspace: workspace that holds the run, or the downloaded weights.
        device: see `mgc.models.parallel.device.choose_device`.

    Raises:
        MgcError: there is no such network in the workspace, or it has other weights.
    """
    name = str(workspace.runs / spec.model) if spec.layer == LAST else spec.model
    embedder = open_model(name, workspace, spec.layer, device)
    if embedder.weights[:16] != spec.weights:
        problem = f"{name} has other weights than the network that the embeddings are of"
        raise ModelError(problem, f"embed again: `mgc embed {shlex.quote(name)}`")
    if spec.width < embedder.width:
        # The last member of a committee alone is in stores of mgc before all members' vectors were stored.
        module = nn.Sequential(embedder.module, _LastValues(spec.width))
        embedder = dataclasses.replace(embedder, module=module, width=spec.width)
    return embedder


def build(
    model: str, layer: str, weights: str, spec: FeatureSpec, window: int, module: nn.Module, device: torch.device
) -> Embedder:
    """Build an embedder; the width is that of the vector of silence. For the arguments see `Embedder`."""
    retain_freed_memory()
    with torch.inference_mode():
        width = module(torch.zeros(1, window, spec.bins, device=device)).shape[1]
    return Embedder(model, layer, weights, spec, window, module, width, device)


class LayerModule(nn.Module):
    """One layer of a tagging network."""

    def __init__(self, network: TaggingNetwork, layer: str) -> None:
        super().__init__()
        self._network, self._layer = network, layer

    def forward(self, x: Tensor) -> Tensor:
        """Map the network's input to vectors `(batch, d)`."""
        return self._network.embed(x, self._layer)


class _SideBySide(nn.Module):
    """The vectors of several networks, joined."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self._networks = nn.ModuleList(modules)

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames `(batch, frames, bins)` to vectors `(batch, sum of the widths)`."""
        return torch.cat([network(frames) for network in self._networks], dim=1)


class _LastValues(nn.Module):
    """The last values of a vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def forward(self, vectors: Tensor) -> Tensor:
        """Map vectors `(batch, d)` to `(batch, width)`."""
        return vectors[:, -self._width :]


class _Vectors(nn.Module):
    """The embeddings that `LastLayer` returns, without the logits."""

    def __init__(self, network: LastLayer) -> None:
        super().__init__()
        self._network = network

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames `(batch, frames, bins)` to vectors `(batch, d)`."""
        return self._network.split(self._network(frames))[0]
