"""The commands `mgc list` and `mgc remove`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mgc.pipeline import completion, console, help_groups
from mgc.pipeline.errors import MgcError, UsageError
from mgc.pipeline.workspace import Workspace


@help_groups.command("list")
@click.argument("kind", required=False, type=console.choice("datasets", "weights", "stores", "runs"))
@console.json_option
@console.common_options
def list_(kind: str | None, data_dir: Path, as_json: bool) -> int:
    """List the datasets, weights, stores and runs of the workspace with their sizes.

    Of a dataset, the number of audio files is shown; of a store its feature, and the number of tracks in use; of a run
    its model, and the accuracy by track where it was evaluated, marked if it is leaky.
    """
    from mgc.models.housekeeping import inventory, table

    items = inventory.take(Workspace(data_dir))
    if kind is not None:
        items = [item for item in items if table.HEADINGS[item.kind] in (kind, "remains")]
    if as_json:
        console.print_json({"workspace": str(data_dir), "items": [item.as_dict() for item in items]})
    else:
        console.echo_text(table.text(items, data_dir, console.width()))
    return 0


@help_groups.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completion.names_in_workspace)
@help_groups.group("Removal")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option("--yes", is_flag=True, help="Remove without a question, as it must be where nobody can answer.")
@console.json_option
@console.common_options
def remove(names: tuple[str, ...], data_dir: Path, as_json: bool, dry_run: bool, yes: bool) -> int:
    """Remove datasets, weights, stores and runs from the workspace, with all their files.

    NAME is a path or the last part of one, as `mgc list` shows it; `demo` is the dataset of `mgc demo`. What goes is
    named first, with its size and with what needs it. Links, and what lies outside of the workspace, are left alone.
    """
    from mgc.models.housekeeping import inventory, removal, table

    workspace = Workspace(data_dir)
    items = inventory.take(workspace)
    chosen = removal.choose(names, items, workspace)
    removal.require_idle(chosen)
    verb = "would remove" if dry_run else "remove"
    needed = {item.name: removal.consequences(item, items, chosen) for item in chosen}
    lines = [line for item in chosen for line in table.removal_lines(item, needed[item.name], verb)]
    if not as_json:
        for line in lines:
            console.result(line)
    if not dry_run:
        if not yes:
            _confirm(lines if as_json else [])
        for item in chosen:
            removal.remove(item, workspace)
    if as_json:
        rows = [item.as_dict() | {"needed_by": needed[item.name]} for item in chosen]
        console.print_json({"dry_run": dry_run, "removed": [] if dry_run else rows, "items": rows})
    return 0


def _confirm(lines: list[str]) -> None:
    """Ask on the terminal.

    Args:
        lines: what goes, if it is not on the screen yet.

    Raises:
        UsageError: there is no terminal.
        MgcError: the answer is no.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "nothing was removed: nobody can be asked here", "add --yes, or --dry-run to see what would go"
        )
    for line in lines:
        console.warn(line)
    if not click.confirm("Remove this?", err=True):
        raise MgcError("nothing was removed")
