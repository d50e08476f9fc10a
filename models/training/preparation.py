"""Preparing a run: whether a system can be trained on stores as the user asks, and everything a run records of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mgc.models.data.computed import Computed
from mgc.models.data.fit import check
from mgc.models.parallel.device import require_amp
from mgc.models.parallel.ranks import ALONE, Ranks
from mgc.models.registry import systems, weights
from mgc.models.registry.recipes import Training
from mgc.models.registry.systems import System
from mgc.models.runs.run import Run, from_runs
from mgc.models.runs.selection import n_usable, select
from mgc.models.training import origin
from mgc.models.training.board import require_tensorboard
from mgc.models.training.folds import hold_out
from mgc.models.training.loop import Echo
from mgc.models.training.options import Options, resolve
from mgc.pipeline.errors import ModelError, SpecError
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store


def prepare(
    store: Store,
    options: Options,
    folder: Path,
    echo: Echo = print,
    further: Sequence[Store] = (),
    ranks: Ranks = ALONE,
) -> Run:
    """A run that is not trained yet; for arguments and errors see `mgc.models.training.train.train`."""
    system = systems.get(options.model or systems.default_model(store.spec.name))
    stores = [store, *further]
    for one in stores:
        one.require_finished()
    system.require_trainable(len(stores))
    computed = any(isinstance(one, Computed) for one in stores)
    recipe, seed, changes = resolve(system, options, [one.spec for one in stores], computed=computed)
    if options.tensorboard:
        require_tensorboard()
    device = ranks.device(options.device)
    require_amp(recipe.loop.amp if recipe else "off", device)
    if options.skip_damaged and further:
        raise SpecError(f"--skip-damaged: {system.id} reads several stores", "leave the option out")
    slicing = (system.recipe.slicing if options.as_sliced else store.slicing).fitted(store.spec)
    selection = select(store, further, slicing=slicing, limit=options.limit_tracks, seed=seed)
    if options.fold is not None:
        # Whatever the recipe's seed: systems are compared on the same folds.
        selection = hold_out(selection, *options.fold, seed=options.seed or 0)
        changes.append("fold {} of {} for the validation split".format(*options.fold))
    if ranks.size > 1:
        _require_work(ranks.size, system, recipe, options, selection.tracks)
    start = None
    if options.weights is not None:
        start = weights.read(options.weights, system, len(selection.classes)).origin
        changes.append(f"initial weights of {options.weights.name}")
    if options.limit_tracks is not None:
        pooled = " and as many validation tracks" if options.fold else ""
        changes.append(f"at most {options.limit_tracks} training tracks{pooled} of each genre")
    elif left_out := n_usable(store, slicing) - len(selection.tracks):
        echo(f"{left_out} tracks of {store.path} are not in use in the other stores, and left out")
    variants = _variants(store, system, options)
    changes += [f"{one.spec.name} computed of int16 samples" for one in stores if _rounded(one)]
    changes += _differing_variants(variants, list(map(str, system.recipe.variants)))
    typical = [_typical(table["n_frames"].to_numpy()) for table in selection.joined(stores, slicing, "training")[0]]
    fit = check(
        system, [one.spec for one in stores], slicing, typical, [str(one.path) for one in stores], computed=computed
    )
    differences = [*fit.differences, *changes]
    if options.as_published:
        limited = options.limit_tracks is not None
        differences = [*origin.differences(system.recipe.dataset, store, selection, limited=limited), *differences]
    if options.as_published and differences:
        remedy = f"extract as the study did, `mgc extract --for {system.id}`, and change no setting"
        raise ModelError(f"{system.id} would not be as published: {'; '.join(differences)}", remedy)
    frames = [window or seen for window, seen in zip(fit.frames, typical, strict=True)]
    config = {
        "kind": system.kind,
        "params": system.params(len(selection.classes)),
        "store": _described(store, slicing, folder),
        "frames": frames[0],
        "further": [
            _described(one, slicing, folder) | {"frames": window}
            for one, window in zip(further, frames[1:], strict=True)
        ],
        "training": dataclasses.asdict(recipe) if recipe else None,
        "limit_tracks": options.limit_tracks,
        "variants": variants,
        "weights": start,
        "seed": seed,
        "device": str(device) if ranks.size == 1 else device.type,
        "residency": options.residency,
        "skip_damaged": options.skip_damaged,
        "tensorboard": options.tensorboard,
        "fold": options.fold,
        "search": options.search,
        "processes": ranks.size,
        "threads": torch.get_num_threads(),
        "differences": differences,
        "leaky": False,
    }
    return Run.create(folder, system.id, config, selection)


def _rounded(store: Store) -> bool:
    """Whether frames are computed of samples that are rounded more than the frames may differ from stored ones."""
    return isinstance(store, Computed) and store.source.spec.quantised


def _require_work(processes: int, system: System, recipe: Training | None, options: Options, tracks: pa.Table) -> None:
    """Raise `SpecError` where several processes cannot share a training."""
    said = f"--nproc {processes}"
    if recipe is None:
        raise SpecError(f"{said}: {system.id} is fitted in one step", "leave the option out")
    require_whole(processes, options.skip_damaged)
    # Then none is left with a lone slice, which batch normalisation cannot learn from: of kB + 1 slices the k + 1
    # batches of a process have 4k // (k + 1) or more.
    if recipe.batch_size < 4 * processes:
        problem = f"{said}: {recipe.batch_size} slices per update are fewer than 4 for each process"
        raise SpecError(problem, f"choose --batch-size {4 * processes} or more, or fewer processes")
    splits = tracks["split"].to_pylist()
    for split in ("training", "validation"):
        if (n := splits.count(split)) < 2 * processes:
            raise SpecError(f"{said}: {n} {split} tracks are fewer than 2 for each process", "start fewer processes")


def require_whole(processes: int, skip_damaged: bool) -> None:
    """Raise `SpecError` where one of several processes might be left without a batch while the others have theirs."""
    if processes > 1 and skip_damaged:
        remedy = "repair the store: `mgc extract --verify`"
        raise SpecError(f"--nproc {processes} does not go with --skip-damaged", remedy)


def _variants(store: Store, system: System, options: Options) -> list[str]:
    """The variants that training tracks are also learnt from as: those of the store, where they are wanted."""
    # Of a joined slice every input would have to be a variant of the same kind: such systems train on tracks alone.
    # A recipe without variants leaves those of a store out, as it is cut like the study's however the store is cut.
    unwanted = not options.variants or system.further or (options.as_sliced and not system.recipe.variants)
    return [] if unwanted else list(map(str, store.variants))


def _differing_variants(ours: list[str], study: list[str]) -> list[str]:
    if ours == study:
        return []
    if not ours:
        return [f"training tracks without {', '.join(study)}"]
    return [f"training tracks also as {', '.join(ours)}" + (f" for {', '.join(study)}" if study else "")]


def _described(store: Store, slicing: Slicing, folder: Path) -> dict[str, Any]:
    """What a run in `folder` records of a store."""
    return {
        "path": str(store.path.resolve()),
        "from_runs": from_runs(store.path, folder),
        "manifest": store.manifest_digest,
        "dataset": store.dataset,
        "spec": store.spec.as_dict(),
        "slicing": slicing.as_dict(),
        "sliced": store.slicing.as_dict(),
        **({"waveform": store.source.spec.as_dict()} if isinstance(store, Computed) else {}),
    }


def _typical(lengths: np.ndarray) -> int:
    """Frames that half of the slices have at least; with `--whole` they are of any length, shorter ones repeated."""
    if not len(lengths):
        raise ModelError("no slice of a training track lies in all of the stores", "cut shorter ones: `mgc slice`")
    return int(np.sort(lengths)[(len(lengths) - 1) // 2])
