"""Assembly: the system, data, network and optimiser of a run, built from its configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mgc.models.data.augment import Augmenter
from mgc.models.data.sampling import Sampling
from mgc.models.data.split_data import RunInputs, SplitData, set_residency
from mgc.models.data.stream import Batching, Residency
from mgc.models.data.waveform_view import front_end_streams
from mgc.models.network import Network
from mgc.models.parallel.device import require_amp, retain_freed_memory, seed_everything
from mgc.models.parallel.ranks import SINGLE_PROCESS, Ranks
from mgc.models.registry import systems, weights
from mgc.models.registry.augmentation import Augmentation
from mgc.models.registry.recipes import Optimizer, Training
from mgc.models.registry.settings import Loop
from mgc.models.registry.systems import System
from mgc.models.runs.run import Run
from mgc.models.training.learner import Learner
from mgc.models.training.loop import Echo
from mgc.models.training.optim import balanced_class_weights
from mgc.models.training.predict import BATCH_SIZE
from mgc.pipeline.errors import RunError
from mgc.pipeline.store.store import Store


@dataclass(frozen=True)
class RunData:
    """A run's system and the data that it is trained on.

    Attributes:
        system: system to train.
        training: slices of the training split; for a refit, of the validation split, too.
        validation: slices of the validation split; None for a refit.
        residency: for each store, the bytes of its frames and where they stay between epochs.
    """

    system: System
    training: SplitData
    validation: SplitData | None
    residency: list[tuple[int, Residency]]


def open_run(run: Run, stores: Sequence[Store], ranks: Ranks = SINGLE_PROCESS, *, refit: bool = False) -> RunData:
    """Open the data of a run, and set up PyTorch as the run recorded it.

    The number of threads is set to that of the beginning of the run, and random numbers are seeded with the run's seed.

    Args:
        run: run to train.
        stores: store of each input of its system, see `predict.open_stores`.
        ranks: processes that train together, each of which reads a share of every epoch.
        refit: train on the tracks of the validation split, too.

    Raises:
        RunError: a store no longer holds a track of the run as it was.
        MgcError: the device does not exist.
    """
    # PyTorch splits sums among its threads, and their number decides how they are rounded, hence the weights.
    torch.set_num_threads(run.config["threads"])
    seed_everything(run.config["seed"])
    system, device, recipe = systems.of_run(run.config), ranks.device(run.config["device"]), training_recipe(run)
    require_amp(recipe.loop.amp if recipe else "off", device)
    selection = run.selection.merged() if refit else run.selection
    inputs = RunInputs(selection, stores, run.slicing, [source.frames for source in run.sources])
    sampling = Sampling(variants=bool(run.config.get("variants")))
    if recipe:
        sampling = dataclasses.replace(sampling, balance=recipe.loop.balance, crop=recipe.loop.crop)
    batch_size = recipe.batch_size if recipe else BATCH_SIZE
    batching = Batching(batch_size, device, squeeze=system.squeezes(run.slicing), share=ranks.share)
    seeded = dataclasses.replace(batching, seed=run.config["seed"] if recipe else None)
    training = inputs.split("training", seeded, sampling)
    validation = None if refit else inputs.split("validation", batching)
    splits = [split for split in (training, validation) if split is not None]
    for stream in (stream for split in splits for stream in split.streams):
        stream.skip_damaged = run.config.get("skip_damaged", False)
    residency = set_residency(splits, device, run.config.get("residency", "auto"), ranks.local_size)
    retain_freed_memory()  # from here on: opening the splits frees a lot that training cannot use
    return RunData(system, training, validation, residency)


def training_recipe(run: Run) -> Training | None:
    """Return the training settings of a run; None for a classical system, which has none."""
    values = run.config["training"]
    if values is None:
        return None
    betas = values["optimizer"]["betas"]
    optimizer = Optimizer(**values["optimizer"] | {"betas": tuple(betas) if betas else None})
    augmentation, loop = Augmentation(**values.get("augmentation", {})), Loop(**values.get("loop", {}))
    return Training(**values | {"optimizer": optimizer, "augmentation": augmentation, "loop": loop})


def build_learner(
    run: Run, data: RunData, echo: Echo = print, ranks: Ranks = SINGLE_PROCESS, *, state_file: str = "last.pt"
) -> Learner:
    """Build the network of a run and what updates it, at their initial state.

    Weights are random or read from the file that the run starts from, and standardising inputs are fitted on the
    training split, unless a checkpoint is about to replace both. Augmentation of samples is attached to the training
    streams.

    Args:
        run: run of a neural system.
        data: its data, from `open_run`.
        echo: prints which weights were read.
        ranks: processes that train together.
        state_file: file of the run for the checkpoint.

    Raises:
        RunError: the file of initial weights has changed since the run began.
    """
    recipe, stream, n_classes = training_recipe(run), data.training.stream, len(run.classes)
    assert recipe is not None
    specs = [source.spec for source in run.sources]
    channels_last = recipe.loop.channels_last and stream.device.type != "mps"  # some of its kernels read them wrongly
    network = Network(data.system, specs, n_classes, channels_last=channels_last).to(stream.device)
    if not ranks.broadcast((run.path / state_file).exists()):
        if recorded := run.config.get("weights"):
            _load_weights(network, data.system, run, recorded, echo)
        network.fit_standardisers(stream, ranks)
    augmenter = None
    if recipe.augmentation:
        augmenter = Augmenter(recipe.augmentation, run.spec, run.config["seed"], run.sources[0].waveform is not None)
        for front_end in front_end_streams(data.training.streams):
            front_end.transform = augmenter.augment_samples
    class_weights = None
    if recipe.loop.class_weights:
        class_weights = balanced_class_weights(stream.labels, n_classes, stream.device)
    return Learner(network, recipe, len(stream), class_weights, augmenter, ranks)


def _load_weights(network: Network, system: System, run: Run, recorded: dict[str, Any], echo: Echo) -> None:
    """Load the initial weights into the network, if their file is still the one that the run recorded."""
    initial = weights.read(Path(recorded["file"]), system, len(run.classes))
    if initial.sha256 != recorded["sha256"]:
        raise RunError(f"{initial.file} has changed since the run began", "train a new run")
    network.model.load_state_dict(dict(initial.tensors), strict=False)
    echo(str(initial))
