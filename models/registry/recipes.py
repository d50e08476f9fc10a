"""Recipes: what a study did with its system, one TOML file each, and what it reported.

    [training.optimizer]
    name = ["adam", "printed"]
    lr = [2e-4, "code"]

Every setting is a pair of its value and where that comes from: `printed` in the paper, `code` of the authors or its
log, `derived` from what is printed, or `chosen` here where the study is silent or cannot be followed.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Literal, TypeVar

from mgc.models.registry.augmentation import NO_AUGMENTATION, Augmentation
from mgc.models.registry.settings import DEFAULT_LOOP, Loop, Metric, OptimizerName
from mgc.pipeline.errors import SpecError
from mgc.pipeline.features import FeatureSpec, feature_kind, feature_names
from mgc.pipeline.features.variants import Variant, parse_variants
from mgc.pipeline.store.slicing import Slicing

Source = Literal["printed", "code", "derived", "chosen"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Dataset:
    """What a study trained on.

    Attributes:
        name: the dataset.
        n_classes: its genres.
        split: `official`, the dataset's own, or `grouped`, 80/10/10 with all slices of a track on one side.
    """

    name: Literal["fma_small", "gtzan"]
    n_classes: int
    split: Literal["official", "grouped"]


#: Settings of their own that optimisers need, and values for those whom no recipe gives any.
OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "adam": {"betas": (0.9, 0.999), "eps": 1e-8},
    "adamw": {"betas": (0.9, 0.999), "eps": 1e-8},
    "rmsprop": {"rho": 0.9, "eps": 1e-8},
    "sgd": {"momentum": 0.9},
}


@dataclass(frozen=True)
class Optimizer:
    """A gradient step.

    Attributes:
        name: `adam`, `adamw` (Loshchilov and Hutter, 2019), `rmsprop` without momentum, or `sgd`; with all but `adamw`
            the weight decay is added to the gradient.
        lr: learning rate of the first update.
        eps: added to the root of the mean square gradient; not for SGD.
        betas: Adam's moments.
        rho: share of the old value in RMSprop's mean square gradient.
        momentum: SGD's.
        decay: `lr / (1 + decay * t)` after `t` updates.
        weight_decay: L2 term.
    """

    name: OptimizerName
    lr: float
    eps: float | None = None
    betas: tuple[float, float] | None = None
    rho: float | None = None
    momentum: float | None = None
    decay: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        needed = OPTIMIZERS[self.name]
        foreign = [key for key in ("eps", "betas", "rho", "momentum") if key not in needed]
        if any(getattr(self, key) is None for key in needed) or any(getattr(self, key) is not None for key in foreign):
            problem = f"{self.name} needs {' and '.join(needed)}, and takes no {' or '.join(foreign)}"
            raise SpecError(problem, "say how it averages gradients")


@dataclass(frozen=True)
class Training:
    """How long and on what a network is trained.

    Attributes:
        loss: one of `mgc.models.training.optim.LOSSES`.
        batch_size: slices per update.
        epochs: at most.
        monitor: validation metric that picks the epoch to keep.
        patience: epochs without a better one after which training stops.
        seed: of initial weights, order and dropout.
        optimizer: what an update does.
        augmentation: what happens to the slices of the training split.
        loop: everything else.
        variants: what each training track is also learnt from as, made when it is extracted; as `mgc extract --augment`
            takes them.
    """

    loss: Literal["cross-entropy", "binary-on-softmax"]
    batch_size: int
    epochs: int
    monitor: Metric
    patience: int
    seed: int
    optimizer: Optimizer
    augmentation: Augmentation = NO_AUGMENTATION
    loop: Loop = DEFAULT_LOOP
    variants: str = "none"

    def __post_init__(self) -> None:
        parse_variants(self.variants)

    @property
    def mode(self) -> Literal["max", "min"]:
        """Which way the monitored metric improves."""
        return "min" if self.monitor == "loss" else "max"


@dataclass(frozen=True)
class Published:
    """One line of a study's results, in per cent as printed.

    Attributes:
        split: what it was measured on; validation results are not comparable with test results.
        setting: which of several settings it belongs to; may be empty.
        accuracy: share of slices classified correctly.
        one_vs_rest_accuracy: mean over the genres of the accuracy of "this genre or not"; 78.1 by chance for 8 genres.
        macro_precision, macro_recall, macro_f1: plain means over the genres.
        f1_of_means: harmonic mean of the macro precision and the macro recall, which is not the macro F1.
    """

    split: Literal["validation", "test"]
    setting: str = ""
    accuracy: float | None = None
    one_vs_rest_accuracy: float | None = None
    macro_precision: float | None = None
    macro_recall: float | None = None
    macro_f1: float | None = None
    f1_of_means: float | None = None

    @property
    def scores(self) -> dict[str, float]:
        """The metrics that are printed, by name."""
        values = {name: value for name, value in dataclasses.asdict(self).items() if name not in ("split", "setting")}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Recipe:
    """One system as its study ran it.

    Attributes:
        model: id of the system.
        headline: the published result in a few words.
        dataset, features, slicing: what it was trained on.
        published: results, the headline's first.
        sources: where each setting comes from, by dotted key.
        training: how; None for a classical system, and for an ensemble, whose members are trained.
        further: features of further stores, where it reads several.
    """

    model: str
    headline: str
    dataset: Dataset
    features: FeatureSpec
    slicing: Slicing
    published: tuple[Published, ...]
    sources: Mapping[str, Source]
    training: Training | None = None
    further: tuple[FeatureSpec, ...] = ()

    @property
    def variants(self) -> tuple[Variant, ...]:
        """What it also learns from, of each training track."""
        return parse_variants(self.training.variants) if self.training else ()


@cache
def published() -> Mapping[str, Traversable]:
    """The recipe file of every system of the studies, by id. No file is opened."""
    root = resources.files("mgc.manifests") / "recipes"
    studies = [folder for folder in root.iterdir() if folder.is_dir()]
    files = {f"{study.name}/{file.name}": file for study in studies for file in study.iterdir()}
    return types.MappingProxyType(
        {name.removesuffix(".toml"): file for name, file in files.items() if name.endswith(".toml")}
    )


def read(file: Traversable) -> Recipe:
    """The recipe in a file.

    Raises:
        SpecError: it is not TOML; a key is missing, unknown or of the wrong type; a value is out of its range.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"{file}: {error}", "a recipe is a TOML file in UTF-8") from error
    return _Reader(str(file)).recipe(document)


class _Reader:
    """Makes dataclasses of the tables of one file and notes where each setting comes from."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._sources: dict[str, Source] = {}

    def recipe(self, document: dict[str, Any]) -> Recipe:
        self._check_keys("", document, Recipe, given={"sources"})
        further = self._typed("further", document.get("further", []), list)
        # A slice has one length: the default in seconds must not stand beside another.
        length = {} if "seconds" in self._typed("slicing", document["slicing"], dict) else {"seconds": None}
        rows = self._typed("published", document["published"], list)
        return Recipe(
            model=self._typed("model", document["model"], str),
            headline=self._typed("headline", document["headline"], str),
            dataset=self._make("dataset", document["dataset"], Dataset),
            features=self._features("features", document["features"]),
            slicing=self._make("slicing", document["slicing"], Slicing, **length),
            training=self._make("training", document["training"], Training) if "training" in document else None,
            published=tuple(self._make(f"published[{i}]", row, Published) for i, row in enumerate(rows)),
            sources=types.MappingProxyType(self._sources),
            further=tuple(self._features(f"further[{i}]", table) for i, table in enumerate(further)),
        )

    def _features(self, where: str, table: Any) -> FeatureSpec:
        settings = dict(self._typed(where, table, dict))
        name = self._setting(f"{where}.name", settings.pop("name", None), str)
        kind = feature_kind(name)
        if kind is None:
            raise self._error(f"{where}.name", f"is {name!r}", f"choose from {', '.join(feature_names())}")
        return self._make(where, settings, kind)

    def _make(self, where: str, table: Any, cls: type[_T], **given: Any) -> _T:
        """An instance of the dataclass `cls` from a table, but for the fields `given`."""
        hints = typing.get_type_hints(cls)
        self._check_keys(where, self._typed(where, table, dict), cls, given.keys())
        # Results are printed, all of them; only settings say where they come from.
        read = self._typed if cls is Published else self._setting
        values = {
            key: (self._make if dataclasses.is_dataclass(hints[key]) else read)(f"{where}.{key}", value, hints[key])
            for key, value in table.items()
        }
        try:
            return cls(**given, **values)
        except SpecError as error:
            raise SpecError(f"{self._file}: {where}: {error.problem}", error.remedy) from None

    def _check_keys(self, where: str, table: Mapping[str, Any], cls: type, given: Collection[str]) -> None:
        fields = {field.name: field for field in dataclasses.fields(cls) if field.name not in given}
        for key in table.keys() - fields.keys():
            raise self._error(f"{where}.{key}".lstrip("."), "is not a key", f"choose from {', '.join(fields)}")
        for name, field in fields.items():
            if field.default is dataclasses.MISSING and name not in table:
                raise self._error(f"{where}.{name}".lstrip("."), "is missing", "add it")

    def _setting(self, key: str, pair: Any, hint: Any) -> Any:
        """The value of `[value, source]`."""
        form = f"write [value, source] with a source of {', '.join(typing.get_args(Source))}"
        if not (isinstance(pair, list) and len(pair) == 2 and pair[1] in typing.get_args(Source)):
            raise self._error(key, f"is {pair!r}", form)
        self._sources[key] = pair[1]
        return self._typed(key, pair[0], hint)

    def _typed(self, key: str, value: Any, hint: Any) -> Any:
        """`value` if it is of the annotated type; an integer will do for a float, a list for a tuple."""
        if typing.get_origin(hint) is types.UnionType:
            hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
        kinds = typing.get_args(hint)
        if typing.get_origin(hint) is Literal:
            if value in kinds:
                return value
            raise self._error(key, f"is {value!r}", f"choose from {', '.join(map(str, kinds))}")
        if typing.get_origin(hint) is tuple and isinstance(value, list) and len(value) == len(kinds):
            return tuple(self._typed(key, item, kind) for item, kind in zip(value, kinds, strict=True))
        if hint is float and type(value) is int:
            return float(value)
        if type(value) is hint:  # exactly: TOML's true is no number
            return value
        raise self._error(key, f"is {value!r}", f"it must be of type {getattr(hint, '__name__', hint)}")

    def _error(self, key: str, problem: str, remedy: str) -> SpecError:
        return SpecError(f"{self._file}: {key} {problem}", remedy)
