"""Commands `mgc slice` and `mgc split`, the check of stores, and the options of dataset, store and slicing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mgc.pipeline import completion, console, help_groups, option_types
from mgc.pipeline.console import LOCAL_PATH, PATH_OR_URL
from mgc.pipeline.errors import MgcError, SpecError, StoreError
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.pipeline.datasets import Dataset
    from mgc.pipeline.datasets.labels import Recorded
    from mgc.pipeline.store.cuts import Cut
    from mgc.pipeline.store.slicing import Slicing
    from mgc.pipeline.store.store import Store


#: Decorators of the commands that decode files.
scheduler_option = click.option("--scheduler", help="Address of a running Dask scheduler, tcp://host:8786.")
timeout_option = click.option(
    "--timeout",
    type=option_types.SECONDS,
    default=300,
    show_default=True,
    help="Seconds after which a file is given up.",
)


def dataset_options(command: Callable) -> Callable:
    """Add the options that name a dataset: its audio files and their labels."""
    return console.with_options(
        command,
        help_groups.group("Dataset"),
        click.option(
            "--dataset", type=PATH_OR_URL, help="Audio folder, or a CSV/Parquet list with `path` and `genre`."
        ),
        click.option("--metadata", type=PATH_OR_URL, help="FMA: tracks.csv or its folder."),
        click.option("--format", "layout", default="auto", help="auto, fma, gtzan, folder, tags or list."),
        click.option(
            "--subset", type=console.choice("small", "medium", "large", "full"), help="FMA: part of the dataset."
        ),
        click.option("--genre-column", help="FMA and lists: the column that holds the genre."),
        click.option("--audio-root", type=PATH_OR_URL, help="Lists: the folder that paths are relative to."),
    )


def genre_options(command: Callable) -> Callable:
    """Add the options that say how tracks get their genres; `choose_dataset` reads their values."""
    return console.with_options(
        command,
        help_groups.group("Dataset"),
        click.option(
            "--genre-from",
            type=console.choice("auto", "folder", "tag", "column"),
            help="Where the genres are.  [default: auto, what the layout has]",
        ),
        click.option("--genre-map", type=LOCAL_PATH, help="CSV/Parquet with `genre` and `as`; no `as` leaves it out."),
        click.option("--min-tracks", type=click.IntRange(min=1), help="Leave out genres with fewer tracks."),
    )


def slicing_options(command: Callable) -> Callable:
    """Add the options that describe how tracks are cut into slices."""
    return console.with_options(
        command,
        help_groups.group("Slices"),
        click.option(
            "--slice", "seconds", type=option_types.SECONDS, help="Length of a slice in seconds.  [default: 4]"
        ),
        click.option(
            "--overlap",
            type=option_types.Real("in [0, 1): 0.5 repeats half of each slice", below=1),
            help="Overlap of consecutive slices, a fraction in [0, 1).  [default: 0.5]",
        ),
        click.option("--frames", type=option_types.COUNT, help="Length of a slice in frames, instead of --slice."),
        click.option("--whole", is_flag=True, help="One slice per track, the whole track."),
        click.option(
            "--offset",
            type=option_types.Real("a number of seconds, 0 or more"),
            help="Seconds to skip at the start of each track.",
        ),
        click.option("--max-slices", type=option_types.COUNT, help="Largest number of slices per track."),
        click.option(
            "--place",
            type=console.choice("all", "start", "centre", "random"),
            help="Position of the slices in a track.",
        ),
    )


def splits_option(command: Callable) -> Callable:
    """Add `--splits`; `datasets.clips.choose_splits` reads its value."""
    text = "CSV/Parquet with track_id (or path) and split, or a published list: gtzan-filtered. Overrides all others."
    return click.option("--splits", type=LOCAL_PATH, metavar="FILE|NAME", help=text)(command)


def parse_slicing(options: dict[str, Any], seed: int = 0) -> Slicing | None:
    """Build a `Slicing` from the values of `slicing_options`.

    Args:
        options: option values by parameter name; None for an option that was not used.
        seed: seed of random slice positions.

    Returns:
        The slicing; None if no slicing option was used.
    """
    from mgc.pipeline.store.slicing import Slicing

    names = ("frames", "overlap", "offset", "max_slices", "place")
    settings = {name: options[name] for name in names if options[name] is not None}
    if options["whole"]:
        settings["whole"] = True
    if options["seconds"] is not None:
        settings["seconds"] = options["seconds"]
    elif "frames" in settings or "whole" in settings:
        settings["seconds"] = None
    return Slicing(**settings, seed=seed) if settings else None


def choose_dataset(
    workspace: Workspace,
    options: dict[str, Any],
    recorded: Callable[[str, Place], Recorded | None] = lambda name, root: None,
) -> Dataset:
    """Open the dataset that the dataset options name, or else the only one in the workspace.

    In the second case its path is printed on stderr.

    Args:
        workspace: the workspace.
        options: values of `dataset_options` by parameter name, and of `genre_options` and `out` if a command has them.
        recorded: see `open_dataset`.
    """
    from mgc.pipeline.datasets import labels, open_dataset

    source = options["dataset"]
    if source is None:
        source = workspace.only_dataset()
        console.echo(f"dataset: {source}", err=True)
    out = options.get("out")
    return open_dataset(
        source,
        format=options["layout"],
        metadata=options["metadata"],
        subset=options["subset"],
        genre_column=options["genre_column"],
        audio_root=options["audio_root"],
        cache_folder=None if options.get("dry_run") else out if isinstance(out, Path) else workspace.root / "features",
        genres=labels.Request(
            options.get("genre_from"),
            labels.read_map(options["genre_map"]) if options.get("genre_map") else None,
            options.get("min_tracks"),
        ),
        recorded=recorded,
    )


def choose_store(workspace: Workspace, path: Place | None, kinds: Sequence[str] = ("store",)) -> Store:
    """Open the store at `path`, or else the workspace's latest store, whose path is then printed on stderr.

    Args:
        workspace: the workspace.
        path: folder or URL of the store; None for the latest one.
        kinds: what the command takes, `store` or also `run`; an error names what the user may have meant.
    """
    from mgc.pipeline.store.store import Store

    if path is None:
        path = workspace.latest_store()
        console.echo(f"store: {path}", err=True)
    with workspace.suggesting(path, *kinds):
        return Store.open(path)


def print_store_summary(store: Store, as_json: bool) -> None:
    """Print the summary of a store, as text or JSON."""
    from mgc.pipeline.store import summary

    report = summary.summarise(store)
    if as_json:
        console.print_json(report)
    else:
        console.echo_text(summary.render(report, store, console.width()))


@help_groups.command("slice")
@click.argument("store", type=PATH_OR_URL, required=False, shell_complete=completion.stores)
@slicing_options
@help_groups.group("Slices")
@click.option("--seed", type=option_types.SEED, default=0, show_default=True, help="Seed of random slice positions.")
@help_groups.group("Cuts")
@click.option("--name", help="Add the cut under this name, and leave the default as it is.")
@click.option("--default", help="Make the cut of this name the default.")
@click.option("--remove", help="Remove the cut of this name.")
@console.json_option
@console.common_options
def slice_(store: Place | None, data_dir: Path, as_json: bool, seed: int, **options: Any) -> int:
    """Cut the tracks of a store into slices again, without decoding.

    The new cut becomes the default, the former stays beside it: `mgc train --cut NAME` takes it, `mgc info` lists all.
    """
    from mgc.pipeline.store.recut import change_cuts, describe_changes

    slicing = parse_slicing(options, seed)
    _require_one_change(slicing, options)
    workspace = Workspace(data_dir)
    feature_store = choose_store(workspace, store)
    fitted = slicing.fitted(feature_store.spec) if slicing is not None else None
    resliced, before = change_cuts(feature_store, lambda cuts: _changed_cuts(feature_store, cuts, fitted, options))
    for line in describe_changes(resliced, before):
        console.note_printer(as_json)(line)
    workspace.remember("store", resliced.path)
    print_store_summary(resliced, as_json)
    return 0


def _require_one_change(slicing: Slicing | None, options: dict[str, Any]) -> None:
    """Raise `SpecError` unless the options of `mgc slice` ask for one change of the cuts."""
    changes = [name for name in ("default", "remove") if options[name] is not None]
    if slicing is None and not changes:
        raise SpecError("no slicing given", "add --slice SECONDS, --frames N or --whole; `mgc info` lists the cuts")
    if len(changes) + (slicing is not None) > 1 or (changes and options["name"] is not None):
        raise SpecError(f"--{changes[0]} names a cut that is there", "leave the other options out")


def _changed_cuts(
    store: Store, cuts: tuple[Cut, ...], slicing: Slicing | None, options: dict[str, Any]
) -> tuple[Cut, ...]:
    """Return the cuts that a store has after `mgc slice`.

    Args:
        store: the store.
        cuts: the cuts that it has.
        slicing: slicing of a new cut, fitted to the store; None for --default and --remove.
        options: `name`, `default` and `remove`.
    """
    from mgc.pipeline.store import cuts as change

    if slicing is not None and options["name"] is None:
        return change.with_default(cuts, slicing)
    if not cuts or not cuts[0].default:
        raise StoreError("its default cut is not known", store.republish_remedy)
    if slicing is not None:
        return change.with_cut(cuts, slicing, name=options["name"])
    if options["default"] is not None:
        return change.with_named_default(cuts, options["default"])
    return change.without_cut(cuts, options["remove"])


@help_groups.command()
@click.argument("store", type=PATH_OR_URL, required=False, shell_complete=completion.stores)
@help_groups.group("Splits")
@splits_option
@click.option("--redo", is_flag=True, help="Draw new splits for all tracks.")
@click.option("--seed", type=option_types.SEED, help="Seed of the new splits.  [default: the store's]")
@dataset_options
@console.json_option
@console.common_options
def split(store: Place | None, data_dir: Path, as_json: bool, **options: Any) -> int:
    """Show the splits of a store, or reassign those of all stores of its dataset, without decoding."""
    from mgc.pipeline.store import summary

    workspace = Workspace(data_dir)
    feature_store = choose_store(workspace, store)
    if options["redo"] or options["splits"]:
        _reassign(workspace, feature_store, options, console.note_printer(as_json))
        feature_store = type(feature_store).open(feature_store.path)
        workspace.remember("store", feature_store.path)
    report = summary.summarise(feature_store)
    if as_json:
        console.print_json(report)
    else:
        console.echo_text(summary.render_splits(report, console.width()))
    return 0


def _reassign(workspace: Workspace, store: Store, options: dict[str, Any], echo: Callable[[str], None]) -> None:
    """Assign new splits to the tracks of a store and of the other stores of its dataset."""
    from mgc.pipeline.datasets import reopen
    from mgc.pipeline.datasets.clips import choose_splits
    from mgc.pipeline.datasets.labels import Labelling, Recorded
    from mgc.pipeline.extraction.resplit import resplit

    if options["dataset"] is None:  # reopen the store's dataset, with these options replaced
        names = ("metadata", "subset", "genre_column", "audio_root")
        replaced = {name: str(options[name]) for name in names if options[name] is not None}
        description = store.dataset | {"options": store.dataset.get("options", {}) | replaced}
        description |= {"format": options["layout"]} if options["layout"] != "auto" else {}
        dataset = reopen(description, genres=store.genres, cache_folder=workspace.root / "features")
    else:
        record = Recorded(Labelling.from_dict(store.dataset.get("labels", {})), store.genres)
        dataset = choose_dataset(workspace, options, lambda name, root: record)
    override, unlisted = choose_splits(options["splits"], dataset.tracks, dataset.source)
    seed = store.dataset["seed"] if options["seed"] is None else options["seed"]
    moved, notes = resplit(store, dataset, seed, override, unlisted, keep=not options["redo"])
    for note in notes:
        echo(note)
    echo(f"{moved} tracks changed their split; runs trained before keep their own track lists")


def print_store_check(feature_store: Store, as_json: bool) -> None:
    """Check every byte of a store against its checksums, and print what was found.

    Raises:
        MgcError: there are problems.
    """
    from mgc.pipeline.store.verify import verify as check

    problems = check(feature_store, console.progress_bar("verify", "shard"))
    if as_json:
        rows = [{"file": str(p.path), "shard": p.shard, "problem": p.description} for p in problems]
        console.print_json({"store": str(feature_store.path), "ok": not problems, "problems": rows})
    else:
        for problem in problems:
            console.echo(f"{problem.path}: {problem.description}")
        if not problems:
            console.echo(f"{feature_store.path}: every byte is as it was written")
    if problems:
        raise MgcError(f"{feature_store.path}: {len(problems)} problems", feature_store.repair_remedy)
