"""The command `mgc train`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mgc.models.parallel.options import device_option
from mgc.models.runs.commands import choose_run
from mgc.models.training.command_options import check_augmentation, check_folds, check_seeds, loop_options, nproc_option
from mgc.pipeline import completion, console, help_groups, option_types
from mgc.pipeline.console import LOCAL_PATH, PATH_OR_URL
from mgc.pipeline.errors import SpecError
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.models.data.store_candidates import StoreCandidates
    from mgc.models.parallel.ranks import Ranks
    from mgc.models.registry.systems import System
    from mgc.models.runs.run import Run
    from mgc.models.training.closing import Trained
    from mgc.models.training.options import Options
    from mgc.pipeline.store.store import Store


@help_groups.command()
@help_groups.group("Model and data")
@click.option(
    "--model",
    shell_complete=completion.models,
    help="System id, see `mgc models`.  [default: one for the store's feature]",
)
@click.option(
    "--recipe", shell_complete=completion.models, help="System id, to train with the features and slicing of its study."
)
@click.option(
    "--store",
    "stores",
    type=PATH_OR_URL,
    multiple=True,
    shell_complete=completion.stores,
    help="Feature store; repeat for a system with several inputs.  [default: the latest that fit]",
)
@click.option(
    "--cut", help="Cut of the store, see `mgc info`.  [default: that of `mgc extract --for` the system, or the default]"
)
@click.option(
    "--member",
    "members",
    type=LOCAL_PATH,
    multiple=True,
    shell_complete=completion.runs,
    help="Finished run of an ensemble's member; may be repeated.",
)
@loop_options
@help_groups.group("Runs")
@click.option("--seed", type=option_types.SEED, help="Seed of initial weights, order, windows and dropout.")
@click.option(
    "--seeds",
    callback=check_seeds,
    help="Train a run for each seed, such as 0,1,2, and print the spread of their accuracies.",
)
@click.option(
    "--folds",
    callback=check_folds,
    help="Cross-validation grouped by artist: 5, or 5:4,5 for the last two of five folds.",
)
@click.option(
    "--split-unit",
    type=console.choice("track", "slice"),
    default="track",
    show_default=True,
    help="slice: split slices at random, as some studies do; the run is marked leaky.",
)
@click.option(
    "--refit/--no-refit",
    default=None,
    help="Train once more, on the validation tracks, too, for the model in use.  [default: the recipe's]",
)
@click.option("--evaluate", is_flag=True, help="Also evaluate the runs on the test split when they are finished.")
@click.option("--search", is_flag=True, help="Choose hyper-parameters of kNN, SVM and the like by cross-validation.")
@click.option("--find-lr", is_flag=True, help="Train no run; print the learning rate at which the loss falls fastest.")
@help_groups.group("Hardware")
@device_option
@help_groups.group("Model and data")
@click.option("--limit-tracks", type=option_types.COUNT, help="Maximum number of tracks per genre, for quick trials.")
@help_groups.group("Augmentation")
@click.option("--variants/--no-variants", default=True, help="Also train on the store's variants.  [default: yes]")
@help_groups.group("Model and data")
@click.option(
    "--weights", type=LOCAL_PATH, help="Initial weights: a file such as torchvision's, or a name such as musicnn."
)
@help_groups.group("Augmentation")
@click.option(
    "--augment",
    "augmentation",
    callback=check_augmentation,
    help="Augmentation of training slices, such as time-masks=2,mixup=0.2; or none.  [default: the recipe's]",
)
@help_groups.group("Hardware")
@click.option(
    "--frontend",
    type=console.choice("store", "device"),
    default="store",
    show_default=True,
    help="Read spectrograms from the store, or compute them on the device from a waveform store.",
)
@click.option(
    "--residency",
    type=console.choice("auto", "device", "host", "stream"),
    help="Where frames stay between epochs.  [default: auto]",
)
@help_groups.group("Model and data")
@click.option("--skip-damaged", is_flag=True, help="Train without shards that cannot be read.")
@help_groups.group("Runs")
@click.option("--keep-last", is_flag=True, help="Keep last.pt, the state after the last update, of a finished run.")
@click.option("--tensorboard", is_flag=True, help="Also write the history as TensorBoard event files.")
@click.option(
    "--resume", is_flag=True, help="Continue an interrupted run (--run, or the one begun last) to the same result."
)
@click.option("--run", type=LOCAL_PATH, shell_complete=completion.runs, help="Run to continue with --resume.")
@click.option("--as-published", is_flag=True, help="Refuse to train if anything differs from the study.")
@console.common_options
@nproc_option
@click.pass_context
def train(
    context: click.Context, data_dir: Path, resume: bool, run: Path | None, ranks: Ranks | None, **options: Any
) -> int:
    """Train a system on its stores, and keep the best epoch on the validation split.

    Settings that no option sets are those of the system's recipe. The members of an ensemble are trained one after the
    other, each as a run of its own.
    """
    workspace, evaluate, device = Workspace(data_dir), options["evaluate"], options["device"]
    if run is not None and not resume:
        raise SpecError("--run names a run to continue", "add --resume, or leave it out")
    trained: Trained | None
    if resume:
        trained = _resume(workspace, run, options, ranks)
    else:
        request = Request(**{field.name: options.pop(field.name) for field in dataclasses.fields(Request)})
        request.require_consistent(options["seed"])
        system, candidates = _choose_system(workspace, request)
        job = _Job(workspace, system, candidates, _training_options(workspace, system, request, options), ranks)
        trained = (_train_ensemble if system.kind == "ensemble" else _train_system)(job, request)
    if trained is None:
        return 0
    from mgc.models.training import closing
    from mgc.models.training import train as training

    if trained.is_new:
        closing.announce(workspace, trained, evaluated=evaluate)
    if evaluate:
        training.dismiss(ranks or training.SINGLE_PROCESS)  # the other processes do not wait for the evaluation
        closing.evaluate(context, trained, device)
    return 0


@dataclass(frozen=True)
class Request:
    """Options of `mgc train` that choose what to train; `training.options.Options` holds those that choose how.

    Attributes:
        model: system id; None for the default of the latest store's feature.
        recipe: id of a system whose study also decides features and slicing; None for none.
        stores: feature stores to read; empty for the latest that fit.
        members: finished runs of members of an ensemble.
        seeds: seeds of repeated runs, such as `0,1,2`.
        folds: cross-validation folds, such as `5` or `5:4,5`.
        evaluate: evaluate the finished runs on the test split.
        find_lr: find the learning rate instead of training.
        frontend: `store` or `device`: where spectrograms are computed.
    """

    model: str | None
    recipe: str | None
    stores: tuple[Place, ...]
    members: tuple[Path, ...]
    seeds: str | None
    folds: str | None
    evaluate: bool
    find_lr: bool
    frontend: str

    def require_consistent(self, seed: int | None) -> None:
        """Raise `SpecError` if two options contradict each other."""
        if self.seeds is not None and (self.find_lr or seed is not None):
            raise SpecError("--seeds names seeds to train with", "leave out --seed and --find-lr")
        if self.folds is not None and (self.find_lr or self.seeds is not None):
            raise SpecError("--folds trains a run for each fold", "leave out --seeds and --find-lr")
        if self.evaluate and self.find_lr:
            raise SpecError("--evaluate tests runs, and --find-lr trains none", "leave one of them out")
        if self.recipe is not None and self.model is not None:
            raise SpecError("--recipe names a system, and so does --model", "leave one of them out")


@dataclass(frozen=True)
class _Job:
    """A system to train, and what it is trained with.

    Attributes:
        workspace: workspace whose folder of runs is written to.
        system: system to train.
        candidates: stores that its inputs are chosen from.
        options: training options.
        ranks: processes that train together; None for a single process.
    """

    workspace: Workspace
    system: System
    candidates: StoreCandidates
    options: Options
    ranks: Ranks | None

    def train(self, stores: Sequence[Store], options: Options) -> Run:
        """Train one run. It is recorded before it is trained, so that `--resume` finds it after a kill."""
        from mgc.models.training import train as training

        def remember(run: Run) -> None:
            self.workspace.remember("training", run.path)

        ranks = self.ranks or training.SINGLE_PROCESS
        with console.phase(f"training of {options.model}"):
            return training.train(stores, options, self.workspace.runs, console.note, remember, ranks)


def _resume(workspace: Workspace, path: Path | None, options: dict[str, Any], ranks: Ranks | None) -> Trained:
    """Continue the run at `path`, or the one that a command began last; a finished one is left as it is."""
    from mgc.models.training import train as training
    from mgc.models.training.closing import Trained

    run = choose_run(workspace, path, resuming=True)
    begun = workspace.interrupted_run()
    # A run that was killed after its last file is not the latest one yet.
    is_pending = not run.finished or (begun is not None and begun.resolve() == run.path.resolve())
    if not run.finished:
        workspace.remember("training", run.path)  # now, so that `--resume` finds it after another interruption
    training.resume(
        run,
        None if options["device"] == "auto" else options["device"],
        console.note,
        residency=options["residency"],
        skip_damaged=options["skip_damaged"],
        ranks=ranks or training.SINGLE_PROCESS,
    )
    return Trained([run], is_new=is_pending)


def _choose_system(workspace: Workspace, request: Request) -> tuple[System, StoreCandidates]:
    """Return the system to train and the stores it may read; an unknown id is an error before any store is opened."""
    from mgc.models.data.store_candidates import find_store_candidates
    from mgc.models.registry import systems

    id = request.recipe or request.model
    system = systems.get(id) if id else None
    if request.members and (system is None or system.kind != "ensemble"):
        raise SpecError("--member is for ensembles", "name one with --model; `mgc models` lists their members")
    candidates = find_store_candidates(
        workspace, request.stores, study_only=request.recipe is not None, frontend=request.frontend == "device"
    )
    if system is None:
        from mgc.models.training import choice

        system, line = choice.default_system(candidates)
        console.note(line, err=True)
    if system.kind == "ensemble" and (request.seeds is not None or request.folds is not None or request.find_lr):
        raise SpecError(f"--seeds, --folds and --find-lr: {system.id} has members", "name one of them with --model")
    return system, candidates


def _training_options(workspace: Workspace, system: System, request: Request, options: dict[str, Any]) -> Options:
    """Build the training options from those of the command line."""
    from mgc.models.registry.augmentation import Augmentation
    from mgc.models.training.options import Options

    changes = {"model": system.id, "as_sliced": request.recipe is not None, "residency": options["residency"] or "auto"}
    if options["weights"] is not None and system.kind == "neural":
        from mgc.models.registry import weights

        changes["weights"] = weights.find(options["weights"], system, workspace)
    if options["augmentation"] is not None:
        changes["augmentation"] = Augmentation.parse(options["augmentation"])
    return Options(**options | changes)


def _train_ensemble(job: _Job, request: Request) -> Trained:
    """Train the members that have no finished run yet, and join all of them."""
    from mgc.models.training import ensemble
    from mgc.models.training.closing import Trained

    finished = [choose_run(job.workspace, path) for path in request.members]
    members = ensemble.train_members(job.system, job.candidates, job.options, job.train, finished, console.note)
    return Trained([ensemble.join(job.system, members, job.workspace.runs)])


def _train_system(job: _Job, request: Request) -> Trained | None:
    """Train one run, or one for each seed or fold; or find the learning rate and return None."""
    from mgc.models.parallel.ranks import SINGLE_PROCESS
    from mgc.models.training import folds, preparation, rate_finder, repeats
    from mgc.models.training.closing import Trained

    with console.phase("choice of stores"):
        stores = job.candidates.choose(job.system)
    job.candidates.require_all_used(stores, job.system.id)
    is_said = job.candidates.explicit or (request.model or request.recipe) is None
    latest = job.candidates.stores[0]
    is_latest = any(store.path == latest.path for store in stores)
    why = "" if is_latest else f" (the latest, {latest.path.name}, does not fit {job.system.id})"
    for store in () if is_said else stores:
        console.note(f"store: {store.path}{why}", err=True)

    def train_one(**changes: Any) -> Run:
        return job.train(stores, dataclasses.replace(job.options, **changes))

    if request.find_lr:
        console.echo(*rate_finder.suggest(stores, job.options))
        return None
    if request.seeds is not None:
        seeds = repeats.parse(request.seeds)
        if not job.system.uses_seed and job.options.limit_tracks is None:
            console.note(f"--seeds {request.seeds}: {job.system.id} does not depend on the seed, it is trained once")
            return Trained([train_one(seed=seeds[0])])
        return Trained(repeats.repeat(lambda seed: train_one(seed=seed), seeds, console.note), "seed")
    if request.folds is not None:
        count, numbers = folds.parse(request.folds)
        first = dataclasses.replace(job.options, fold=(numbers[0], count))
        preparation.require_trainable(stores, first, job.ranks or SINGLE_PROCESS)  # before fold 1 begins
        runs = repeats.repeat(
            lambda number: train_one(fold=(number, count)),
            numbers,
            console.note,
            label="fold",
            option=f"--folds {count}:",
        )
        return Trained(runs, "fold")
    return Trained([train_one()])
