"""Training: from a store and a system to a run."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from mgc.models import classical
from mgc.models.data.augment import Augmenter
from mgc.models.data.computed import streams_of_samples
from mgc.models.data.parts import Part, keep_resident, open_part
from mgc.models.data.stream import Residency
from mgc.models.network import Network
from mgc.models.parallel.device import keep_memory, require_amp, seed_everything
from mgc.models.parallel.ranks import ALONE, Ranks
from mgc.models.registry import systems, weights
from mgc.models.registry.augmentation import Augmentation
from mgc.models.registry.recipes import Optimizer, Training
from mgc.models.registry.settings import Loop
from mgc.models.registry.systems import System
from mgc.models.runs.run import Run
from mgc.models.training import loop
from mgc.models.training.board import Board
from mgc.models.training.loop import Echo
from mgc.models.training.options import Options
from mgc.models.training.predict import BATCH_SIZE, open_stores, vectors
from mgc.models.training.preparation import prepare, require_whole
from mgc.models.training.search import decider, search
from mgc.pipeline.errors import RunError
from mgc.pipeline.store.store import Store


def train(
    store: Store,
    options: Options,
    folder: Path,
    echo: Echo = print,
    begun: Callable[[Run], object] = lambda run: None,
    further: Sequence[Store] = (),
    ranks: Ranks = ALONE,
) -> Run:
    """Train a system on a store, or on several joined by track and time.

    Args:
        store: the store.
        options: what the user chose.
        folder: where runs are kept.
        echo: prints a line.
        begun: told the run before it is trained, so that it can be found if it is interrupted.
        further: a store for each further input of the system.
        ranks: the processes that train together; this is the first one, and the others `follow`.

    Returns:
        The finished run.

    Raises:
        ModelError: there is no such system, it cannot be trained, does not fit the store or the weights to start from,
            or is not as published where that was asked.
        StoreError: the store is unfinished or damaged, or has nothing to train on or to validate with.
        RunError: the loss is no longer a number.
        MgcError: there is no such device, or the run cannot be written.
    """
    run = prepare(store, options, folder, echo, further, ranks)
    begun(run)
    for difference in run.config["differences"]:
        echo(f"differs from the study: {difference}")
    _execute(run, [store, *further], echo, ranks)
    return run


def follow(ranks: Ranks) -> None:
    """Train along with the first process, run by run, until it has no more; see `dismiss`.

    Raises:
        MgcError: what `train` raises.
    """
    while (begun := ranks.told(None)) is not None:
        run = Run(Path(begun["path"]), begun["config"])
        _execute(run, open_stores(run), lambda text: None, ranks)


def dismiss(ranks: Ranks) -> None:
    """Tell the processes that `follow` that there are no more runs."""
    ranks.told(None)


def resume(
    run: Run,
    device: str | None = None,
    echo: Echo = print,
    *,
    residency: str | None = None,
    skip_damaged: bool = False,
    ranks: Ranks = ALONE,
) -> None:
    """Continue an interrupted run to the result it would have had.

    Args:
        run: the run; nothing happens where it is finished.
        device: another device than before, which rounds differently.
        echo: prints a line.
        residency: another one than before, which changes nothing that is learnt.
        skip_damaged: go on without shards that cannot be read, also where the run was to stop then.
        ranks: the processes that train together, as many as the run began with; see `train`.

    Raises:
        RunError: the store has changed since, a checkpoint is damaged, or these are more or fewer processes.
        MgcError: what `train` raises.
    """
    if run.finished:
        echo(f"{run.path} is finished: nothing is left to do")
        return
    if ranks.size != (processes := run.config.get("processes", 1)):
        # Which slices a batch has depends on it.
        problem = f"{run.path} was begun by {processes} processes, and these are {ranks.size}"
        raise RunError(problem, f"continue it with --nproc {processes}, or train a new run")
    require_whole(ranks.size, skip_damaged)
    stores = open_stores(run)
    for store, source in zip(stores, run.sources, strict=True):
        if store.slicing != source.sliced:
            problem = f"{store.path} is cut into {store.slicing} by now, the run began with {source.sliced}"
            raise RunError(problem, "cut it as before with `mgc slice`, or train a new run")
        if store.manifest_digest != source.manifest:
            raise RunError(f"{store.path} has changed since the run began", "train a new run")
    machine = {"device": device, "residency": residency, "skip_damaged": skip_damaged}
    run = dataclasses.replace(run, config=run.config | {name: value for name, value in machine.items() if value})
    _execute(run, stores, echo, ranks)


def _execute(run: Run, stores: Sequence[Store], echo: Echo, ranks: Ranks) -> None:
    """Train from the run's configuration and, where there is one, its last checkpoint; record how it ended."""
    began = time.monotonic()
    if ranks.first:
        ranks.told({"path": str(run.path.resolve()), "config": run.config})
    system, (training, validation), kept = open_run(run, stores, ranks)
    for text in _describe(run, stores, (training, validation), kept):
        echo(text)
    if system.kind == "classical":
        ended = _fit_classical(run, system, training, validation, echo)
    else:
        ended = _fit_network(run, system, training, validation, echo, ranks)
    if not ranks.first:
        return
    best = ended["best"]
    which = f"best epoch {best['epoch']} of {ended['epochs']}: " if "epoch" in best else ""
    accuracies = best["validation_accuracy"], best["validation_track_accuracy"]
    echo("{}validation accuracy {:.1%} by slice, {:.1%} by track".format(which, *accuracies))
    residency = " + ".join(where for _, where in kept)
    run.finish(ended | {"residency": residency, "seconds": time.monotonic() - began})


def open_run(
    run: Run, stores: Sequence[Store], ranks: Ranks = ALONE
) -> tuple[System, tuple[Part, Part], list[tuple[int, Residency]]]:
    """What a run trains: its system, its training and validation split, and where their frames stay.

    PyTorch's random numbers start at the run's seed, and its threads are as many as when the run began.

    Raises:
        RunError: a store no longer holds one of the tracks as it was.
        MgcError: there is no such device.
    """
    # Sums are split among threads, and rounded accordingly: another number of them gives other weights.
    torch.set_num_threads(run.config["threads"])
    keep_memory()
    seed_everything(run.config["seed"])
    system, device, recipe = systems.get(run.model), ranks.device(run.config["device"]), training_of(run)
    require_amp(recipe.loop.amp if recipe else "off", device)
    training, validation = (
        open_part(
            run.selection,
            stores,
            run.slicing,
            split,
            frames=[source.frames for source in run.sources],
            batch_size=recipe.batch_size if recipe else BATCH_SIZE,
            device=device,
            seed=run.config["seed"] if recipe and split == "training" else None,
            variants=bool(run.config.get("variants")) and split == "training",
            balance=recipe.loop.balance if recipe and split == "training" else "none",
            crop=bool(recipe and recipe.loop.crop) and split == "training",
            squeeze=system.squeezes(run.slicing),
            share=ranks.share,
        )
        for split in ("training", "validation")
    )
    for stream in (*training.streams, *validation.streams):
        stream.skip_damaged = run.config.get("skip_damaged", False)
    kept = keep_resident((training, validation), device, run.config.get("residency", "auto"), ranks.local_size)
    return system, (training, validation), kept


def training_of(run: Run) -> Training | None:
    """How a run is trained; None where its system is fitted in one step."""
    values = run.config["training"]
    if values is None:
        return None
    betas = values["optimizer"]["betas"]
    optimizer = Optimizer(**values["optimizer"] | {"betas": tuple(betas) if betas else None})
    augmentation, loop = Augmentation(**values.get("augmentation", {})), Loop(**values.get("loop", {}))
    return Training(**values | {"optimizer": optimizer, "augmentation": augmentation, "loop": loop})


#: What is said of frames that stay there.
_STAY = {"device": "kept on the device", "host": "kept in memory", "stream": "streamed from disk"}


def _describe(
    run: Run, stores: Sequence[Store], parts: Sequence[Part], kept: Sequence[tuple[int, Residency]]
) -> Iterator[str]:
    training, validation = (f"{len(part.slices)} slices of {part.tracks.max() + 1} tracks" for part in parts)
    params = f"{run.config['params']:,} parameters, " if run.config["params"] else ""
    yield f"{run.model}: {params}{len(run.classes)} genres"
    yield f"{training} to train on, {validation} to validate with"
    if run.config.get("variants"):
        count = parts[0].slices["variant"].length() - parts[0].slices["variant"].null_count
        yield f"{count} of the slices to train on are of variants: {', '.join(run.config['variants'])}"
    device = parts[0].stream.device
    where = f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else run.config["device"]
    frames = (
        f"{nbytes / 1e6:.0f} MB of {f'{store.spec.name} ' if len(stores) > 1 else ''}frames "
        f"{_STAY[stays]} (--residency {stays})"
        for store, (nbytes, stays) in zip(stores, kept, strict=True)
    )
    processes = f"{n} processes, each " if (n := run.config.get("processes", 1)) > 1 else ""
    yield f"{processes}on {where}; {', '.join(frames)}"
    for source in run.sources:
        if source.waveform is not None:
            yield f"{source.spec} is computed of {source.waveform} (--frontend device)"
    if repeated := sum(part.stream.n_repeated for part in parts):
        yield f"{repeated} slices are shorter than {run.frames} frames and repeated to fill them"


def _fit_network(
    run: Run, system: System, training: Part, validation: Part, echo: Echo, ranks: Ranks
) -> dict[str, Any]:
    network, recipe, augmenter = build(run, system, training, echo, ranks)
    with contextlib.ExitStack() as stack:
        board = stack.enter_context(Board(run)) if run.config.get("tensorboard") and ranks.first else None
        closed = {"closed": board.add} if board else {}
        at = loop.fit(run, network, recipe, training, validation, augmenter, echo, ranks, **closed)
    ended = {"epochs": at.epoch, "best_epoch": at.best_epoch, "best": at.history[at.best_epoch - 1]}
    return ended | ({"damaged": at.damaged} if at.damaged else {})


def build(
    run: Run, system: System, training: Part, echo: Echo = print, ranks: Ranks = ALONE
) -> tuple[Network, Training, Augmenter | None]:
    """The network that a run begins with, how it is trained, and what changes the slices.

    Raises:
        RunError: the weights that it starts from have changed.
    """
    recipe = training_of(run)
    assert recipe is not None
    specs = [source.spec for source in run.sources]
    last = recipe.loop.channels_last
    network = Network(system, specs, len(run.classes), channels_last=last).to(training.stream.device)
    if not ranks.told((run.path / "last.pt").exists()):  # else all of it comes from there
        if start := run.config.get("weights"):
            _load_weights(network, system, run, start, echo)
        network.measure(training.stream, ranks)
    if not recipe.augmentation:
        return network, recipe, None
    augmenter = Augmenter(recipe.augmentation, run.spec, run.config["seed"], run.sources[0].waveform is not None)
    for stream in streams_of_samples(training.streams):
        stream.change = augmenter.sound
    return network, recipe, augmenter


def _load_weights(network: Network, system: System, run: Run, recorded: dict[str, Any], echo: Echo) -> None:
    start = weights.read(Path(recorded["file"]), system, len(run.classes))
    if start.sha256 != recorded["sha256"]:
        raise RunError(f"{start.file} has changed since the run began", "train a new run")
    network.model.load_state_dict(dict(start.tensors), strict=False)
    echo(str(start))


def _fit_classical(run: Run, system: System, training: Part, validation: Part, echo: Echo) -> dict[str, Any]:
    estimator = system.build(len(run.classes))
    tracks, labels = training.slices["track_id"].to_pylist(), training.stream.labels
    of_track = dict(zip(*run.selection.tracks.select(["track_id", "artist_id"]).to_pydict().values(), strict=True))
    artists = [of_track[track] for track in tracks]
    given = vectors(system, run.spec, training.stream, "features")
    found = search(estimator, system.grid, given, labels, tracks, artists, echo) if run.config.get("search") else None
    if found:
        decider(estimator).set_params(**found.chosen.values)
    classical.fit(estimator, given, labels, tracks, artists)
    classical.save(estimator, run.path / "model.skops")
    labels = validation.stream.labels
    held_out = vectors(system, run.spec, validation.stream, "validation")
    scores = loop.accuracies(classical.probabilities(estimator, held_out, len(labels)), labels, validation.tracks)
    ended = {"best": {f"validation_{name}": value for name, value in scores.items()}}
    return ended | ({"search": found.as_dict()} if found else {})
