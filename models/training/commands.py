"""`mgc train`."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from mgc.models.runs.commands import choose_run
from mgc.pipeline import console
from mgc.pipeline.console import LOCAL_PATH, PATH_OR_URL
from mgc.pipeline.errors import SpecError
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.models.data.sources import StoreCandidates
    from mgc.models.parallel.ranks import Ranks
    from mgc.models.registry.systems import System
    from mgc.models.runs.run import Run
    from mgc.models.training.options import Options


def loop_options(command: Callable) -> Callable:
    """Add the options of the training loop. Settings of `registry.settings` reach the command as one dict, `loop`."""
    from mgc.models.registry.settings import Metric, OptimizerName, loop_settings

    @functools.wraps(command)
    def bundled(**options: Any) -> Any:
        values = {setting.name: options.pop(setting.name) for setting in loop_settings()}
        given = {name: value for name, value in values.items() if value is not None}
        return command(**options, loop=given)

    decorators = [
        click.option("--epochs", type=int, help="Epochs at most."),
        click.option("--batch-size", type=int, help="Slices per update, of all processes together."),
        click.option("--lr", type=float, help="Learning rate of the first update."),
        click.option("--optimizer", type=click.Choice(get_args(OptimizerName)), help="Optimiser."),
        click.option("--weight-decay", type=float, help="Of the optimiser."),
        click.option("--monitor", type=click.Choice(get_args(Metric)), help="Validation metric of the best epoch."),
        click.option("--patience", type=int, help="Epochs without a better one after which training stops."),
    ]
    for setting in loop_settings():
        name = setting.name.replace("_", "-")
        kind = click.Choice(setting.choices) if setting.choices else setting.type
        flags = f"--{name}/--no-{name}" if setting.type is bool else f"--{name}"
        decorators.append(click.option(flags, setting.name, type=kind, default=None, help=setting.help))
    return console.with_options(bundled, *decorators)


def several_processes(command: Callable) -> Callable:
    """Add `--nproc`, and run the command in that many processes; torchrun may have started them already.

    Rank 0 runs the command with the processes as `ranks` (None if it is alone); the other ranks train along with it.
    """

    @functools.wraps(command)
    def joined(nproc: int | None, **options: Any) -> Any:
        from mgc.models.parallel import launcher

        if launcher.is_launched():
            from mgc.models.parallel import ranks
            from mgc.models.training import train as training

            with ranks.join(nproc) as processes:
                if not processes.is_main:
                    training.follow(processes)
                    return 0
                code = command(**options, ranks=processes)
                training.dismiss(processes)
                return code
        more: list[str] = []
        if options["resume"]:
            run = choose_run(Workspace(options["data_dir"]), options["run"])
            options["run"], nproc = run.path, nproc or run.config.get("processes", 1)
            more = ["--run", str(run.path)]
        if nproc in (None, 1):
            return command(**options, ranks=None)
        if options["find_lr"]:
            raise SpecError(f"--nproc {nproc}: one process finds the learning rate", "leave out --nproc")
        # -P: a module of the same name in the current folder must not hide one of Python's.
        words = click.get_current_context().find_root().obj
        return launcher.launch([sys.executable, "-P", "-m", "mgc", *words, *more], nproc)

    option = click.option(
        "--nproc", type=click.IntRange(min=1), help="Processes that train together; on GPUs, one each.  [default: 1]"
    )
    return option(joined)


@click.command()
@click.option("--model", help="Id of a system, see `mgc models`.  [default: one that fits the store's feature]")
@click.option("--recipe", help="Id of a system: features and slicing as its study had them, too.")
@click.option(
    "--store",
    "stores",
    type=PATH_OR_URL,
    multiple=True,
    help="Feature store; once for each that the system reads.  [default: the latest that fit]",
)
@click.option("--member", "members", type=LOCAL_PATH, multiple=True, help="Of an ensemble: a run to take as it is.")
@loop_options
@click.option("--seed", type=int, help="Of weights, order, windows and dropout.")
@click.option("--seeds", help="Several runs, such as 0,1,2, and how much their accuracies differ.")
@click.option("--folds", help="Cross-validation grouped by artist: 5, or 5:4,5 for the last two of five folds.")
@click.option("--search", is_flag=True, help="Hyper-parameters of kNN, SVM and the like by cross-validation.")
@click.option("--find-lr", is_flag=True, help="Train nothing: say at which learning rate the loss falls fastest.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--limit-tracks", type=int, help="Tracks of each genre at most, to try something out.")
@click.option("--variants/--no-variants", default=True, help="Train on the variants in the store, too.  [default: yes]")
@click.option("--weights", type=LOCAL_PATH, help="State dict to start from, such as torchvision's of the same network.")
@click.option(
    "--augment",
    "augmentation",
    help="Changes to training slices, such as time-masks=2,time-width=20,mixup=0.2; or none.  [default: the recipe's]",
)
@click.option(
    "--frontend",
    type=click.Choice(["store", "device"]),
    default="store",
    show_default=True,
    help="Where spectrograms come from: the store, or the device, which computes them of a store of samples.",
)
@click.option(
    "--residency",
    type=click.Choice(["auto", "device", "host", "stream"]),
    help="Where frames stay between epochs.  [default: auto]",
)
@click.option("--skip-damaged", is_flag=True, help="Go on without shards that cannot be read.")
@click.option("--tensorboard", is_flag=True, help="Write the history as TensorBoard's event files, too.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run (--run, or the latest) to the same result.")
@click.option("--run", type=LOCAL_PATH, help="With --resume: the run.")
@click.option("--as-published", is_flag=True, help="Refuse to train where anything differs from the study.")
@console.common_options
@several_processes
def train(data_dir: Path, resume: bool, run: Path | None, ranks: Ranks | None, **options: Any) -> int:
    """Train a system on its stores; the best epoch on the validation split is kept.

    What is not given is as the system's recipe has it. An ensemble's members are trained one after the other, each as a
    run of its own.
    """
    workspace = Workspace(data_dir)
    if run is not None and not resume:
        raise SpecError("--run names a run to continue", "add --resume, or leave it out")
    if resume:
        _resume(workspace, run, options, ranks)
        return 0
    request = Request(**{field.name: options.pop(field.name) for field in dataclasses.fields(Request)})
    request.require_one_kind(options["seed"])
    system, offer = _choose_system(workspace, request)
    settings = _training_options(system, request, options)
    if system.kind == "ensemble":
        _train_ensemble(workspace, system, offer, settings, request, ranks)
    else:
        _train_system(workspace, system, offer, settings, request, ranks)
    return 0


@dataclass(frozen=True)
class Request:
    """The options of `mgc train` that choose what is trained; all others say how (`training.options`).

    Attributes:
        model: id of a system; None for the default of the latest store's feature.
        recipe: id of a system whose study's features and slicing are wanted, too.
        stores: feature stores to read; empty for the latest that fit.
        members: runs to take as members of an ensemble.
        seeds: seeds of several runs, such as `0,1,2`.
        folds: folds of cross-validation, such as `5` or `5:4,5`.
        find_lr: find the learning rate instead of training.
        frontend: `store` or `device`: where spectrograms are computed.
    """

    model: str | None
    recipe: str | None
    stores: tuple[Place, ...]
    members: tuple[Path, ...]
    seeds: str | None
    folds: str | None
    find_lr: bool
    frontend: str

    def require_one_kind(self, seed: int | None) -> None:
        """Raise `SpecError` if two options contradict each other."""
        if self.seeds is not None and (self.find_lr or seed is not None):
            raise SpecError("--seeds names seeds to train with", "leave out --seed and --find-lr")
        if self.folds is not None and (self.find_lr or self.seeds is not None):
            raise SpecError("--folds trains a run for each fold", "leave out --seeds and --find-lr")
        if self.recipe is not None and self.model is not None:
            raise SpecError("--recipe names a system, and so does --model", "leave one of them out")


def _resume(workspace: Workspace, path: Path | None, options: dict[str, Any], ranks: Ranks | None) -> None:
    from mgc.models.training import train as training

    run = choose_run(workspace, path)
    training.resume(
        run,
        None if options["device"] == "auto" else options["device"],
        click.echo,
        residency=options["residency"],
        skip_damaged=options["skip_damaged"],
        ranks=ranks or training.SINGLE_PROCESS,
    )
    _announce(workspace, run)


def _choose_system(workspace: Workspace, request: Request) -> tuple[System, StoreCandidates]:
    """The system to train, and the stores it may read; a misspelt id is refused before any store is opened."""
    from mgc.models.data import sources
    from mgc.models.registry import systems

    id = request.recipe or request.model
    system = systems.get(id) if id else None
    if request.members and (system is None or system.kind != "ensemble"):
        raise SpecError("--member is for ensembles", "name one with --model; `mgc models` lists their members")
    on_device = request.frontend == "device"
    offer = sources.find_store_candidates(workspace, request.stores, study_only=request.recipe is not None, frontend=on_device)
    if system is None:
        system = systems.get(systems.default_model(offer.stores[0].spec.name))
    if system.kind == "ensemble" and (request.seeds is not None or request.folds is not None or request.find_lr):
        raise SpecError(f"--seeds, --folds and --find-lr: {system.id} has members", "name one of them with --model")
    return system, offer


def _training_options(system: System, request: Request, options: dict[str, Any]) -> Options:
    from mgc.models.registry.augmentation import Augmentation
    from mgc.models.training.options import Options

    changes = {"model": system.id, "as_sliced": request.recipe is not None, "residency": options["residency"] or "auto"}
    if options["augmentation"] is not None:
        changes["augmentation"] = Augmentation.parse(options["augmentation"])
    return Options(**options | changes)


def _train_ensemble(
    workspace: Workspace, system: System, offer: StoreCandidates, settings: Options, request: Request, ranks: Ranks | None
) -> None:
    from mgc.models.training import ensemble
    from mgc.models.training import train as training

    taken = [choose_run(workspace, path) for path in request.members]
    begun = functools.partial(_remember, workspace)
    together = ranks or training.SINGLE_PROCESS
    run = ensemble.train_members(system, offer, settings, workspace.runs, taken, click.echo, begun, together)
    _announce(workspace, run)


def _train_system(
    workspace: Workspace, system: System, offer: StoreCandidates, settings: Options, request: Request, ranks: Ranks | None
) -> None:
    """Train one run, or one for each seed or fold; or find the learning rate."""
    from mgc.models.training import folds, rate_finder, repeats
    from mgc.models.training import train as training

    first, *further = stores = offer.choose(system)
    offer.require_all_used(stores, system.id)
    for store in () if offer.named else stores:
        click.echo(f"store: {store.path}", err=True)
    workspace.remember("store", first.path)
    if request.find_lr:
        click.echo("\n".join(rate_finder.advise(first, settings, further)))
        return

    def train_one(**changes: Any) -> Run:
        changed = dataclasses.replace(settings, **changes)
        begun = functools.partial(_remember, workspace)
        return training.train(first, changed, workspace.runs, click.echo, begun, further, ranks or training.SINGLE_PROCESS)

    if request.seeds is not None:
        label = "seed"
        runs = repeats.repeat(lambda seed: train_one(seed=seed), repeats.parse(request.seeds), click.echo)
    elif request.folds is not None:
        label, (count, numbers) = "fold", folds.parse(request.folds)
        option = f"--folds {count}:"
        runs = repeats.repeat(
            lambda number: train_one(fold=(number, count)), numbers, click.echo, what=label, option=option
        )
    else:
        _announce(workspace, train_one())
        return
    for run in runs:
        _announce(workspace, run)
    click.echo("\n".join(repeats.spread(runs, label)))


def _remember(workspace: Workspace, run: Run) -> None:
    """Make a run the latest one as soon as it has begun, so that `--resume` finds it after a kill."""
    workspace.remember("run", run.path)


def _announce(workspace: Workspace, run: Run) -> None:
    workspace.remember("run", run.path)
    if run.history:
        from mgc.models.training import curves

        click.echo(f"curves: {curves.draw(run)}")
    click.echo(f"run: {run.path}; `mgc evaluate --by-genre` tests it")
