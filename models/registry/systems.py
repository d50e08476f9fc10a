"""Registry of systems: id, builder of the model, input requirements and recipe.

The module of a study (`models/zoo/<study>.py`) registers its systems when it is imported; `get` imports it on demand.
The ids are known without any import, from the recipe files, so that listing ids, rejecting an unknown one and choosing
a default do not import PyTorch.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources.abc import Traversable
from typing import Any, Literal

from mgc.models.registry import recipes
from mgc.pipeline import plugins, suggestions
from mgc.pipeline.errors import ModelError, UnknownModelError
from mgc.pipeline.store.slicing import Slicing

Kind = Literal["neural", "classical", "ensemble"]
#: Function from the number of classes to a model; see `System.build`.
Builder = Callable[[int], Any]

#: Side of a picture in pixels: the input size of the ImageNet networks.
PICTURE_SIZE = 224

#: Default system by feature. Of several stores that one extraction made, the feature that stands first here decides:
#: the one on which most was measured, then the smaller one.
_DEFAULTS = {
    "mel": "mgc/cnn",
    "mfcc": "mgc/mfcc",
    "stft": "mgc/stft",
    "embedding": "probe/logreg",
}

#: Default system of MFCC stores with fewer coefficients than `mgc/mfcc` reads, and how many it reads.
_FEW_COEFFICIENTS, _MANY = "vit2021/cnn", 20

#: Ids of systems by alias.
ALIASES = {"xu2022/resnet101": "xu2022/resnet-3-4-23-3"}

_systems: dict[str, System] = {}


@dataclass(frozen=True)
class InputSpec:
    """Requirements of one input of a model. The settings that the study chose within them are in its recipe.

    Attributes:
        adapter: conversion of stored levels in dB, or samples, to the model's tensor; see `mgc.models.data.adapters`.
        features: names of the features that the input can be made from, the preferred one first.
        bands: required number of mel bands, of statistics per track, or with `waveform` of samples per frame; with
            `mfcc`, the number of coefficients used, from the first on; with `mel`, the number of bands that are made
            of any number of frequencies; None for any number.
        frames: frames per slice that the model is trained on; None for any number.
        min_frames: minimum number of frames that the model's pools need; None if it is `frames`.
        time_first: whether the tensor's axes are (channel, time, band) instead of (channel, band, time).
        standardise: whether all values are scaled together to mean 0 and standard deviation 1 over the training split.
    """

    adapter: Literal["picture", "relative", "absolute", "log-power", "mel", "mfcc", "statistics", "moments", "waveform"]
    features: tuple[str, ...]
    bands: int | None = None
    frames: int | None = None
    min_frames: int | None = None
    time_first: bool = False
    standardise: bool = False

    @property
    def stored_bands(self) -> int | None:
        """Number of values a frame that a store must hold, with `mfcc` at least; None for any number."""
        return None if self.adapter == "mel" else self.bands

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of the input without the batch axis; None for an axis of any length."""
        if self.adapter == "picture":
            return (3, PICTURE_SIZE, PICTURE_SIZE)
        if self.adapter == "statistics":
            return (self.bands,)
        if self.adapter == "moments":
            return (None,)
        if self.adapter == "waveform":
            return (1, self.frames * self.bands if self.frames and self.bands else None)
        return (1, self.frames, self.bands) if self.time_first else (1, self.bands, self.frames)


@dataclass(frozen=True)
class System:
    """A published system: a model with its input requirements and its recipe.

    Attributes:
        id: `<study>/<name>`.
        kind: `neural` (PyTorch), `classical` (scikit-learn) or `ensemble` (mean of its members' probabilities).
        input: requirements of the first input.
        build: function from the number of classes to the model: an initialised `torch.nn.Module` that returns logits
            `(batch, n_classes)`, an unfitted scikit-learn classifier, or a `ModuleList` of an ensemble's members.
        recipe_file: TOML file with the study's settings and results.
        size: function from the number of classes to the number of parameters of a classical system; None if it depends
            on the data.
        further: requirements of further inputs, each from a store of its own; the module takes one argument per input.
        members: ids of an ensemble's members; empty for other kinds.
        grid: values that `--search` tries for parameters of a classical system's classifier, by parameter name.
        several: whether it reads any number of stores side by side, each as `input` says; see `reading`.
    """

    id: str
    kind: Kind
    input: InputSpec
    build: Builder
    recipe_file: Traversable
    size: Callable[[int], int] | None = None
    further: tuple[InputSpec, ...] = ()
    members: tuple[str, ...] = ()
    grid: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict, hash=False)
    several: bool = False

    def reading(self, n_stores: int) -> System:
        """The same system with an input for each of `n_stores` stores, if it reads several; else itself."""
        return dataclasses.replace(self, further=(self.input,) * (n_stores - 1)) if self.several else self

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Requirements of all inputs, one per store."""
        return (self.input, *self.further)

    def squeezes(self, slicing: Slicing) -> bool:
        """Whether slices of different lengths are squeezed into one window: if each whole track becomes one picture."""
        return slicing.whole and all(spec.adapter == "picture" for spec in self.inputs)

    @property
    def study(self) -> str:
        """Key of the study, the first part of the id."""
        return self.id.partition("/")[0]

    @property
    def aliases(self) -> list[str]:
        """Other ids of the system."""
        return [alias for alias, id in ALIASES.items() if id == self.id]

    @cached_property
    def recipe(self) -> recipes.Recipe:
        """What its study used and reported."""
        return recipes.read(self.recipe_file)

    @cached_property
    def uses_seed(self) -> bool:
        """Whether a run depends on its seed beyond the choice of tracks by `--limit-tracks`.

        Networks do; a classical system does if an estimator of it draws random numbers.
        """
        if self.kind != "classical":
            return True
        from mgc.models import classical

        return classical.uses_seed(self.build(2))

    @property
    def package(self) -> str | None:
        """Distribution and version that it comes from, such as `acme 1.0`; None for the systems of mgc."""
        return plugins.origin(self.build.__module__)

    def params(self, n_classes: int) -> int | None:
        """Count the trainable parameters; None for a classical system whose size depends on the data."""
        if self.kind == "classical":
            return self.size(n_classes) if self.size else None
        from mgc.models.registry.skeleton import n_params

        return n_params(self.build, n_classes)

    def require_trainable(self, n_stores: int | None = None) -> None:
        """Check that the system can be trained, on as many stores as it has inputs.

        Args:
            n_stores: number of stores to train on; None skips the check of it.

        Raises:
            ModelError: the system is an ensemble, or `n_stores` is not its number of inputs.
        """
        if self.kind == "ensemble":
            raise ModelError(
                f"{self.id} is the mean of {', '.join(self.members)}, and not trained itself",
                "train these, then evaluate their runs together: `mgc evaluate --ensemble RUN RUN`",
            )
        if not self.several and n_stores not in (None, len(self.inputs)):
            stores = " and ".join("/".join(spec.features) for spec in self.inputs)
            reads = f"{len(self.inputs)} stores ({stores})" if self.further else f"one store ({stores})"
            raise ModelError(f"{self.id} reads {reads}, not {n_stores}", "give --store once per store")


def system(
    id: str,
    *,
    input: InputSpec,
    kind: Kind = "neural",
    recipe: Traversable | None = None,
    size: Callable[[int], int] | None = None,
    further: tuple[InputSpec, ...] = (),
    members: tuple[str, ...] = (),
    grid: Mapping[str, Sequence[Any]] | None = None,
    several: bool = False,
) -> Callable[[Builder], Builder]:
    """Decorate a builder to register it as a system.

    Args:
        id: `<study>/<name>`.
        input: requirements of the first input.
        kind: kind of the system; `ensemble` is easier to register with the function of that name.
        recipe: path of the recipe, for systems of other packages; None for the file `manifests/recipes/<id>.toml`.
        size, further, members, grid, several: see `System`.

    Raises:
        ModelError: the id is already registered, or there is no recipe.
    """

    def register(build: Builder) -> Builder:
        if id in _systems:
            raise ModelError(f"two models have the id {id}", f"rename the one in {build.__module__}")
        file = recipe or recipes.recipe_files().get(id)
        if file is None:
            raise ModelError(f"{id} has no recipe", "give its path to `system` as `recipe`")
        if recipe is not None:
            recipes.read(recipe)  # a broken recipe ends the plug-in that has it, not the commands that list all systems
        _systems[id] = System(id, kind, input, build, file, size, further, members, grid or {}, several)
        return build

    return register


def ensemble(id: str, *, members: tuple[str, ...]) -> None:
    """Register the mean of the probabilities of other systems. Its inputs are those of its members.

    Args:
        id: `<study>/<name>`.
        members: ids of systems that are registered already.
    """
    member_systems = [_systems[member] for member in members]

    def build(n_classes: int) -> Any:
        from torch import nn

        return nn.ModuleList(member.build(n_classes) for member in member_systems)

    first, *further = dict.fromkeys(spec for member in member_systems for spec in member.inputs)
    system(id, input=first, kind="ensemble", further=tuple(further), members=members)(build)


def get(id: str) -> System:
    """Return the system with an id or alias.

    Raises:
        ModelError: there is no such system; the remedy names the nearest ids.
    """
    id = ALIASES.get(id, id)
    if id in recipes.recipe_files():
        _load_study(id)
    else:
        _load_plugins()
    if id not in _systems:
        hint = suggestions.question(suggestions.nearest(id, [*ids(), *ALIASES], cutoff=0.3))
        raise UnknownModelError(f"there is no model {id!r}", f"{hint}`mgc models` lists them all")
    return _systems[id]


def of_run(config: Mapping[str, Any]) -> System:
    """The system of a run.

    Args:
        config: the run's config.json.

    Raises:
        ModelError: there is no such system; for one of another package, the remedy says which.
    """
    try:
        return get(config["model"]).reading(1 + len(config.get("further", ())))
    except ModelError:
        package = config.get("package")
        if package is None:  # what is wrong is the run, not the command line
            problem = f"{config['model']}, the model of the run, is not in this version of mgc"
            raise ModelError(problem, "use the version of mgc that made the run, or train a new one") from None
        problem = f"{config['model']} comes from the package {package}, which is not installed or does not load"
        raise ModelError(problem, f"install it: pip install {package.replace(' ', '==')}") from None


def ids() -> list[str]:
    """List the ids of all systems, sorted."""
    _load_plugins()
    return sorted(recipes.recipe_files().keys() | _systems.keys())


def systems() -> list[System]:
    """List all systems, sorted by id. Imports PyTorch."""
    return [get(id) for id in ids()]


def preference(feature: str) -> int:
    """Rank of a feature among those of one extraction, from 0 for the one that is trained on by default."""
    return [*_DEFAULTS].index(feature) if feature in _DEFAULTS else len(_DEFAULTS)


def has_default(feature: str) -> bool:
    """Whether a feature has a default system."""
    return feature in _DEFAULTS


def default_model(feature: str, bins: int) -> str:
    """Return the id of the system that `mgc train` uses for a store by default.

    Args:
        feature: name of the store's feature.
        bins: values of a frame.

    Raises:
        ModelError: the feature has no default system.
    """
    if feature not in _DEFAULTS:
        raise ModelError(f"{feature} has no default model", "name one with --model; `mgc models` lists them all")
    return _FEW_COEFFICIENTS if feature == "mfcc" and bins < _MANY else _DEFAULTS[feature]


def _load_study(id: str) -> None:
    """Import the module that registers the systems of an id's study."""
    importlib.import_module(f"mgc.models.zoo.{id.partition('/')[0]}")


@cache
def _load_plugins() -> None:
    """Load the modules of other packages that register systems."""
    plugins.load(plugins.MODELS)
