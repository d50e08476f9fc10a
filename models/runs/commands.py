"""The command `mgc info`, and the choice of the run that a command works on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mgc.pipeline import console
from mgc.pipeline.commands import choose_store
from mgc.pipeline.console import PATH_OR_URL
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.models.runs.run import Run


def choose_run(workspace: Workspace, path: Path | None) -> Run:
    """Open the run at `path`, or the latest one (printed to stderr) if None; make it the workspace's latest run."""
    from mgc.models.runs.run import Run

    if path is None:
        path = workspace.latest_run()
        click.echo(f"run: {path}", err=True)
    run = Run.open(path)
    workspace.remember("run", run.path)
    return run


@click.command()
@click.argument("path", type=PATH_OR_URL, required=False, metavar="[STORE|RUN]")
@console.json_option
@console.common_options
def info(path: Place | None, data_dir: Path, as_json: bool) -> int:
    """Show what is in a store or a run."""
    workspace = Workspace(data_dir)
    if isinstance(path, Path) and (path / "config.json").exists():
        from mgc.models.runs import overview

        run = choose_run(workspace, path)
        if as_json:
            console.print_json(overview.describe_run(run))
        else:
            click.echo(overview.render_run(run))
        return 0
    from mgc.pipeline.store import summary

    store = choose_store(workspace, path)
    report = summary.summarise(store)
    if as_json:
        console.print_json(report)
    else:
        click.echo(summary.render(report, store))
    return 0
