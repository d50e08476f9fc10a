"""The command `mgc compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mgc.models.runs.commands import choose_run
from mgc.pipeline import completion, console, help_groups
from mgc.pipeline.console import LOCAL_PATH
from mgc.pipeline.errors import SpecError
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.models.compare.compare import Comparison
    from mgc.models.compare.evaluated import TrackSet


@help_groups.command()
@click.argument("runs", type=LOCAL_PATH, nargs=-1, shell_complete=completion.runs)
@help_groups.group("Tracks")
@click.option(
    "--split",
    type=console.choice("training", "validation", "test"),
    help="Split to compare on; the folds of a system are joined on validation.  [default: test; with --on all of it]",
)
@click.option("--on", metavar="NAME", help="Compare on another dataset, as scored by `mgc evaluate --store`.")
@click.option("--common", is_flag=True, help="Compare on the tracks that all runs have, if they have different ones.")
@help_groups.group("Output")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option("--latex", is_flag=True, help="Print a LaTeX table (booktabs).")
@click.option("--csv", is_flag=True, help="Print CSV.")
@console.json_option
@console.common_options
def compare(
    runs: tuple[Path, ...],
    split: str | None,
    on: str | None,
    common: bool,
    data_dir: Path,
    as_json: bool,
    **formats: bool,
) -> int:
    """Compare evaluated runs on the same tracks: a leaderboard, and which of its systems differ.

    Runs that differ only in seed or fold are one system. Without runs: all evaluated runs of the workspace that have
    the tracks of the latest one.
    """
    chosen = [name for name, is_chosen in (formats | {"json": as_json}).items() if is_chosen]
    if len(chosen) > 1:
        raise SpecError(f"--{' and --'.join(chosen)}: one format at a time", "leave out the others")
    from mgc.models.compare import formats as writers
    from mgc.models.compare import render
    from mgc.models.compare.evaluated import TrackSet

    scored = TrackSet(split or ("all" if on else "test"), on)
    comparison = _comparison(Workspace(data_dir), runs, scored, common=common)
    if as_json:
        console.print_json(comparison.as_dict())
    elif chosen:
        write = {"markdown": writers.markdown, "latex": writers.latex, "csv": writers.csv_text}[chosen[0]]
        console.echo_text(write(comparison))
    else:
        console.echo_text(render.text(comparison, console.width()))
    return 0


def _comparison(workspace: Workspace, runs: tuple[Path, ...], scored: TrackSet, *, common: bool) -> Comparison:
    from mgc.models.compare import compare as comparing
    from mgc.models.compare import workspace_runs

    if runs:
        return comparing.compare([choose_run(workspace, path) for path in runs], scored, common=common)
    found = workspace_runs.find(workspace, scored, common=common)
    for line in found.lines:
        console.echo(line, err=True)
    return comparing.compare_evaluated(found.runs, scored, common=common)
