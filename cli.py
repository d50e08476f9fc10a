"""The `mgc` command: parse, call, print. Everything heavy is imported inside the commands."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from mgc.pipeline import console
from mgc.pipeline.console import FOLDER, PLACE
from mgc.pipeline.errors import MgcError, SpecError
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.workspace import Workspace


def training_options(command: Callable) -> Callable:
    """How a network is trained, where that is not left to the recipe: `loop` gets the settings of `settings`."""
    from mgc.models.registry.settings import Metric, OptimizerName
    from mgc.models.registry.settings import options as settings

    @functools.wraps(command)
    def bundled(**options: Any) -> Any:
        chosen = {setting.name: options.pop(setting.name) for setting in settings()}
        given = {name: value for name, value in chosen.items() if value is not None}
        return command(**options, loop=given)

    optimizers, metrics = get_args(OptimizerName), get_args(Metric)
    made = [
        click.option("--epochs", type=int, help="Epochs at most."),
        click.option("--batch-size", type=int, help="Slices per update, of all processes together."),
        click.option("--lr", type=float, help="Learning rate of the first update."),
        click.option("--optimizer", type=click.Choice(optimizers), help="What an update does."),
        click.option("--weight-decay", type=float, help="Of the optimiser."),
        click.option("--monitor", type=click.Choice(metrics), help="Validation metric of the best epoch."),
        click.option("--patience", type=int, help="Epochs without a better one after which training stops."),
    ]
    for setting in settings():
        name = setting.name.replace("_", "-")
        kind = click.Choice(setting.choices) if setting.choices else setting.type
        flags = f"--{name}/--no-{name}" if setting.type is bool else f"--{name}"
        made.append(click.option(flags, setting.name, type=kind, default=None, help=setting.help))
    return console.with_options(bundled, *made)


def several(command: Callable) -> Callable:
    """`--nproc`: the command in several processes, as which torchrun may have started it, too.

    The first one gets the others as `ranks`, which is None where there are none; they train along.
    """

    @functools.wraps(command)
    def joined(nproc: int | None, **options: Any) -> Any:
        from mgc.models.parallel import launcher

        if launcher.joined():
            from mgc.models.parallel import ranks
            from mgc.models.training import train as training

            with ranks.join(nproc) as processes:
                if not processes.first:
                    training.follow(processes)
                    return 0
                code = command(**options, ranks=processes)
                training.dismiss(processes)
                return code
        more: list[str] = []
        if options["resume"]:
            continued = _run(Workspace(options["data_dir"]), options["run"])
            options["run"], nproc = continued.path, nproc or continued.config.get("processes", 1)
            more = ["--run", str(continued.path)]
        if nproc in (None, 1):
            return command(**options, ranks=None)
        if options["find_lr"]:
            raise SpecError(f"--nproc {nproc}: one process finds the learning rate", "leave out --nproc")
        given = click.get_current_context().find_root().obj
        return launcher.launch([sys.executable, "-P", "-m", "mgc", *given, *more], nproc)

    option = click.option(
        "--nproc", type=click.IntRange(min=1), help="Processes that train together; on GPUs, one each.  [default: 1]"
    )
    return option(joined)


@click.group(cls=console.Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mgc-music")
@click.option("--debug", is_flag=True, expose_value=False, help="Show where an error comes from.")
def main() -> None:
    """Folders of music into trained, honestly evaluated genre classifiers.

    Three stages that meet in files: `mgc extract` makes a feature store, `mgc train` a run, `mgc evaluate` a report.
    """
    # Before torch is imported: on processors that others use too, threads that spin while they wait for each other make
    # a training step three times as slow as threads that soon sleep (measured: kth2020/cnn 1.2 s, 0.42 s; idle 0.18 s).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@main.command()
@console.dataset_options
@click.option("--name", help="What the dataset's stores are filed under.  [default: name of the folder or list]")
@click.option(
    "--feature",
    "features",
    multiple=True,
    help="stft, mel, mfcc, power, chroma, harmonic, percussive, waveform or stats, [:key=value,...]; may be repeated.",
)
@console.slicing_options
@click.option("--sr", type=int, help="Sample rate in Hz.")
@click.option("--n-fft", type=int, help="Samples of the Fourier transform.")
@click.option("--hop-length", type=int, help="Samples between frames.")
@click.option("--n-mels", type=int, help="Mel bands.")
@click.option("--n-mfcc", type=int, help="Cepstral coefficients.")
@click.option("--fmin", type=float, help="Lowest mel frequency in Hz.")
@click.option("--fmax", type=float, help="Highest mel frequency in Hz.")
@click.option("--dtype", help="How frames are stored: uint8 (0.5 dB steps), float16, float32; waveform: int16.")
@click.option("--for", "system", help="Take features and slicing from the recipe of a system, study, or all.")
@click.option("--out", type=PLACE, help="Folder of the stores.  [default: features/<dataset> in the workspace]")
@click.option(
    "--augment",
    help="Variants of training tracks: pitch:SEMITONES, stretch:SPEED, noise[:DB], separated by commas; or none.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes.  [default: one per processor]")
@click.option("--scheduler", help="Address of a running Dask scheduler, tcp://host:8786.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of splits and shard layout.")
@click.option("--splits", type=FOLDER, help="CSV/Parquet with track_id (or path) and split: overrides all others.")
@click.option("--max-duration", type=float, help="Drop tracks longer than this many seconds.")
@click.option("--max-dropped", help="Exit with 1 if more is dropped: a number, or a share like 5%.")
@click.option("--timeout", type=float, default=300, show_default=True, help="Seconds that one file may take.")
@click.option("--verify", is_flag=True, help="Check every byte of the store first; extract damaged shards again.")
@click.option("--rebuild", is_flag=True, help="Extract everything again, into the layout of one pass.")
@console.json_option
@console.common
def extract(data_dir: Path, as_json: bool, **options: Any) -> int:
    """Decode a dataset once and store features of it.

    A second call does nothing; a call after new, changed or removed files does just what is needed.
    """
    from mgc.pipeline.datasets.splits import read_splits
    from mgc.pipeline.extraction import extract as extraction
    from mgc.pipeline.features import parse_feature
    from mgc.pipeline.features.variants import parse_variants
    from mgc.pipeline.store import summary

    limit = summary.parse_limit(options["max_dropped"])
    names = ("sr", "n_fft", "hop_length", "n_mels", "n_mfcc", "fmin", "fmax", "dtype")
    defaults = {name: options[name] for name in names if options[name] is not None}
    variants = parse_variants(options["augment"]) if options["augment"] is not None else None
    asked = [(parse_feature(text, defaults), variants or ()) for text in options["features"]]
    slicing = console.slicing(options)
    if options["system"]:
        from mgc.models.registry import overview

        studied, cut = overview.extraction_for(options["system"])
        asked += [(spec, made if variants is None else variants) for spec, made in studied]
        slicing = slicing or cut
    if not asked:
        raise SpecError("no feature asked for", "add --feature stft, --feature mel or --feature mfcc")
    groups: dict[Any, list[Any]] = {}  # a file is decoded once for all features with the same variants
    for spec, made in dict.fromkeys(asked):
        groups.setdefault(made, []).append(spec)
    workspace = Workspace(data_dir)
    dataset = _open_dataset(workspace, options)
    out = options["out"] or workspace.features(options["name"] or dataset.name)
    echo = console.notes(as_json)
    for note in dataset.notes:
        echo(note)
    how = extraction.Options(
        slicing=slicing,
        workers=options["workers"],
        scheduler=options["scheduler"],
        seed=options["seed"],
        splits=read_splits(options["splits"]) if options["splits"] else {},
        max_duration=options["max_duration"],
        file_timeout=options["timeout"],
        rebuild=options["rebuild"],
        verify=options["verify"],
    )
    done = []
    for made, specs in groups.items():
        if made and variants is None:
            echo(f"training tracks also as {', '.join(map(str, made))}, as studied; --augment none leaves that out")
        how = dataclasses.replace(how, variants=made)
        done += extraction.extract(dataset, specs, out, how, echo=echo, progress=console.bar("extract", "track"))
    reports = [summary.summarise(result.store) | {"decoded": result.decoded} for result in done]
    workspace.remember("store", done[-1].store.path)
    if as_json:
        console.print_json({"stores": reports})
    else:
        click.echo(
            "\n\n".join(summary.render(report, result.store) for report, result in zip(reports, done, strict=True))
        )
    for report in reports:
        summary.require_enough(report, limit)
    return 0


class _NoPandas:
    """A finder of modules that knows of one that it is not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Leave every other name to the finders behind it."""
        if name == "pandas":
            raise ModuleNotFoundError(name)


def _spare_pandas() -> None:
    """Have pyarrow do without pandas, which it imports with its first array wherever it is installed.

    That takes half a second, and nothing here makes arrays of data frames. Whoever imports pandas later gets it.
    """
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(finder)


def _open_dataset(workspace: Workspace, options: dict[str, Any]) -> Any:
    _spare_pandas()
    from mgc.pipeline.datasets import open_dataset

    source = options["dataset"]
    if source is None:
        source = workspace.only_dataset()
        click.echo(f"dataset: {source}", err=True)
    out = options.get("out")
    return open_dataset(
        source,
        format=options["layout"],
        metadata=options["metadata"],
        subset=options["subset"],
        genre_column=options["genre_column"],
        audio_root=options["audio_root"],
        copies=out if isinstance(out, Path) else workspace.root / "features",
    )


@main.command("slice")
@click.argument("store", type=PLACE, required=False)
@console.slicing_options
@click.option("--seed", type=int, default=0, show_default=True, help="Of random places.")
@console.json_option
@console.common
def slice_(store: Place | None, data_dir: Path, as_json: bool, seed: int, **options: Any) -> int:
    """Cut the tracks of a store anew, without decoding."""
    from mgc.pipeline.extraction import extract as extraction
    from mgc.pipeline.store import summary

    slicing = console.slicing(options, seed)
    if slicing is None:
        raise SpecError("no slicing given", "add --slice SECONDS, --frames N or --whole")
    cut = extraction.reslice(_store(Workspace(data_dir), store), slicing)
    report = summary.summarise(cut)
    if as_json:
        console.print_json(report)
    else:
        click.echo(summary.render(report, cut))
    return 0


@main.command()
@click.argument("store", type=PLACE, required=False)
@click.option("--splits", type=FOLDER, help="CSV/Parquet with track_id (or path) and split.")
@click.option("--redo", is_flag=True, help="Draw the splits anew.")
@click.option("--seed", type=int, help="Of the new splits.  [default: the store's]")
@console.dataset_options
@console.json_option
@console.common
def split(
    store: Place | None,
    splits: Path | None,
    redo: bool,
    seed: int | None,
    data_dir: Path,
    as_json: bool,
    **options: Any,
) -> int:
    """Show the splits of a store, or reassign those of all stores of its dataset, without decoding."""
    from mgc.pipeline.datasets import reopen
    from mgc.pipeline.datasets.splits import read_splits
    from mgc.pipeline.extraction.resplit import resplit
    from mgc.pipeline.store import summary

    workspace = Workspace(data_dir)
    opened = _store(workspace, store)
    echo = console.notes(as_json)
    if redo or splits:
        if options["dataset"] is None:  # as it was described when the store was made, but for what is said here
            told = {name: options[name] for name in ("metadata", "subset", "genre_column", "audio_root")}
            described = {name: str(value) for name, value in told.items() if value is not None}
            head = opened.dataset | {"options": opened.dataset.get("options", {}) | described}
            dataset = reopen(head | ({"format": options["layout"]} if options["layout"] != "auto" else {}))
        else:
            dataset = _open_dataset(workspace, options)
        override = read_splits(splits) if splits else {}
        seed = opened.dataset["seed"] if seed is None else seed
        moved, notes = resplit(opened, dataset, seed, override, keep=not redo)
        for note in notes:
            echo(note)
        echo(f"{moved} tracks changed their split; runs trained before keep their own track lists")
        opened = type(opened).open(opened.path)
    report = summary.summarise(opened)
    if as_json:
        console.print_json(report)
    else:
        click.echo(summary.render_splits(report))
    return 0


@main.command()
@click.argument("path", type=PLACE, required=False, metavar="[STORE|RUN]")
@console.json_option
@console.common
def info(path: Place | None, data_dir: Path, as_json: bool) -> int:
    """Show what is in a store or a run."""
    from mgc.pipeline.store import summary

    workspace = Workspace(data_dir)
    if isinstance(path, Path) and (path / "config.json").exists():
        from mgc.models.runs import overview

        run = _run(workspace, path)
        if as_json:
            console.print_json(overview.describe_run(run))
        else:
            click.echo(overview.render_run(run))
        return 0
    store = _store(workspace, path)
    report = summary.summarise(store)
    if as_json:
        console.print_json(report)
    else:
        click.echo(summary.render(report, store))
    return 0


@main.command()
@click.argument("store", type=PLACE, required=False)
@console.json_option
@console.common
def verify(store: Place | None, data_dir: Path, as_json: bool) -> int:
    """Check every byte of a store against its checksums."""
    from mgc.pipeline.store.verify import verify as check

    opened = _store(Workspace(data_dir), store)
    problems = check(opened, console.bar("verify", "shard"))
    if as_json:
        rows = [{"file": str(p.path), "shard": p.shard, "problem": p.what} for p in problems]
        console.print_json({"store": str(opened.path), "ok": not problems, "problems": rows})
    else:
        for problem in problems:
            click.echo(f"{problem.path}: {problem.what}")
        if not problems:
            click.echo(f"{opened.path}: every byte is as it was written")
    if problems:
        remedy = "run `mgc extract --verify` on its dataset: what is damaged is extracted again"
        raise MgcError(f"{opened.path}: {len(problems)} problems", remedy)
    return 0


@main.command()
@click.option("--markdown", "as_markdown", is_flag=True, help="Everything about them, as in docs/systems.md.")
@console.json_option
@console.common
def models(data_dir: Path, as_json: bool, as_markdown: bool) -> int:
    """List the systems that can be trained."""
    from mgc.models.registry import catalogue, overview

    if as_markdown:
        click.echo(catalogue.markdown(), nl=False)
        return 0
    systems = overview.describe_systems()
    if as_json:
        console.print_json(systems)
    else:
        click.echo(overview.render_systems(systems))
    return 0


@main.command()
@click.option("--model", help="Id of a system, see `mgc models`.  [default: one that fits the store's feature]")
@click.option("--recipe", help="Id of a system: features and slicing as its study had them, too.")
@click.option(
    "--store",
    "stores",
    type=PLACE,
    multiple=True,
    help="Feature store; once for each that the system reads.  [default: the latest that fit]",
)
@click.option("--member", "members", type=FOLDER, multiple=True, help="Of an ensemble: a run to take as it is.")
@training_options
@click.option("--seed", type=int, help="Of weights, order, windows and dropout.")
@click.option("--seeds", help="Several runs, such as 0,1,2, and how much their accuracies differ.")
@click.option("--folds", help="Cross-validation grouped by artist: 5, or 5:4,5 for the last two of five folds.")
@click.option("--search", is_flag=True, help="Hyper-parameters of kNN, SVM and the like by cross-validation.")
@click.option("--find-lr", is_flag=True, help="Train nothing: say at which learning rate the loss falls fastest.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--limit-tracks", type=int, help="Tracks of each genre at most, to try something out.")
@click.option("--variants/--no-variants", default=True, help="Train on the variants in the store, too.  [default: yes]")
@click.option("--weights", type=FOLDER, help="State dict to start from, such as torchvision's of the same network.")
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
@click.option("--run", type=FOLDER, help="With --resume: the run.")
@click.option("--as-published", is_flag=True, help="Refuse to train where anything differs from the study.")
@console.common
@several
def train(
    data_dir: Path,
    resume: bool,
    run: Path | None,
    device: str,
    residency: str | None,
    skip_damaged: bool,
    ranks: Any,
    **options: Any,
) -> int:
    """Train a system on its stores; the best epoch on the validation split is kept.

    What is not given is as the system's recipe has it. An ensemble's members are trained one after the other, each as a
    run of its own.
    """
    workspace = Workspace(data_dir)
    if run is not None and not resume:
        raise SpecError("--run names a run to continue", "add --resume, or leave it out")
    if resume:
        from mgc.models.training import train as training

        continued = _run(workspace, run)
        where = None if device == "auto" else device
        together = ranks or training.ALONE
        training.resume(continued, where, click.echo, residency=residency, skip_damaged=skip_damaged, ranks=together)
        return _say_trained(workspace, continued)
    recipe, members, named, seeds, folds, find_lr, frontend = (
        options.pop(name) for name in ("recipe", "members", "stores", "seeds", "folds", "find_lr", "frontend")
    )
    if seeds is not None and (find_lr or options["seed"] is not None):
        raise SpecError("--seeds names seeds to train with", "leave out --seed and --find-lr")
    if folds is not None and (find_lr or seeds is not None):
        raise SpecError("--folds trains a run for each fold", "leave out --seeds and --find-lr")
    if recipe is not None and options["model"] is not None:
        raise SpecError("--recipe names a system, and so does --model", "leave one of them out")
    from mgc.models.data import sources
    from mgc.models.registry import systems

    id = recipe or options["model"]
    system = systems.get(id) if id else None  # a typo is told at once
    if members and (system is None or system.kind != "ensemble"):
        raise SpecError("--member is for ensembles", "name one with --model; `mgc models` lists their members")
    offer = sources.offer(workspace, named, studied=recipe is not None, frontend=frontend == "device")
    if system is None:
        system = systems.get(systems.default_model(offer.stores[0].spec.name))
    if system.kind == "ensemble" and (seeds is not None or folds is not None or find_lr):
        raise SpecError(f"--seeds, --folds and --find-lr: {system.id} has members", "name one of them with --model")
    from mgc.models.evaluation import ensemble
    from mgc.models.registry.augmentation import Augmentation
    from mgc.models.training import folds as folding
    from mgc.models.training import repeats
    from mgc.models.training import train as training

    if options["augmentation"] is not None:
        options["augmentation"] = Augmentation.parse(options["augmentation"])
    options |= {"model": system.id, "as_sliced": recipe is not None}
    options |= {"device": device, "residency": residency or "auto", "skip_damaged": skip_damaged}
    chosen = training.Options(**options)
    together = ranks or training.ALONE
    begun = lambda started: workspace.remember("run", started.path)  # noqa: E731  so that --resume finds it after a kill
    if system.kind == "ensemble":
        taken = [_run(workspace, path) for path in members]
        made = ensemble.train_members(system, offer, chosen, workspace.runs, taken, click.echo, begun, together)
        return _say_trained(workspace, made)
    first, *further = stores = offer.choose(system)
    offer.require_all_used(stores, system.id)
    for store in () if offer.named else stores:
        click.echo(f"store: {store.path}", err=True)
    workspace.remember("store", first.path)
    if find_lr:
        from mgc.models.training import rate_finder

        click.echo("\n".join(rate_finder.advise(first, chosen, further)))
        return 0

    def train_one(**changes: Any) -> Any:
        options = dataclasses.replace(chosen, **changes)
        return training.train(first, options, workspace.runs, click.echo, begun, further, together)

    if seeds is not None:
        what = "seed"
        runs = repeats.repeat(lambda seed: train_one(seed=seed), repeats.parse(seeds), click.echo)
    elif folds is not None:
        what, (count, wanted) = "fold", folding.parse(folds)
        train_fold = lambda number: train_one(fold=(number, count))  # noqa: E731
        runs = repeats.repeat(train_fold, wanted, click.echo, what=what, option=f"--folds {count}:")
    else:
        return _say_trained(workspace, train_one())
    for made in runs:
        _say_trained(workspace, made)
    click.echo("\n".join(repeats.spread(runs, what)))
    return 0


def _say_trained(workspace: Workspace, run: Any) -> int:
    workspace.remember("run", run.path)
    if run.history:
        from mgc.models.training import curves

        click.echo(f"curves: {curves.draw(run)}")
    click.echo(f"run: {run.path}; `mgc evaluate --by-genre` tests it")
    return 0


@main.command()
@click.argument("runs", type=FOLDER, nargs=-1)
@click.option("--by-genre", is_flag=True, help="Precision, recall, F1 and support of each genre.")
@click.option("--split", default="test", show_default=True, help="training, validation or test.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@console.json_option
@console.common
def evaluate(runs: tuple[Path, ...], by_genre: bool, split: str, device: str, data_dir: Path, as_json: bool) -> int:
    """Score a run on its own test tracks; several runs, or the run of an ensemble, by their mean probabilities."""
    workspace = Workspace(data_dir)
    opened = [_run(workspace, path) for path in runs or [None]]
    from mgc.models.evaluation import evaluate as evaluation
    from mgc.models.evaluation import report

    measured = evaluation.evaluate(opened, split=split, device=device)
    if as_json:
        console.print_json(measured.as_dict())
    else:
        click.echo(report.text(measured, by_genre=by_genre))
    return 0


@main.command()
@click.option("--seed", type=int, default=0, show_default=True, help="Of music and training.")
@click.option("--epochs", type=int, default=8, show_default=True, help="Epochs at most.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes.  [default: one per processor]")
@console.common
def demo(data_dir: Path, seed: int, epochs: int, workers: int | None) -> int:
    """Compose a small dataset, then extract, train and evaluate on it.

    The music is synthetic, and some files are broken on purpose: an accuracy on it means that the pipeline works, and
    nothing beyond that.
    """
    from mgc.pipeline.demo.dataset import make_demo

    workspace = Workspace(data_dir)
    click.echo("mgc demo: synthetic music; its accuracy means that the pipeline works, and nothing beyond that")
    audio = make_demo(workspace.root / "demo", seed=seed, progress=console.bar("compose", "file"))
    here = ["--data-dir", str(data_dir)]
    some = ["--workers", str(workers)] if workers else []
    steps = (
        ["extract", "--dataset", str(audio), "--feature", "mel", "--slice", "4", "--overlap", "0.5", *some, *here],
        ["train", "--epochs", str(epochs), "--seed", str(seed), *here],
        ["evaluate", "--by-genre", *here],
    )
    for step in steps:
        click.echo(f"\n$ mgc {' '.join(step)}")
        _call(step)
    return 0


def _call(step: list[str]) -> None:
    name, *rest = step
    command = main.commands[name]
    with command.make_context(name, rest) as context:
        command.invoke(context)


def _run(workspace: Workspace, path: Path | None) -> Any:
    """The run named, or the latest one, said aloud; remembered as the latest."""
    from mgc.models.runs.run import Run

    if path is None:
        path = workspace.latest_run()
        click.echo(f"run: {path}", err=True)
    opened = Run.open(path)
    workspace.remember("run", opened.path)
    return opened


def _store(workspace: Workspace, path: Place | None) -> Any:
    """The store named, or the latest one, said aloud; remembered as the latest."""
    _spare_pandas()
    from mgc.pipeline.store.store import Store

    if path is None:
        path = workspace.latest_store()
        click.echo(f"store: {path}", err=True)
    store = Store.open(path)
    workspace.remember("store", store.path)
    return store


if __name__ == "__main__":
    main()
