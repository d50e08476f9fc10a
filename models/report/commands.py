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
@click.option("--ensemble", is_flag=True, help="Score the mean of the probabilities of the runs; write no files.")
@click.option("--by-genre", is_flag=True, help="Show precision, recall, F1 and support of each genre.")
@click.option(
    "--split",
    type=console.choice("training", "validation", "test"),
    default="test",
    show_default=True,
    help="Split to score.",
)
@click.option(
    "--join",
    type=console.choice("mean", "log-mean", "vote", "median"),
    default="mean",
    show_default=True,
    help="How the probabilities of a track come from its slices.",
)
@help_groups.group("Hardware")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="cpu, cuda, cuda:N, mps (Apple), or auto: CUDA if there is a GPU, else the CPU.",
)
@console.json_option
@console.common_options
def evaluate(
    runs: tuple[Path, ...],
    ensemble: bool,
    by_genre: bool,
    split: str,
    join: str,
    device: str,
    data_dir: Path,
    as_json: bool,
) -> int:
    """Score each run on its own test tracks, and write scores and predictions to its folder.

    Several runs are shown as a table; --ensemble scores their mean instead. The run of an ensemble is scored by the
    mean of its members. With --json, one run or --ensemble prints an object, several runs a list of such objects.
    """
    workspace = Workspace(data_dir)
    members = [choose_run(workspace, path) for path in runs or [None]]
    from mgc.models.evaluation import comparison, report
    from mgc.models.evaluation.evaluate import evaluate as evaluate_runs
    from mgc.models.evaluation.evaluate import result_paths
    from mgc.models.training.predict import require_scorable

    for run in members:  # before the first is scored, which may take long and is counted
        require_scorable(run, split)
    groups = [members] if ensemble else [[run] for run in members]
    evaluations = [evaluate_runs(group, split=split, join=join, device=device) for group in groups]
    files = [result_paths(group[0], split) if len(group) == 1 else [] for group in groups]
    if as_json:
        objects = [
            evaluation.as_dict() | {"files": [str(path) for path in paths]}
            for evaluation, paths in zip(evaluations, files, strict=True)
        ]
        console.print_json(objects[0] if len(objects) == 1 else objects)
    elif len(evaluations) > 1:
        console.echo_text(comparison.text(members, evaluations, files, by_genre=by_genre, width=console.width()))
    else:
        console.echo_text(report.text(evaluations[0], by_genre=by_genre, width=console.width()))
        console.echo("", *report.written_lines(files[0], console.width()))
    return 0
