"""Recipes: one TOML file per system with the settings and the published results of its study.

    [training.optimizer]
    name = ["adam", "printed"]
    lr = [2e-4, "code"]

Every setting is a pair of a value and its source: `printed` in the paper, `code` of the authors or its log, `derived`
from printed values, or `chosen` here, where the study gives no value or cannot be followed.
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

#: Source of a setting; see the module's docstring.
Source = Literal["printed", "code", "derived", "chosen"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Dataset:
    """Dataset and split of a study.

    Attributes:
        name: name of the dataset.
        n_classes: number of genres.
        split: `official`: the dataset's own. `grouped`: 80/10/10 with all slices of a track in one split.
        published_split: the study's own split in words, where `split` replaces it; else empty.
        published_unit: what the study dealt to its splits: `track`, or `slice`, which is a leak.
    """

    name: Literal["fma_small", "gtzan"]
    n_classes: int
    split: Literal["official", "grouped"]
    published_split: str = ""
    published_unit: Literal["track", "slice"] = "track"


#: Additional settings of each optimiser, with the values to use when no recipe gives any.
OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "adam": {"betas": (0.9, 0.999), "eps": 1e-8},
    "adamw": {"betas": (0.9, 0.999), "eps": 1e-8},
    "rmsprop": {"rho": 0.9, "eps": 1e-8},
    "sgd": {"momentum": 0.9},
}


@dataclass(frozen=True)
class Optimizer:
    """Optimiser settings.

    Attributes:
        name: `adam`, `adamw` (Loshchilov and Hutter, 2019), `rmsprop` without momentum, or `sgd`. All but `adamw` add
            the weight decay to the gradient.
        lr: learning rate of the first update.
        eps: constant added to the root of the mean squared gradient; None for SGD.
        betas: decay rates of Adam's first and second moment; None for other optimisers.
        rho: decay rate of RMSprop's mean squared gradient; None for other optimisers.
        momentum: momentum of SGD; None for other optimisers.
        decay: inverse-time decay of the learning rate: `lr / (1 + decay * t)` after `t` updates.
        weight_decay: factor of the L2 penalty, or of AdamW's decoupled decay.

    Raises:
        SpecError: a setting of the optimiser is missing, or a setting of another one is present.
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
        required = OPTIMIZERS[self.name]
        excluded = [key for key in ("eps", "betas", "rho", "momentum") if key not in required]
        missing = any(getattr(self, key) is None for key in required)
        if missing or any(getattr(self, key) is not None for key in excluded):
            problem = f"{self.name} needs {' and '.join(required)}, and takes no {' or '.join(excluded)}"
            raise SpecError(problem, f"give {' and '.join(required)} alone")


@dataclass(frozen=True)
class Training:
    """Training settings of a network.

    Attributes:
        loss: name of the loss, a key of `mgc.models.training.optim.LOSSES`.
        batch_size: slices per update.
        epochs: maximum number of epochs.
        monitor: validation metric that selects the best epoch.
        patience: epochs without improvement after which training stops.
        seed: seed of initial weights, slice order and dropout.
        optimizer: optimiser settings.
        augmentation: augmentation of training slices, on the device.
        loop: further settings of the training loop.
        variants: augmented copies of each training track, made at extraction, in the format of `mgc extract --augment`.

    Raises:
        SpecError: `variants` cannot be parsed.
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
        """Direction in which the monitored metric improves."""
        return "min" if self.monitor == "loss" else "max"


@dataclass(frozen=True)
class PublishedResult:
    """Row of a study's results, in per cent as printed; None for metrics that are not printed.

    Attributes:
        split: split that the scores were measured on. Validation scores are not comparable with test scores.
        setting: name of the setting, if the study reports several; else empty.
        accuracy: share of correctly classified slices.
        one_vs_rest_accuracy: mean over the genres of the binary accuracy "this genre or not"; 78.1 by chance for 8
            genres.
        macro_precision, macro_recall, macro_f1: unweighted means over the genres.
        f1_of_means: harmonic mean of the macro precision and the macro recall, which differs from the macro F1.
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
        """The printed metrics, by name."""
        values = {name: value for name, value in dataclasses.asdict(self).items() if name not in ("split", "setting")}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Recipe:
    """Settings and published results of one system.

    Attributes:
        model: id of the system.
        headline: the published result in a few words.
        dataset: dataset and split of the study.
        features: feature of the system's first store.
        slicing: slicing of the system's stores.
        published: published results, the headline's first.
        sources: source of each setting, by dotted key such as `training.optimizer.lr`.
        training: training settings; None for a classical system, and for an ensemble, whose members are trained.
        further: features of the second and further stores, for a system with several inputs.
        embedding: network that `features` are embedded with, as `mgc embed` names it; empty for systems that read
            `features` themselves.
        refit: whether the model in use is trained once more, on training and validation tracks, see
            `mgc.models.training.fitting`.
    """

    model: str
    headline: str
    dataset: Dataset
    features: FeatureSpec
    slicing: Slicing
    published: tuple[PublishedResult, ...]
    sources: Mapping[str, Source]
    training: Training | None = None
    further: tuple[FeatureSpec, ...] = ()
    embedding: str = ""
    refit: bool = False

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Augmented copies of each training track; empty for a classical system."""
        return parse_variants(self.training.variants) if self.training else ()


@cache
def recipe_files() -> Mapping[str, Traversable]:
    """Map the id of every system of the studies to its recipe file, without opening any file."""
    root = resources.files("mgc.manifests") / "recipes"
    studies = [folder for folder in root.iterdir() if folder.is_dir()]
    files = {f"{study.name}/{file.name}": file for study in studies for file in study.iterdir()}
    return types.MappingProxyType(
        {name.removesuffix(".toml"): file for name, file in files.items() if name.endswith(".toml")}
    )


def read(file: Traversable) -> Recipe:
    """Read a recipe file.

    Raises:
        SpecError: the file is not TOML; a key is missing, unknown or of the wrong type; a value is out of its range.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"{file}: {error}", "a recipe is a TOML file in UTF-8") from error
    return _Reader(str(file)).recipe(document)


class _Reader:
    """Converts the tables of one recipe file to dataclasses, and collects the source of each setting."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._sources: dict[str, Source] = {}

    def recipe(self, document: dict[str, Any]) -> Recipe:
        """Convert the whole document."""
        self._check_keys("", document, Recipe, preset={"sources"})
        further = self._typed("further", document.get("further", []), list)
        # A slice has one length: without `seconds` in the table, its default must not conflict with another length.
        length = {} if "seconds" in self._typed("slicing", document["slicing"], dict) else {"seconds": None}
        rows = self._typed("published", document["published"], list)
        return Recipe(
            model=self._typed("model", document["model"], str),
            headline=self._typed("headline", document["headline"], str),
            dataset=self._make("dataset", document["dataset"], Dataset),
            features=self._features("features", document["features"]),
            slicing=self._make("slicing", document["slicing"], Slicing, **length),
            training=self._make("training", document["training"], Training) if "training" in document else None,
            published=tuple(self._make(f"published[{i}]", row, PublishedResult) for i, row in enumerate(rows)),
            sources=types.MappingProxyType(self._sources),
            further=tuple(self._features(f"further[{i}]", table) for i, table in enumerate(further)),
            embedding=self._setting("embedding", document["embedding"], str) if "embedding" in document else "",
            refit=self._setting("refit", document["refit"], bool) if "refit" in document else False,
        )

    def _features(self, where: str, table: Any) -> FeatureSpec:
        """Convert a table of feature settings, whose `name` selects the dataclass."""
        settings = dict(self._typed(where, table, dict))
        name = self._setting(f"{where}.name", settings.pop("name", None), str)
        kind = feature_kind(name)
        if kind is None:
            raise self._error(f"{where}.name", f"is {name!r}", f"choose from {', '.join(feature_names())}")
        return self._make(where, settings, kind)

    def _make(self, where: str, table: Any, cls: type[_T], **preset: Any) -> _T:
        """Create an instance of the dataclass `cls` from a table, with the values of `preset` for the other fields."""
        hints = typing.get_type_hints(cls)
        self._check_keys(where, self._typed(where, table, dict), cls, preset.keys())
        # Only settings have a source; all results are printed ones.
        read = self._typed if cls is PublishedResult else self._setting
        values = {
            key: (self._make if dataclasses.is_dataclass(hints[key]) else read)(f"{where}.{key}", value, hints[key])
            for key, value in table.items()
        }
        try:
            return cls(**preset, **values)
        except SpecError as error:
            raise SpecError(f"{self._file}: {where}: {error.problem}", error.remedy) from None

    def _check_keys(self, where: str, table: Mapping[str, Any], cls: type, preset: Collection[str]) -> None:
        """Raise `SpecError` for a key that `cls` does not have, or a missing one, `preset` fields excepted."""
        fields = {field.name: field for field in dataclasses.fields(cls) if field.name not in preset}
        for key in table.keys() - fields.keys():
            raise self._error(f"{where}.{key}".lstrip("."), "is not a key", f"choose from {', '.join(fields)}")
        for name, field in fields.items():
            if field.default is dataclasses.MISSING and name not in table:
                raise self._error(f"{where}.{name}".lstrip("."), "is missing", "add it")

    def _setting(self, key: str, pair: Any, hint: Any) -> Any:
        """Return the value of a pair `[value, source]`, and record its source."""
        form = f"write [value, source] with a source of {', '.join(typing.get_args(Source))}"
        if not (isinstance(pair, list) and len(pair) == 2 and pair[1] in typing.get_args(Source)):
            raise self._error(key, f"is {pair!r}", form)
        self._sources[key] = pair[1]
        return self._typed(key, pair[0], hint)

    def _typed(self, key: str, value: Any, hint: Any) -> Any:
        """Return `value` if it is of the annotated type. An integer passes as a float, a list as a tuple."""
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
        if type(value) is hint:  # not isinstance: TOML's true is not an integer
            return value
        raise self._error(key, f"is {value!r}", f"it must be of type {getattr(hint, '__name__', hint)}")

    def _error(self, key: str, problem: str, remedy: str) -> SpecError:
        return SpecError(f"{self._file}: {key} {problem}", remedy)
