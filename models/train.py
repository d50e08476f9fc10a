"""Training: from a store and a system to a run."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from models import baselines, classical, loop, registry, weights
from models.device import choose, keep_memory, seed_everything
from models.fit import check
from models.loop import Echo
from models.network import Network, outputs
from models.predict import BATCH_SIZE, open_store, vectoriser
from models.recipes import Optimizer, Training
from models.registry import System
from models.runs import Run
from models.selection import select
from models.stream import Stream, fits
from pipeline.errors import ModelError, RunError, SpecError
from pipeline.store import Store


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
        as_published: refuse to train where anything differs from the study.
        weights: file that a network starts from instead of random weights; see `models.weights`.
    """

    model: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int | None = None
    device: str = "auto"
    limit_tracks: int | None = None
    as_published: bool = False
    weights: Path | None = None

    def __post_init__(self) -> None:
        # Batch normalisation cannot learn from a single slice.
        for name, least in {"epochs": 1, "batch_size": 2, "seed": 0, "limit_tracks": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise SpecError(f"--{name.replace('_', '-')} {value}", f"it must be at least {least}")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise SpecError(f"--lr {self.lr:g}", "it must be a positive number")


def train(
    store: Store, options: Options, folder: Path, echo: Echo = print, begun: Callable[[Run], object] = lambda run: None
) -> Run:
    """Train a system on a store.

    Args:
        store: the store.
        options: what the user chose.
        folder: where runs are kept.
        echo: prints a line.
        begun: told the run before it is trained, so that it can be found if it is interrupted.

    Returns:
        The finished run.

    Raises:
        ModelError: there is no such system, it cannot be trained, does not fit the store or the weights to start from,
            or is not as published where that was asked.
        StoreError: the store is unfinished or damaged, or has nothing to train on or to validate with.
        RunError: the loss is no longer a number.
        MgcError: there is no such device, or the run cannot be written.
    """
    store.require_finished()
    system = registry.get(options.model or registry.default_model(store.spec.name))
    system.require_trainable()
    recipe, seed, changes = _resolve(system, options)
    selection = select(store, limit=options.limit_tracks, seed=seed)
    origin = None
    if options.weights is not None:
        origin = weights.read(options.weights, system, len(selection.classes)).origin
        changes.append(f"initial weights of {options.weights.name}")
    if options.limit_tracks is not None:
        changes.append(f"at most {options.limit_tracks} training tracks of each genre")
    # With --whole slices are of any length: half of them are at least this long, and the stream repeats shorter ones.
    lengths = np.sort(selection.slices(store, store.slicing, "training")[0]["n_frames"].to_numpy())
    typical = int(lengths[(len(lengths) - 1) // 2])
    fit = check(system, store.spec, store.slicing, typical, str(store.path))
    differences = [*fit.differences, *changes]
    if options.as_published and differences:
        remedy = f"extract as the study did, `mgc extract --for {system.id}`, and change no setting"
        raise ModelError(f"{system.id} would not be as published: {'; '.join(differences)}", remedy)
    config = {
        "kind": system.kind,
        "params": system.params(len(selection.classes)),
        "store": {
            "path": str(store.path.resolve()),
            "from_runs": os.path.relpath(store.path.resolve(), folder.resolve()),
            "manifest": store.manifest_digest,
            "dataset": store.dataset,
            "spec": store.spec.as_dict(),
            "slicing": store.slicing.as_dict(),
        },
        "frames": fit.frames or typical,
        "training": dataclasses.asdict(recipe) if recipe else None,
        "limit_tracks": options.limit_tracks,
        "weights": origin,
        "seed": seed,
        "device": str(choose(options.device)),
        "threads": torch.get_num_threads(),
        "differences": differences,
        "leaky": False,
    }
    run = Run.create(folder, system.id, config, selection)
    begun(run)
    for difference in differences:
        echo(f"differs from the study: {difference}")
    _execute(run, store, run.config["device"], echo)
    return run


def resume(run: Run, device: str | None = None, echo: Echo = print) -> None:
    """Continue an interrupted run to the result it would have had.

    Args:
        run: the run; nothing happens where it is finished.
        device: another device than before, which rounds differently.
        echo: prints a line.

    Raises:
        RunError: the store has changed since, or a checkpoint is damaged.
        MgcError: what `train` raises.
    """
    if run.finished:
        echo(f"{run.path} is finished: nothing is left to do")
        return
    store = open_store(run)
    if store.slicing != run.slicing:
        problem = f"{store.path} is cut into {store.slicing} by now, the run uses {run.slicing}"
        raise RunError(problem, "cut it as before with `mgc slice`, or train a new run")
    if store.manifest_digest != run.config["store"]["manifest"]:
        raise RunError(f"{store.path} has changed since the run began", "train a new run")
    _execute(run, store, device or run.config["device"], echo)


def _resolve(system: System, options: Options) -> tuple[Training | None, int, list[str]]:
    """The recipe with what the user chose instead, the seed, and how the first differs from the study's."""
    recipe = system.recipe.training
    names = {"epochs": "epochs", "batch_size": "batch size", "lr": "learning rate"}
    chosen = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if recipe is None:
        for name in [*chosen, *(["weights"] if options.weights else [])]:
            raise SpecError(f"--{name.replace('_', '-')}: {system.id} is fitted in one step", "leave the option out")
        return None, options.seed or 0, []
    study = {"epochs": recipe.epochs, "batch_size": recipe.batch_size, "lr": recipe.optimizer.lr}
    changes = [f"{names[name]} {value:g} for {study[name]:g}" for name, value in chosen.items() if value != study[name]]
    ours = study | chosen
    resolved = dataclasses.replace(
        recipe,
        epochs=ours["epochs"],
        batch_size=ours["batch_size"],
        seed=recipe.seed if options.seed is None else options.seed,
        optimizer=dataclasses.replace(recipe.optimizer, lr=ours["lr"]),
    )
    return resolved, resolved.seed, changes


@dataclass(frozen=True)
class _Part:
    """The slices of a split: their table, their batches, and which track each belongs to, as indices from 0."""

    slices: pa.Table
    stream: Stream
    tracks: np.ndarray


def _execute(run: Run, store: Store, device: str, echo: Echo) -> None:
    """Train from the run's configuration and, where there is one, its last checkpoint; record how it ended."""
    # Sums are split among threads, and rounded accordingly: another number of them gives other weights.
    torch.set_num_threads(run.config["threads"])
    keep_memory()
    seed_everything(run.config["seed"])
    began = time.monotonic()
    system, where = registry.get(run.model), choose(device)
    training, validation = parts = [_open(run, store, split, where) for split in ("training", "validation")]
    nbytes = sum(part.stream.nbytes for part in parts)
    resident = fits(nbytes, where)
    for part in parts:
        part.stream.resident = resident
    for text in _describe(run, parts, where, nbytes, resident):
        echo(text)
    if system.kind == "classical":
        ended = _fit_classical(run, system, training, validation)
    else:
        ended = _fit_network(run, system, training, validation, echo)
    best = ended["best"]
    kept = f"best epoch {best['epoch']} of {ended['epochs']}: " if "epoch" in best else ""
    accuracies = best["validation_accuracy"], best["validation_track_accuracy"]
    echo("{}validation accuracy {:.1%} by slice, {:.1%} by track".format(kept, *accuracies))
    run.finish(ended | {"residency": "resident" if resident else "streamed", "seconds": time.monotonic() - began})


def _open(run: Run, store: Store, split: str, device: torch.device) -> _Part:
    slices, labels = run.selection.slices(store, run.slicing, split)
    recipe = run.config["training"]
    draws = split == "training" and recipe is not None
    stream = Stream(
        store,
        slices,
        labels,
        frames=run.frames,
        batch_size=recipe["batch_size"] if recipe else BATCH_SIZE,
        device=device,
        seed=run.config["seed"] if draws else None,
    )
    tracks = slices["track_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    return _Part(slices, stream, tracks)


def _describe(run: Run, parts: Sequence[_Part], device: torch.device, nbytes: int, resident: bool) -> Iterator[str]:
    training, validation = (f"{len(part.slices)} slices of {part.tracks.max() + 1} tracks" for part in parts)
    params = f"{run.config['params']:,} parameters, " if run.config["params"] else ""
    yield f"{run.model}: {params}{len(run.classes)} genres"
    yield f"{training} to train on, {validation} to validate with"
    where = f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
    yield f"on {where}; {nbytes / 1e6:.0f} MB of frames {'kept in memory' if resident else 'streamed from disk'}"
    if repeated := sum(part.stream.n_repeated for part in parts):
        yield f"{repeated} slices are shorter than {run.frames} frames and repeated to fill them"


def _fit_network(run: Run, system: System, training: _Part, validation: _Part, echo: Echo) -> dict[str, Any]:
    values = run.config["training"]
    betas = values["optimizer"]["betas"]
    optimizer = Optimizer(**values["optimizer"] | {"betas": tuple(betas) if betas else None})
    recipe = Training(**values | {"optimizer": optimizer})
    network = Network(system, run.spec, len(run.classes)).to(training.stream.device)
    if (origin := run.config.get("weights")) and not (run.path / "last.pt").exists():
        _load_weights(network, system, run, origin, echo)
    at = loop.fit(run, network, recipe, training.stream, validation.stream, validation.tracks, echo)
    return {"epochs": at.epoch, "best_epoch": at.best_epoch, "best": at.history[at.best_epoch - 1]}


def _load_weights(network: Network, system: System, run: Run, origin: dict[str, Any], echo: Echo) -> None:
    start = weights.read(Path(origin["file"]), system, len(run.classes))
    if start.sha256 != origin["sha256"]:
        raise RunError(f"{start.file} has changed since the run began", "train a new run")
    network.model.load_state_dict(dict(start.tensors), strict=False)
    echo(str(start))


def _fit_classical(run: Run, system: System, training: _Part, validation: _Part) -> dict[str, Any]:
    vectors = vectoriser(system.input, run.spec)
    estimator = system.build(len(run.classes))
    tracks = training.slices["track_id"]
    of_track = dict(zip(*run.selection.tracks.select(["track_id", "artist_id"]).to_pydict().values(), strict=True))
    artists = [of_track[track] for track in tracks.to_pylist()]
    x = outputs(vectors, training.stream, "features").numpy()
    classical.fit(estimator, x, training.stream.labels, tracks.to_pylist(), artists)
    baselines.save(estimator, run.path / "model.skops")
    probabilities = estimator.predict_proba(outputs(vectors, validation.stream, "validation").numpy())
    scores = loop.accuracies(probabilities, validation.stream.labels, validation.tracks)
    return {"best": {f"validation_{name}": value for name, value in scores.items()}}
