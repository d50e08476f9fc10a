"""The command `mgc evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from mgc.models.runs.commands import choose_run
from mgc.pipeline import console, help_groups
from mgc.pipeline.console import LOCAL_PATH
from mgc.pipeline.workspace import Workspace


@help_groups.command()
@click.argument("runs", type=LOCAL_PATH, nargs=-1)
@help_groups.group("Scores")
@click.option("--by-genre", is_flag=True, help="Show precision, recall, F1 and support of each genre.")
@click.option(
    "--split",
    type=console.choice("training", "validation", "test"),
    default="test",
    show_default=True,
    help="Split to score.",
)
@help_groups.group("Hardware")
@click.option("--device", default="auto", show_default=True, help="Device: auto, cpu, cuda or cuda:N.")
@console.json_option
@console.common_options
def evaluate(runs: tuple[Path, ...], by_genre: bool, split: str, device: str, data_dir: Path, as_json: bool) -> int:
    """Score a run on its own test tracks; several runs, or an ensemble, by their mean probabilities."""
    workspace = Workspace(data_dir)
    members = [choose_run(workspace, path) for path in runs or [None]]
    from mgc.models.evaluation import report
    from mgc.models.evaluation.evaluate import evaluate as evaluate_runs

    evaluation = evaluate_runs(members, split=split, device=device)
    if as_json:
        console.print_json(evaluation.as_dict())
    else:
        click.echo(report.text(evaluation, by_genre=by_genre))
    return 0
