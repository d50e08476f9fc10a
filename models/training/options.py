"""What may be chosen about a training, and what a recipe becomes by that."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgc.models.registry.augmentation import NO_AUGMENTATION, Augmentation
from mgc.models.registry.recipes import OPTIMIZERS, Training
from mgc.models.registry.systems import System
from mgc.pipeline.errors import SpecError
from mgc.pipeline.features import FeatureSpec


@dataclass(frozen=True)
class Options:
    """What may be chosen about a training; None leaves it to the recipe.

    Attributes:
        model: id of the system; None for the default of the store's feature.
        epochs: at most.
        batch_size: slices per update.
        lr: learning rate of the first update.
        seed: of initial weights, order, windows and dropout.
        device: auto, cpu, cuda, cuda:1.
        limit_tracks: tracks of each genre for training, and for validation, at most.
        as_published: refuse to train where anything differs from the study, its dataset and split included.
        as_sliced: cut tracks as the study did, however the store is cut; and no variants where it used none.
        weights: file that a network starts from instead of random weights; see `mgc.models.registry.weights`.
        variants: train on the variants of training tracks, too, where the store has some.
        augmentation: what happens to the slices of the training split instead of what the recipe says.
        optimizer: adam, adamw, rmsprop or sgd; another one than the recipe's has its own usual settings.
        weight_decay: of the optimiser.
        monitor: validation metric that picks the epoch to keep, and stops.
        patience: epochs without a better one after which training stops.
        loop: values of fields of `mgc.models.registry.settings.Loop`.
        residency: where frames stay between epochs, see `data.parts.set_residency`; no choice of the recipe's.
        skip_damaged: go on without shards that cannot be read.
        tensorboard: write event files, too; see `mgc.models.training.board`.
        fold: of cross-validation, from 1 on, and how many there are; see `mgc.models.training.folds`.
        search: choose hyper-parameters of a classical system by cross-validation of the training split.
    """

    model: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int | None = None
    device: str = "auto"
    limit_tracks: int | None = None
    as_published: bool = False
    as_sliced: bool = False
    weights: Path | None = None
    variants: bool = True
    augmentation: Augmentation | None = None
    optimizer: str | None = None
    weight_decay: float | None = None
    monitor: str | None = None
    patience: int | None = None
    loop: Mapping[str, Any] = field(default_factory=dict)
    residency: str = "auto"
    skip_damaged: bool = False
    tensorboard: bool = False
    fold: tuple[int, int] | None = None
    search: bool = False

    def __post_init__(self) -> None:
        # Batch normalisation cannot learn from a single slice.
        for name, least in {"epochs": 1, "batch_size": 2, "seed": 0, "limit_tracks": 1, "patience": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise SpecError(f"--{name.replace('_', '-')} {value}", f"it must be at least {least}")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise SpecError(f"--lr {self.lr:g}", "it must be a positive number")
        if self.weight_decay is not None and not 0 <= self.weight_decay < float("inf"):
            raise SpecError(f"--weight-decay {self.weight_decay:g}", "it must be 0 or a positive number")


def resolve(
    system: System, options: Options, specs: Sequence[FeatureSpec], *, computed: bool = False
) -> tuple[Training | None, int, list[str]]:
    """The recipe with what the user chose instead, the seed, and how the first differs from the study's.

    Args:
        system: the system.
        options: what the user chose.
        specs: what the system is shown of each store.
        computed: whether the device computes that of samples, to which augmentation can be applied.
    """
    study = system.recipe.training
    if study is None:
        _require_one_step(system, options)
        return None, options.seed or 0, ["hyper-parameters by cross-validation"] * options.search
    if options.search:
        remedy = "leave it out: it is for kNN, SVM, logistic regression and scikit-learn's MLP"
        raise SpecError(f"--search: {system.id} is a network", remedy)
    optimizer, name = study.optimizer, options.optimizer or study.optimizer.name
    if name != optimizer.name:
        usual = dict.fromkeys(("eps", "betas", "rho", "momentum")) | dict(OPTIMIZERS[name])
        changes: dict[str, Any] = {"name": name, **usual}
        optimizer = dataclasses.replace(optimizer, **changes)
    optimizer = dataclasses.replace(optimizer, **_given(options, "lr", "weight_decay"))
    chosen = dataclasses.replace(
        study,
        **_given(options, "epochs", "batch_size", "monitor", "patience", "seed"),
        optimizer=optimizer,
        augmentation=_augmentation(system, options.augmentation, study.augmentation, specs, computed),
        loop=study.loop.override(options.loop),
    )
    pairs = {
        "epochs": (chosen.epochs, study.epochs),
        "batch size": (chosen.batch_size, study.batch_size),
        "learning rate": (optimizer.lr, study.optimizer.lr),
        "optimiser": (optimizer.name, study.optimizer.name),
        "weight decay": (optimizer.weight_decay, study.optimizer.weight_decay),
        "monitored": (chosen.monitor, study.monitor),
        "patience": (chosen.patience, study.patience),
        "augmentation": (chosen.augmentation, study.augmentation),
    }
    differences = [
        f"{label} {ours:g} for {theirs:g}" if isinstance(ours, int | float) else f"{label} {ours} for {theirs}"
        for label, (ours, theirs) in pairs.items()
        if ours != theirs
    ]
    return chosen, chosen.seed, differences + chosen.loop.differences(study.loop)


def _given(options: Options, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _require_one_step(system: System, options: Options) -> None:
    """Raise `SpecError` where something is chosen that only networks have."""
    names = (
        "epochs",
        "batch_size",
        "lr",
        "weights",
        "augmentation",
        "optimizer",
        "weight_decay",
        "monitor",
        "patience",
        "tensorboard",
    )
    foreign = [name for name in names if getattr(options, name)] + list(options.loop)
    for name in foreign + ["skip_damaged"] * options.skip_damaged:
        option = {"augmentation": "augment"}.get(name, name).replace("_", "-")
        raise SpecError(f"--{option}: {system.id} is fitted in one step", "leave the option out")
    if options.search and not system.grid:
        raise SpecError(f"--search: {system.id} has no grid of hyper-parameters", "leave the option out")


def _augmentation(
    system: System, chosen: Augmentation | None, study: Augmentation, specs: Sequence[FeatureSpec], computed: bool
) -> Augmentation:
    """What was chosen, else the study's as far as it can be done: not on features made of what it changes."""
    if len(specs) > 1:
        if chosen:
            raise SpecError(f"--augment: {system.id} reads several stores", "leave the option out")
        return NO_AUGMENTATION
    if computed:
        return study if chosen is None else chosen
    if chosen is not None:
        chosen.check(specs[0])
        return chosen
    try:
        study.check(specs[0])
    except SpecError:
        return NO_AUGMENTATION
    return study
