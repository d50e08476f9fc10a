"""Preparation of a run: checks of what the user requested, and the configuration that the run records."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from mgc.models.data.fit import check_fit, typical_length
from mgc.models.data.waveform_view import WaveformView
from mgc.models.parallel.device import require_amp
from mgc.models.parallel.ranks import SINGLE_PROCESS, Ranks
from mgc.models.registry import systems, weights
from mgc.models.registry.recipes import Training
from mgc.models.registry.systems import System
from mgc.models.runs.run import Run, relative_store_path
from mgc.models.runs.selection import Selection, n_usable_tracks, select_tracks
from mgc.models.training import origin
from mgc.models.training.board import require_tensorboard
from mgc.models.training.folds import hold_out
from mgc.models.training.loop import Echo
from mgc.models.training.options import Options, refits, resolve
from mgc.models.training.slice_split import require_divisible, split_slices
from mgc.pipeline.errors import ModelError, SpecError, StoreError
from mgc.pipeline.store.cuts import find_cut
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store


@dataclass(frozen=True)
class _Plan:
    """Everything that options, recipe and stores decide about a run.

    Attributes:
        system: system to train.
        recipe: training settings; None for a classical system.
        seed: seed of initial weights, order, windows and dropout.
        device: device to train on.
        slicing: slicing of the tracks.
        cut: a line that names the cut with this slicing.
        selection: tracks of the run and their splits.
        variants: augmentation variants of the training tracks to train on, too.
        differences: differences of the recipe from the study's.
        refit: train once more, on training and validation tracks.
    """

    system: System
    recipe: Training | None
    seed: int
    device: torch.device
    slicing: Slicing
    cut: str
    selection: Selection
    variants: list[str]
    differences: list[str]
    refit: bool


def prepare(
    stores: Sequence[Store],
    options: Options,
    folder: Path,
    echo: Echo = print,
    ranks: Ranks = SINGLE_PROCESS,
) -> Run:
    """Create a run that is ready to be trained.

    Args:
        stores: store of each input of the system.
        options: settings that the user chose.
        folder: folder of runs.
        echo: prints a line.
        ranks: processes that will train together.

    Raises:
        MgcError: see `mgc.models.training.train.train`; no run is left behind.
    """
    first, *further = stores
    plan = _make_plan(stores, options, ranks)
    system, slicing, selection = plan.system, plan.slicing, plan.selection
    initial = weights.read(options.weights, system, len(selection.classes)).provenance if options.weights else None
    if options.limit_tracks is None and (n_unused := n_usable_tracks(first, slicing) - len(selection.tracks)):
        echo(f"{n_unused} tracks of {first.path} are left out: they are not usable in the other stores")
    echo(plan.cut)
    frames, feature_differences = _fit_inputs(stores, plan)
    differences = [*feature_differences, *plan.differences, *_data_differences(stores, plan, options)]
    if options.as_published:
        limited = options.limit_tracks is not None
        differences = [*origin.differences(system.recipe.dataset, first, selection, limited=limited), *differences]
    if options.as_published and differences:
        remedy = f"extract as the study did, `mgc extract --for {system.id}`, and change no setting"
        raise ModelError(f"{system.id} would not be as published: {'; '.join(differences)}", remedy)
    heard = selection.heard_tracks("test")
    config = {
        "kind": system.kind,
        **({"package": system.package} if system.package else {}),
        "params": system.params(len(selection.classes)),
        "store": _store_entry(first, slicing, folder),
        "frames": frames[0],
        "further": [
            _store_entry(store, slicing, folder) | {"frames": window}
            for store, window in zip(further, frames[1:], strict=True)
        ],
        "training": dataclasses.asdict(plan.recipe) if plan.recipe else None,
        "limit_tracks": options.limit_tracks,
        "variants": plan.variants,
        "weights": initial,
        "seed": plan.seed,
        "device": str(plan.device) if ranks.size == 1 else plan.device.type,
        "residency": options.residency,
        "skip_damaged": options.skip_damaged,
        "tensorboard": options.tensorboard,
        "keep_last": options.keep_last,
        "refit": plan.refit,
        "fold": options.fold,
        "search": options.search,
        "processes": ranks.size,
        "threads": torch.get_num_threads(),
        "differences": differences,
        "by_recipe": options.as_sliced,
        "split_unit": options.split_unit,
        "split_seed": selection.split_seed,
        "leaky": bool(heard) or selection.split_seed is not None,
        "heard_test_tracks": 0 if selection.split_seed is not None else len(heard),
    }
    return Run.create(folder, system.id, config, selection)


def preview(stores: Sequence[Store], options: Options) -> tuple[Selection, list[str]]:
    """Return the tracks of a run and its differences from the study; write nothing.

    Args:
        stores: store of each input of the system.
        options: settings that the user chose.

    Raises:
        MgcError: the run could not be trained, see `prepare`.
    """
    plan = _make_plan(stores, options, SINGLE_PROCESS)
    _, feature_differences = _fit_inputs(stores, plan)
    return plan.selection, [*feature_differences, *plan.differences, *_data_differences(stores, plan, options)]


def require_trainable(stores: Sequence[Store], options: Options, ranks: Ranks = SINGLE_PROCESS) -> None:
    """Raise the error that `prepare` would raise for its options and stores, such as too many folds; write nothing."""
    _make_plan(stores, options, ranks)


def _make_plan(stores: Sequence[Store], options: Options, ranks: Ranks) -> _Plan:
    """Check that the options can be followed, and decide what is trained on what."""
    first, *further = stores
    system = systems.get(options.model or systems.default_model(first.spec.name, first.spec.bins)).reading(len(stores))
    for store in stores:
        store.require_finished()
    system.require_trainable(len(stores))
    specs = [store.spec for store in stores]
    recipe, seed, differences = resolve(system, options, specs, computed=_any_computed(stores))
    if options.tensorboard:
        require_tensorboard()
    device = ranks.device(options.device)
    require_amp(recipe.loop.amp if recipe else "off", device)
    if options.skip_damaged and further:
        raise SpecError(f"--skip-damaged: {system.id} reads several stores", "leave the option out")
    slicing, cut = _choose_slicing(first, system, options)
    by_slice = options.split_unit == "slice"
    selection = select_tracks(first, further, slicing=slicing, limit=options.limit_tracks, seed=seed, unsplit=by_slice)
    if by_slice:
        require_divisible(recipe, options)
        # The store's seed, not the run's: runs with other seeds or systems are compared on the same slices.
        selection = split_slices(selection, stores, slicing, first.dataset.get("seed", 0))
    if options.fold is not None:
        # The user's seed or 0, not the recipe's: systems are compared on the same folds.
        selection = hold_out(selection, *options.fold, seed=options.seed or 0)
    if ranks.size > 1:
        _require_shareable(ranks.size, system, recipe, options, selection.tracks)
    variants, refit = _training_variants(first, system, options), refits(system, recipe, options)
    return _Plan(system, recipe, seed, device, slicing, cut, selection, variants, differences, refit)


def _choose_slicing(store: Store, system: System, options: Options) -> tuple[Slicing, str]:
    """Choose how the tracks are cut: by the cut that the user named, the one made for the system, or the default.

    Returns:
        The slicing, and a line for the user that says which cut it is.

    Raises:
        SpecError: --cut and --recipe contradict each other.
        StoreError: the store has no cut of that name.
    """
    studied = system.recipe.slicing.fitted(store.spec)
    if options.as_sliced:
        if options.cut is not None:
            raise SpecError(f"--cut {options.cut}: --recipe cuts as the study did", "leave one of them out")
        return studied, f"cut: {studied}, as studied"
    default, *others = store.cuts
    if options.cut is not None:
        try:
            named = find_cut(store.cuts, options.cut)
        except StoreError as error:
            raise StoreError(f"{store.path}: {error.problem}", error.remedy) from None
        return named.slicing, f"cut: {named.name} ({named.slicing})"
    for cut in others:
        if cut.slicing == studied and {system.id, system.study, "all"} & set(cut.systems):
            instead = f"--cut {default.name} takes the default, {default.slicing.brief}"
            return cut.slicing, f"cut: {cut.name} ({cut.slicing}), made by `mgc extract --for`; {instead}"
    beside = f"; others: {', '.join(cut.name for cut in others)} (--cut NAME)" if others else ""
    return default.slicing, f"cut: {default.name} ({default.slicing}), the default{beside}"


def _any_computed(stores: Sequence[Store]) -> bool:
    return any(isinstance(store, WaveformView) for store in stores)


def _fit_inputs(stores: Sequence[Store], plan: _Plan) -> tuple[list[int], Sequence[str]]:
    """Check that the stores fit the system's inputs.

    Returns:
        Frames of a window in each store, and the differences of features and slicing from the study.
    """
    _, tables = plan.selection.join_columns(stores, plan.slicing, "training")
    lengths = [typical_length(table["n_frames"].to_numpy()) for table in tables]
    specs, paths = [store.spec for store in stores], [str(store.path) for store in stores]
    fit = check_fit(plan.system, specs, plan.slicing, lengths, paths, frontend=_any_computed(stores))
    frames = [window or length for window, length in zip(fit.frames, lengths, strict=True)]
    return frames, fit.differences


def _require_shareable(
    n_processes: int, system: System, recipe: Training | None, options: Options, tracks: pa.Table
) -> None:
    """Raise `SpecError` if a training is not suited to several processes."""
    option = f"--nproc {n_processes}"
    if recipe is None:
        raise SpecError(f"{option}: {system.id} is fitted in one step", "leave the option out")
    refuse_skipping(n_processes, options.skip_damaged)
    # Batch normalisation cannot learn from a single slice. In the worst case an epoch of kB + 1 slices has k + 1
    # batches: a process with 4 slices of each B has 4k in all, and 4k // (k + 1) >= 2 or more of them in each batch.
    if recipe.batch_size < 4 * n_processes:
        problem = f"{option}: {recipe.batch_size} slices per update are fewer than 4 for each process"
        raise SpecError(problem, f"choose --batch-size {4 * n_processes} or more, or fewer processes")
    splits = tracks["split"].to_pylist()
    for split in ("training", "validation"):
        if (n := splits.count(split)) < 2 * n_processes:
            raise ModelError(f"{option}: {n} {split} tracks are fewer than 2 for each process", "start fewer processes")


def refuse_skipping(n_processes: int, skip_damaged: bool) -> None:
    """Raise `SpecError` if several processes are to skip damaged shards: one could be left without a batch."""
    if n_processes > 1 and skip_damaged:
        remedy = "repair the store: `mgc extract --verify`"
        raise SpecError(f"--nproc {n_processes} does not go with --skip-damaged", remedy)


def _training_variants(store: Store, system: System, options: Options) -> list[str]:
    """Return the augmentation variants of the store that the run trains on, beside the tracks themselves."""
    # A system of several inputs would need the same variant in every store, so it trains on the tracks alone. With
    # --recipe, a study that used no variants gets none, as it gets its own slicing whatever the slicing of the store.
    unwanted = (
        not options.variants
        or system.further
        or options.split_unit == "slice"
        or (options.as_sliced and not system.recipe.variants)
    )
    return [] if unwanted else list(map(str, store.variants))


def _data_differences(stores: Sequence[Store], plan: _Plan, options: Options) -> Iterator[str]:
    """Yield the differences from the study in tracks, initial weights and variants."""
    if options.fold is not None:
        yield "fold {} of {} for the validation split".format(*options.fold)
    if plan.refit != plan.system.recipe.refit and options.fold is None:
        yield (
            "trained again on the validation tracks, too"
            if plan.refit
            else "not trained again on the validation tracks"
        )
    if options.split_unit == "slice" and plan.system.recipe.dataset.published_unit == "track":
        yield "slices of one track in several splits (leaky)"
    if options.weights is not None:
        yield f"initial weights of {options.weights.name}"
    if options.limit_tracks is not None:
        pooled = " and as many validation tracks" if options.fold else ""
        yield f"at most {options.limit_tracks} training tracks{pooled} of each genre"
    for store in stores:
        # The rounding of int16 samples moves frames by more than the tolerance for stored ones.
        if isinstance(store, WaveformView) and store.source.spec.quantised:
            yield f"{store.spec.name} computed of int16 samples"
    variants, study = plan.variants, list(map(str, plan.system.recipe.variants))
    if variants and variants != study:
        yield f"training tracks also as {', '.join(variants)}" + (f" for {', '.join(study)}" if study else "")
    elif variants != study:
        yield f"training tracks without {', '.join(study)}"


def _store_entry(store: Store, slicing: Slicing, folder: Path) -> dict[str, Any]:
    """Return the entry of a store in the configuration of a run in `folder`."""
    return {
        "path": str(store.path.resolve()),
        "from_runs": relative_store_path(store.path, folder),
        "manifest": store.manifest_digest,
        "dataset": store.dataset,
        "spec": store.spec.as_dict(),
        "slicing": slicing.as_dict(),
        "sliced": store.slicing.as_dict(),
        **({"waveform": store.source.spec.as_dict()} if isinstance(store, WaveformView) else {}),
    }
