"""The systems: a name, the builder of the model and the input it needs.

A study's module (`models/<study>.py`) registers its systems when it is imported, and is imported when one of them is
asked for. Which systems there are is known before that, from their recipes: listing ids, refusing a misspelt one and
choosing a default need no PyTorch.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources.abc import Traversable
from typing import Any, Literal

from mgc.models.registry import recipes
from mgc.pipeline import plugins
from mgc.pipeline.errors import ModelError
from mgc.pipeline.store.slicing import Slicing

Kind = Literal["neural", "classical", "ensemble"]
Builder = Callable[[int], Any]

#: Side of a picture in pixels, as the ImageNet networks expect it.
PICTURE_SIZE = 224

_DEFAULTS = {"stft": "xu2022/mobilenet", "mel": "kth2020/cnn", "mfcc": "vit2021/cnn"}

#: Other names of systems.
ALIASES = {"xu2022/resnet101": "xu2022/resnet-3-4-23-3"}

_systems: dict[str, System] = {}


@dataclass(frozen=True)
class InputSpec:
    """What a model cannot do without; what its study used beyond that stands in its recipe.

    Attributes:
        adapter: how absolute dB, or samples, become the model's tensor; one of `mgc.models.data.adapters`.
        features: kinds of feature store it can be made from, the preferred one first.
        bands: mel bands, statistics of a track, or with `waveform` samples of a frame, exactly; with `mfcc` the first
            coefficients used; None where any number will do.
        frames: frames of a slice that the model is trained on; None where any number will do.
        least_frames: what its pools need at least, where that is fewer than `frames`.
        time_first: whether the tensor is (channel, time, band) rather than (channel, band, time).
        standardise: whether the tensor has mean 0 and deviation 1 over the training split, all of its values together.
    """

    adapter: Literal["picture", "relative", "absolute", "mfcc", "statistics", "moments", "waveform"]
    features: tuple[str, ...]
    bands: int | None = None
    frames: int | None = None
    min_frames: int | None = None
    time_first: bool = False
    standardise: bool = False

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of one item of the model's batch; None along an axis of any length."""
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
    """One published system.

    Attributes:
        id: `<study>/<name>`.
        kind: neural (PyTorch), classical (scikit-learn) or ensemble (the mean of its members' probabilities).
        input: what it needs.
        build: from the number of classes, an initialised `torch.nn.Module` that returns logits `(batch, classes)`, an
            unfitted scikit-learn classifier, or a `ModuleList` of an ensemble's members.
        recipe_file: the TOML that says what its study did with it.
        size: parameters of a classical system by the number of classes, where they do not depend on the data.
        further: what it needs besides, of further stores; the module takes one more argument for each.
        members: ids of an ensemble's members.
        grid: values that `--search` tries for parameters of a classical system's classifier, by name.
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

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What it needs of each store."""
        return (self.input, *self.further)

    def squeezes(self, slicing: Slicing) -> bool:
        """Whether slices of any length are fitted into windows of one: whole tracks, each shown as one picture."""
        return slicing.whole and all(needs.adapter == "picture" for needs in self.inputs)

    @property
    def study(self) -> str:
        """The key of the study it comes from."""
        return self.id.partition("/")[0]

    @property
    def aliases(self) -> list[str]:
        """Its other names."""
        return [alias for alias, id in ALIASES.items() if id == self.id]

    @cached_property
    def recipe(self) -> recipes.Recipe:
        """What its study used and reported."""
        return recipes.read(self.recipe_file)

    @property
    def package(self) -> str | None:
        """Distribution and version that it comes from, such as `acme 1.0`; None for the systems of mgc."""
        return plugins.origin(self.build.__module__)

    def params(self, n_classes: int) -> int | None:
        """Trainable parameters as PyTorch counts them; None for a classical system whose size depends on the data."""
        if self.kind == "classical":
            return self.size(n_classes) if self.size else None
        from mgc.models.registry.skeleton import n_params

        return n_params(self.build, n_classes)

    def require_trainable(self, n_stores: int | None = None) -> None:
        """Raise `ModelError` where there is nothing to train, or not a store for each input."""
        if self.kind == "ensemble":
            raise ModelError(
                f"{self.id} is the mean of {', '.join(self.members)}, and not trained itself",
                "train these, then name their runs together: `mgc evaluate RUN RUN`",
            )
        if n_stores not in (None, len(self.inputs)):
            stores = " and ".join("/".join(needs.features) for needs in self.inputs)
            reads = f"{len(self.inputs)} stores ({stores})" if self.further else f"one store ({stores})"
            raise ModelError(f"{self.id} reads {reads}, and {n_stores} are given", "give --store once for each")


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
) -> Callable[[Builder], Builder]:
    """Register the decorated builder, a function of the number of classes.

    Args:
        id: `<study>/<name>`.
        input: what the model needs.
        kind: neural or classical.
        recipe: its recipe, for a system from outside this package.
        size: see `System`.
        further: what it needs of further stores.
        members: of an ensemble, for which `ensemble` is shorter.
        grid: see `System`.

    Raises:
        ModelError: the id is taken, or there is no recipe.
    """

    def register(build: Builder) -> Builder:
        if id in _systems:
            raise ModelError(f"two models are called {id}", f"rename the one in {build.__module__}")
        file = recipe or recipes.published().get(id)
        if file is None:
            raise ModelError(f"{id} has no recipe", "give `system` the path of one")
        if recipe is not None:
            recipes.read(recipe)  # a broken recipe ends the plug-in that has it, not the commands that list all systems
        _systems[id] = System(id, kind, input, build, file, size, further, members, grid or {})
        return build

    return register


def ensemble(id: str, *, members: tuple[str, ...]) -> None:
    """Register the mean of the probabilities of systems that are registered already; it needs what they need.

    Args:
        id: `<study>/<name>`.
        members: ids.
    """
    parts = [_systems[member] for member in members]

    def build(n_classes: int) -> Any:
        from torch import nn

        return nn.ModuleList(part.build(n_classes) for part in parts)

    first, *further = dict.fromkeys(needs for part in parts for needs in part.inputs)
    system(id, input=first, kind="ensemble", further=tuple(further), members=members)(build)


def get(id: str) -> System:
    """The system of this id or alias.

    Raises:
        ModelError: there is none; the remedy names the nearest ids.
    """
    id = ALIASES.get(id, id)
    if id in recipes.published():
        _load_study(id)
    else:
        _load_plugins()
    if id not in _systems:
        nearest = difflib.get_close_matches(id, [*ids(), *ALIASES], n=3, cutoff=0.3)
        hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
        raise ModelError(f"there is no model {id!r}", f"{hint}`mgc models` lists them all")
    return _systems[id]


def of_run(config: Mapping[str, Any]) -> System:
    """The system of a run.

    Args:
        config: the run's config.json.

    Raises:
        ModelError: there is no such system; for one of another package, the remedy says which.
    """
    try:
        return get(config["model"])
    except ModelError:
        package = config.get("package")
        if package is None:
            raise
        problem = f"{config['model']} comes from the package {package}, which is not installed or does not load"
        raise ModelError(problem, f"install it: pip install {package.replace(' ', '==')}") from None


def ids() -> list[str]:
    """Every system's id, sorted."""
    _load_plugins()
    return sorted(recipes.published().keys() | _systems.keys())


def systems() -> list[System]:
    """Every system, sorted by id. Imports PyTorch."""
    return [get(id) for id in ids()]


def default_model(feature: str) -> str:
    """Id of the system that is trained on a store of this kind of feature when none is named.

    Raises:
        ModelError: no system is the default for it.
    """
    if feature not in _DEFAULTS:
        raise ModelError(f"no model is the default for {feature}", "name one with --model; `mgc models` lists them all")
    return _DEFAULTS[feature]


def _load_study(id: str) -> None:
    importlib.import_module(f"mgc.models.zoo.{id.partition('/')[0]}")


@cache
def _load_plugins() -> None:
    """Load the modules of other packages that register systems."""
    plugins.load(plugins.MODELS)
