"""`mgc slice`, `mgc split` and `mgc verify`; options and choices of datasets, stores and slicings for all commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mgc.pipeline import console
from mgc.pipeline.console import FOLDER, PLACE
from mgc.pipeline.errors import MgcError, SpecError
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.pipeline.datasets import Dataset
    from mgc.pipeline.store.slicing import Slicing
    from mgc.pipeline.store.store import Store


def dataset_options(command: Callable) -> Callable:
    """Add the options that say where the music and its labels are."""
    return console.with_options(
        command,
        click.option("--dataset", type=PLACE, help="Audio folder, or a CSV/Parquet list with `path` and `genre`."),
        click.option("--metadata", type=PLACE, help="FMA: tracks.csv or its folder."),
        click.option("--format", "layout", default="auto", help="auto, fma, gtzan, folder or list."),
        click.option("--subset", help="FMA: small, medium, large or full."),
        click.option("--genre-column", help="FMA and lists: the column that holds the genre."),
        click.option("--audio-root", type=PLACE, help="Lists: the folder that paths are relative to."),
    )


def slicing_options(command: Callable) -> Callable:
    """Add the options that say how tracks are cut."""
    return console.with_options(
        command,
        click.option("--slice", "seconds", type=float, help="Seconds of a slice.  [default: 4]"),
        click.option("--overlap", type=float, help="Share of a slice that the next one repeats.  [default: 0.5]"),
        click.option("--frames", type=int, help="Frames of a slice, instead of seconds."),
        click.option("--whole", is_flag=True, help="One slice per track: all of it."),
        click.option("--offset", type=float, help="Seconds left out at the start of each track."),
        click.option("--max-slices", type=int, help="Slices per track at most."),
        click.option("--place", help="Which slices are kept: all, start, centre or random."),
    )


def parse_slicing(options: dict[str, Any], seed: int = 0) -> Slicing | None:
    """The `Slicing` that the slicing options describe; None if none of them is given."""
    from mgc.pipeline.store.slicing import Slicing

    names = ("frames", "overlap", "offset", "max_slices", "place")
    given = {name: options[name] for name in names if options[name] is not None}
    if options["whole"]:
        given["whole"] = True
    if options["seconds"] is not None:
        given["seconds"] = options["seconds"]
    elif "frames" in given or "whole" in given:
        given["seconds"] = None
    return Slicing(**given, seed=seed) if given else None


def choose_dataset(workspace: Workspace, options: dict[str, Any]) -> Dataset:
    """The dataset named by the dataset options, else the only one in the workspace (printed on stderr)."""
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


def choose_store(workspace: Workspace, path: Place | None) -> Store:
    """The store at `path`, else the latest one (printed on stderr). It becomes the workspace's latest store."""
    from mgc.pipeline.store.store import Store

    if path is None:
        path = workspace.latest_store()
        click.echo(f"store: {path}", err=True)
    store = Store.open(path)
    workspace.remember("store", store.path)
    return store


@click.command("slice")
@click.argument("store", type=PLACE, required=False)
@slicing_options
@click.option("--seed", type=int, default=0, show_default=True, help="Of random places.")
@console.json_option
@console.common
def slice_(store: Place | None, data_dir: Path, as_json: bool, seed: int, **options: Any) -> int:
    """Cut the tracks of a store anew, without decoding."""
    from mgc.pipeline.extraction.extract import reslice
    from mgc.pipeline.store import summary

    slicing = parse_slicing(options, seed)
    if slicing is None:
        raise SpecError("no slicing given", "add --slice SECONDS, --frames N or --whole")
    cut = reslice(choose_store(Workspace(data_dir), store), slicing)
    report = summary.summarise(cut)
    if as_json:
        console.print_json(report)
    else:
        click.echo(summary.render(report, cut))
    return 0


@click.command()
@click.argument("store", type=PLACE, required=False)
@click.option("--splits", type=FOLDER, help="CSV/Parquet with track_id (or path) and split.")
@click.option("--redo", is_flag=True, help="Draw the splits anew.")
@click.option("--seed", type=int, help="Of the new splits.  [default: the store's]")
@dataset_options
@console.json_option
@console.common
def split(store: Place | None, data_dir: Path, as_json: bool, **options: Any) -> int:
    """Show the splits of a store, or reassign those of all stores of its dataset, without decoding."""
    from mgc.pipeline.store import summary

    workspace = Workspace(data_dir)
    opened = choose_store(workspace, store)
    if options["redo"] or options["splits"]:
        _reassign(workspace, opened, options, console.notes(as_json))
        opened = type(opened).open(opened.path)
    report = summary.summarise(opened)
    if as_json:
        console.print_json(report)
    else:
        click.echo(summary.render_splits(report))
    return 0


def _reassign(workspace: Workspace, store: Store, options: dict[str, Any], echo: Callable[[str], None]) -> None:
    """Give the tracks of a store, and of the other stores of its dataset, new splits."""
    from mgc.pipeline.datasets import reopen
    from mgc.pipeline.datasets.splits import read_splits
    from mgc.pipeline.extraction.resplit import resplit

    if options["dataset"] is None:  # the dataset as the store describes it, with the options given here
        names = ("metadata", "subset", "genre_column", "audio_root")
        given = {name: str(options[name]) for name in names if options[name] is not None}
        head = store.dataset | {"options": store.dataset.get("options", {}) | given}
        dataset = reopen(head | ({"format": options["layout"]} if options["layout"] != "auto" else {}))
    else:
        dataset = choose_dataset(workspace, options)
    override = read_splits(options["splits"]) if options["splits"] else {}
    seed = store.dataset["seed"] if options["seed"] is None else options["seed"]
    moved, notes = resplit(store, dataset, seed, override, keep=not options["redo"])
    for note in notes:
        echo(note)
    echo(f"{moved} tracks changed their split; runs trained before keep their own track lists")


@click.command()
@click.argument("store", type=PLACE, required=False)
@console.json_option
@console.common
def verify(store: Place | None, data_dir: Path, as_json: bool) -> int:
    """Check every byte of a store against its checksums."""
    from mgc.pipeline.store.verify import verify as check

    opened = choose_store(Workspace(data_dir), store)
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
