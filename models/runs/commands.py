"""The commands `mgc info` and `mgc verify`, and the choice of the run that a command works on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import click

from mgc.pipeline import completion, console, help_groups
from mgc.pipeline.commands import choose_store, print_store_check, print_store_summary
from mgc.pipeline.console import PATH_OR_URL
from mgc.pipeline.errors import MgcError
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.models.runs.run import Run


def choose_run(workspace: Workspace, path: Path | None, *, resuming: bool = False) -> Run:
    """Open the run at `path`, or the latest one (printed to stderr) if None.

    Args:
        workspace: the workspace.
        path: folder of the run; None for the latest one.
        resuming: prefer the run that a command began last and did not finish.
    """
    from mgc.models.runs.run import Run

    if path is None:
        path = (workspace.interrupted_run() if resuming else None) or workspace.latest_run()
        console.echo(f"run: {path}", err=True)
    with workspace.suggesting(path, "run"):
        return Run.open(path)


@help_groups.command()
@click.argument(
    "path", type=PATH_OR_URL, required=False, metavar="[STORE|RUN]", shell_complete=completion.stores_and_runs
)
@console.json_option
@console.common_options
def info(path: Place | None, data_dir: Path, as_json: bool) -> int:
    """Show what is in a store or a run."""
    workspace = Workspace(data_dir)
    if is_run(path):
        from mgc.models.runs import overview

        run = choose_run(workspace, path)
        if as_json:
            console.print_json(overview.describe_run(run))
        else:
            console.echo_text(overview.render_run(run, console.width()))
        return 0
    print_store_summary(choose_store(workspace, path, ("store", "run")), as_json)
    return 0


@help_groups.command()
@click.argument(
    "path", type=PATH_OR_URL, required=False, metavar="[STORE|RUN]", shell_complete=completion.stores_and_runs
)
@console.json_option
@console.common_options
def verify(path: Place | None, data_dir: Path, as_json: bool) -> int:
    """Check every byte of a store or a run against its checksums."""
    if is_run(path):
        _verify_run(path, as_json)
    else:
        print_store_check(choose_store(Workspace(data_dir), path, ("store", "run")), as_json)
    return 0


def is_run(path: Place | None) -> TypeGuard[Path]:
    """Return whether a folder holds a run, be it a damaged one."""
    return isinstance(path, Path) and any((path / name).exists() for name in ("config.json", "sealed.json"))


def _verify_run(path: Path, as_json: bool) -> None:
    """Check every byte of a run against its seal, and print what was found.

    Raises:
        MgcError: there are problems.
    """
    from mgc.models.runs import seal
    from mgc.models.runs.run import Run

    problems = list(seal.problems(path))
    is_sealed = (path / seal.NAME).exists()
    if not problems and Run.open(path).config.get("sealed", False) > is_sealed:
        problems = [(path / seal.NAME, "missing")]
    if as_json:
        rows = [{"file": str(file), "problem": description} for file, description in problems]
        console.print_json({"run": str(path), "ok": not problems, "sealed": is_sealed, "problems": rows})
    else:
        for file, description in problems:
            console.echo(f"{file}: {description}")
        if not problems and is_sealed:
            console.echo(f"{path}: every byte is as it was written")
        elif not problems:
            console.echo(f"{path}: has no seal, as mgc 0.1.0 wrote none: its files cannot be checked")
    if len(problems) == 1:
        raise seal.damage_error(*problems[0])
    if problems:
        names = ", ".join(file.relative_to(path).as_posix() for file, _ in problems)
        raise MgcError(f"{path}: {len(problems)} files are damaged: {names}", "restore them from a copy")
