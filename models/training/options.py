"""Training options: settings that the user may choose, and how they override a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgc.models.registry.augmentation import NO_AUGMENTATION, Augmentation
from mgc.models.registry.recipes import OPTIMIZERS, Optimizer, Training
from mgc.models.registry.systems import System
from mgc.pipeline.errors import SpecError
from mgc.pipeline.features import FeatureSpec


@dataclass(frozen=True)
class Options:
    """Settings of a training that the user may choose; None leaves a setting to the recipe.

    Attributes:
        model: id of the system; None for the default system of the store's feature.
        epochs: maximum number of epochs.
        batch_size: slices per update.
        lr: learning rate of the first update.
        seed: seed of initial weights, order, windows and dropout.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        limit_tracks: maximum number of training tracks, and of validation tracks, of each genre; None for all.
        as_published: raise an error if anything differs from the study, including its dataset and split.
        as_sliced: cut tracks as the study did, whatever the slicing of the store, and use no variants if the study used
            none.
        cut: name of the store's cut to train on; None for that of `mgc extract --for` the system, or else the default.
        weights: file of initial weights, see `mgc.models.registry.weights`; None for random ones.
        variants: also train on the augmentation variants of training tracks that the store holds.
        augmentation: augmentation of training slices.
        optimizer: `adam`, `adamw`, `rmsprop` or `sgd`. Other settings than the learning rate and weight decay take the
            optimiser's usual values if it is not the recipe's.
        weight_decay: weight decay of the optimiser.
        monitor: validation score that chooses the best epoch and stops the training.
        patience: number of epochs without a better one after which training stops.
        loop: values of fields of `mgc.models.registry.settings.Loop`, by name; absent ones are left to the recipe.
        residency: where frames stay between epochs, see `data.split_data.set_residency`; recipes do not set it.
        skip_damaged: train without shards that cannot be read.
        tensorboard: also write event files, see `mgc.models.training.board`.
        keep_last: keep `last.pt`, the state after the last update, when the training is finished.
        refit: train once more, on training and validation tracks, when the first model is finished, see
            `mgc.models.training.fitting`; None leaves it to the recipe.
        fold: number of the cross-validation fold that validates, from 1, and number of folds, see
            `mgc.models.training.folds`; None for the store's validation split.
        split_unit: `track`, or `slice` to draw the split of each slice, see `mgc.models.training.slice_split`.
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
    cut: str | None = None
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
    keep_last: bool = False
    refit: bool | None = None
    fold: tuple[int, int] | None = None
    split_unit: str = "track"
    search: bool = False

    def __post_init__(self) -> None:
        # batch_size: batch normalisation cannot learn from a single slice.
        for name, minimum in {"epochs": 1, "batch_size": 2, "seed": 0, "limit_tracks": 1, "patience": 1}.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise SpecError(f"--{name.replace('_', '-')} {value}", f"it must be at least {minimum}")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise SpecError(f"--lr {self.lr:g}", "it must be a positive number")
        if self.weight_decay is not None and not 0 <= self.weight_decay < float("inf"):
            raise SpecError(f"--weight-decay {self.weight_decay:g}", "it must be 0 or a positive number")


def resolve(
    system: System, options: Options, specs: Sequence[FeatureSpec], *, computed: bool = False
) -> tuple[Training | None, int, list[str]]:
    """Override the training settings of a system's recipe by the user's options.

    Args:
        system: system to train.
        options: settings that the user chose.
        specs: feature that each input of the system reads.
        computed: True if the device computes the features from samples, which augmentation can change before.

    Returns:
        The training settings, None for a classical system; the seed; and the differences from the study's settings,
        such as `epochs 5 for 30` (the run's value, then the study's).

    Raises:
        SpecError: an option does not apply to the system.
    """
    study = system.recipe.training
    if study is None:
        _refuse_network_options(system, options)
        return None, options.seed or 0, ["hyper-parameters by cross-validation"] * options.search
    if options.search:
        remedy = "leave it out: it is for kNN, SVM, logistic regression and scikit-learn's MLP"
        raise SpecError(f"--search: {system.id} is a network", remedy)
    optimizer = _choose_optimizer(study.optimizer, options)
    recipe = dataclasses.replace(
        study,
        **_non_default(options, "epochs", "batch_size", "monitor", "patience", "seed"),
        optimizer=optimizer,
        augmentation=_choose_augmentation(system, options.augmentation, study.augmentation, specs, computed),
        loop=study.loop.override(options.loop),
    )
    if recipe.loop.thaw and options.weights is None:
        remedy = "name weights, such as `--weights musicnn`, or leave it out"
        raise SpecError(f"--thaw {recipe.loop.thaw} without --weights: the frozen layers would stay random", remedy)
    pairs = {
        "epochs": (recipe.epochs, study.epochs),
        "batch size": (recipe.batch_size, study.batch_size),
        "learning rate": (optimizer.lr, study.optimizer.lr),
        "optimiser": (optimizer.name, study.optimizer.name),
        "weight decay": (optimizer.weight_decay, study.optimizer.weight_decay),
        "monitored": (recipe.monitor, study.monitor),
        "patience": (recipe.patience, study.patience),
        "augmentation": (recipe.augmentation, study.augmentation),
    }
    differences = [
        f"{label} {value:g} for {studied:g}" if isinstance(value, int | float) else f"{label} {value} for {studied}"
        for label, (value, studied) in pairs.items()
        if value != studied
    ]
    return recipe, recipe.seed, differences + recipe.loop.differences(study.loop)


def refits(system: System, recipe: Training | None, options: Options) -> bool:
    """Whether a run is trained once more, on training and validation tracks; see `mgc.models.training.fitting`.

    A system whose recipe asks for it goes without where it makes no sense.

    Args:
        system: system to train.
        recipe: training settings of the run; None for a classical system.
        options: settings that the user chose.

    Raises:
        SpecError: the user asked for it where it makes no sense.
    """
    if not (system.recipe.refit if options.refit is None else options.refit):
        return False
    if options.fold is not None:
        problem, remedy = "the tracks of a fold are there to be scored, not to learn from", "leave out --folds"
    elif options.split_unit == "slice":
        problem, remedy = "--split-unit slice validates on tracks that were learnt already", "leave one of them out"
    elif recipe and recipe.loop.select != "last":
        problem, remedy = "no split is left to choose the epoch by", "add --select last"
    elif recipe and recipe.loop.schedule == "plateau":
        problem, remedy = "no split is left to lower the learning rate by", "choose another --schedule"
    else:
        return True
    if options.refit:
        raise SpecError(f"--refit: {problem}", remedy)
    return False


def _choose_optimizer(study: Optimizer, options: Options) -> Optimizer:
    """Override the study's optimiser by the user's options."""
    optimizer, name = study, options.optimizer or study.name
    if name != study.name:
        usual = dict.fromkeys(("eps", "betas", "rho", "momentum")) | dict(OPTIMIZERS[name])
        changes: dict[str, Any] = {"name": name, **usual}
        optimizer = dataclasses.replace(study, **changes)
    return dataclasses.replace(optimizer, **_non_default(options, "lr", "weight_decay"))


def _non_default(options: Options, *names: str) -> dict[str, Any]:
    """Return the named options that the user chose."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _refuse_network_options(system: System, options: Options) -> None:
    """Raise `SpecError` if an option was chosen that a classical system does not have."""
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
    chosen = [name for name in names if getattr(options, name)] + list(options.loop)
    for name in chosen + ["skip_damaged"] * options.skip_damaged:
        option = {"augmentation": "augment"}.get(name, name).replace("_", "-")
        raise SpecError(f"--{option}: {system.id} is fitted in one step", "leave the option out")
    if options.search and not system.grid:
        raise SpecError(f"--search: {system.id} has no grid of hyper-parameters", "leave the option out")


def _choose_augmentation(
    system: System, chosen: Augmentation | None, study: Augmentation, specs: Sequence[FeatureSpec], computed: bool
) -> Augmentation:
    """Return the user's augmentation or else the study's; none if the study's cannot be applied to the feature."""
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
