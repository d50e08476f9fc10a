"""Training: turn stores and a system into a run, or continue an interrupted run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from mgc.models.parallel.ranks import SINGLE_PROCESS, Ranks
from mgc.models.runs import overview, seal
from mgc.models.runs.run import Run
from mgc.models.training import fitting, typicality
from mgc.models.training.assembly import RunData, open_run
from mgc.models.training.loop import Echo
from mgc.models.training.options import Options
from mgc.models.training.predict import open_stores
from mgc.models.training.preparation import prepare, refuse_skipping
from mgc.pipeline.errors import RunError
from mgc.pipeline.store.store import Store


def train(
    stores: Sequence[Store],
    options: Options,
    folder: Path,
    echo: Echo = print,
    on_start: Callable[[Run], object] = lambda run: None,
    ranks: Ranks = SINGLE_PROCESS,
) -> Run:
    """Train a system on one store, or on several joined by track and time.

    Args:
        stores: store of each input of the system.
        options: settings that the user chose.
        folder: folder of runs.
        echo: prints a line.
        on_start: called with the run before it is trained, so that an interrupted run can be found.
        ranks: processes that train together. Rank 0 calls this function, all others call `follow`.

    Returns:
        The finished run.

    Raises:
        ModelError: the system does not exist, cannot be trained, does not fit the stores or the initial weights, or
            would differ from its study although `options.as_published` is set.
        StoreError: a store is unfinished or damaged, or has no training or validation tracks.
        RunError: the loss became NaN or infinite, or the device's memory is exhausted.
        MgcError: the device does not exist, or the run cannot be written.
    """
    run = prepare(stores, options, folder, echo, ranks)
    on_start(run)
    for line in overview.study_lines(run.config["differences"], str(run.path), listed=options.as_sliced):
        echo(line)
    if run.config["split_unit"] == "slice":
        echo(f"leaky: {overview.leak_reason(run.config)}")
    elif n_heard := run.config.get("heard_test_tracks"):
        n_test = run.selection.tracks["split"].to_pylist().count("test")
        echo(
            f"leaky: the files of {n_heard:,} of {n_test:,} test tracks are also training or validation tracks, byte"
            " for byte; the run is marked, `mgc extract --duplicates drop` leaves the copies out"
        )
    _execute(run, stores, echo, ranks)
    return run


def follow(ranks: Ranks) -> None:
    """Train along with rank 0, run after run, until it calls `dismiss`; for all other ranks.

    Raises:
        MgcError: the errors of `train`.
    """
    while (message := ranks.broadcast(None)) is not None:
        run = Run(Path(message["path"]), message["config"])
        _execute(run, open_stores(run), lambda text: None, ranks)


def dismiss(ranks: Ranks) -> None:
    """End `follow` in the other processes; called by rank 0 after its last run. A second call does nothing."""
    if not ranks.dismissed:
        ranks.broadcast(None)
    ranks.dismissed = True


def resume(
    run: Run,
    device: str | None = None,
    echo: Echo = print,
    *,
    residency: str | None = None,
    skip_damaged: bool = False,
    ranks: Ranks = SINGLE_PROCESS,
) -> None:
    """Continue an interrupted run to the result that it would have had without the interruption.

    Args:
        run: run to continue; a finished run is left as it is.
        device: device name; None for the device of the run. Another device rounds differently.
        echo: prints a line.
        residency: where frames stay between epochs; None for the residency of the run. It changes no weights.
        skip_damaged: train without shards that cannot be read, even if the run was to stop at them.
        ranks: processes that train together, as many as the run began with; see `train`.

    Raises:
        RunError: a store has changed since, a checkpoint is damaged, or the number of processes differs.
        MgcError: the errors of `train`.
    """
    if run.finished:
        more = "; for more epochs train a new run with --epochs" if run.config["training"] else ""
        echo(f"{run.path} is finished: nothing is left to do{more}")
        _drop_last(run)  # a kill may have been faster
        return
    if ranks.size != (n_processes := run.config.get("processes", 1)):
        # The slices of a batch depend on the number of processes.
        problem = f"{run.path} was started with --nproc {n_processes}, and this is --nproc {ranks.size}"
        raise RunError(problem, f"continue it with --nproc {n_processes}, or train a new run")
    refuse_skipping(ranks.size, skip_damaged)
    stores = open_stores(run)
    for store, source in zip(stores, run.sources, strict=True):
        if store.slicing != source.store_slicing:
            problem = f"{store.path} is cut into {store.slicing} by now, the run began with {source.store_slicing}"
            known = store.cut_of(source.store_slicing)
            back = f"make that the default again, `mgc slice {store.path} --default {known.name}`" if known else ""
            raise RunError(problem, f"{back or 'cut it as before with `mgc slice`'}, or train a new run")
        if store.manifest_digest != source.manifest_digest:
            raise RunError(f"{store.path} has changed since the run began", "train a new run")
    if damage := seal.problem(run.path, "history.jsonl"):
        echo(f"{run.path / 'history.jsonl'} is damaged ({damage}): it is written anew from last.pt")
        seal.remove_file(run.path, "history.jsonl")
    overrides = {"device": device, "residency": residency, "skip_damaged": skip_damaged}
    config = run.config | {name: value for name, value in overrides.items() if value}
    _execute(dataclasses.replace(run, config=config), stores, echo, ranks)


def _execute(run: Run, stores: Sequence[Store], echo: Echo, ranks: Ranks) -> None:
    """Train a run from its last checkpoint, or from the beginning if it has none, and write its summary."""
    started_at = time.monotonic()
    if ranks.is_main:
        ranks.broadcast({"path": str(run.path.resolve()), "config": run.config})  # to `follow`
    data = open_run(run, stores, ranks)
    residency = " + ".join(residency for _, residency in data.residency)
    for line in _describe(run, stores, data):
        echo(line)
    summary = fitting.fit(run, data, echo, ranks)
    if ranks.is_main and (typical := typicality.fit(run, stores, data)) is not None:
        run.write_files({typicality.FILE: typical.encode()})
    del data  # the refit has frames of its own
    if run.config.get("refit"):
        summary |= {"refit": fitting.refit(run, stores, summary, echo, ranks)}
    if not ranks.is_main:
        return
    best = summary["best"]
    kept = "last" if run.config["training"] and run.config["training"]["loop"].get("select") == "last" else "best"
    epoch = f"{kept} epoch {best['epoch']} of {summary['epochs']}: " if "epoch" in best else ""
    by_slice, by_track = best["validation_accuracy"], best["validation_track_accuracy"]
    leaky = " (leaky)" if run.config["leaky"] else ""
    echo(f"{epoch}validation accuracy {by_slice:.1%} by slice, {by_track:.1%} by track{leaky}")
    if run.config.get("refit"):
        echo(f"refit: {overview.refit_line(run)}")
    run.finish(summary | {"residency": residency, "seconds": time.monotonic() - started_at})
    _drop_last(run)


def _drop_last(run: Run) -> None:
    """Remove the checkpoints of a finished run, unless it keeps them, or a version without `--keep-last` trained it."""
    for name in ("last.pt", fitting.REFIT_STATE) if run.config.get("keep_last") is False else ():
        if (run.path / name).exists():
            seal.remove_file(run.path, name)


#: How `_describe` prints each residency.
_RESIDENCY_TEXTS = {"device": "kept on the device", "host": "kept in memory", "stream": "streamed from disk"}


def _describe(run: Run, stores: Sequence[Store], data: RunData) -> Iterator[str]:
    """Yield lines about a run before it is trained: system, slices, device and memory."""
    assert data.validation is not None  # only a refit has none
    splits = data.training, data.validation
    training, validation = (f"{len(split)} slices of {split.tracks.max() + 1} tracks" for split in splits)
    params = f"{run.config['params']:,} parameters, " if run.config["params"] else ""
    yield f"{run.model}: {params}{len(run.classes)} genres"
    yield f"{training} to train on, {validation} to validate with"
    if run.config.get("variants"):
        n_variants = data.training.columns.n_variants
        yield f"{n_variants} of the slices to train on are of variants: {', '.join(run.config['variants'])}"
    device = data.training.stream.device
    place = f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else run.config["device"]
    frames = (
        f"{nbytes / 1e6:.0f} MB of {f'{store.spec.name} ' if len(stores) > 1 else ''}frames "
        f"{_RESIDENCY_TEXTS[residency]} (--residency {residency})"
        for store, (nbytes, residency) in zip(stores, data.residency, strict=True)
    )
    processes = f"{n} processes, each " if (n := run.config.get("processes", 1)) > 1 else ""
    yield f"{processes}on {place}; {', '.join(frames)}"
    for source in run.sources:
        if source.waveform is not None:
            yield f"{source.spec} is computed of {source.waveform} (--frontend device)"
    if n_repeated := sum(split.stream.n_repeated for split in splits):
        yield f"{n_repeated} slices are shorter than {run.frames} frames and repeated to fill them"
