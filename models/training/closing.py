"""The end of `mgc train`: what it prints of the runs that it has trained, and their evaluation with `--evaluate`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import click

from mgc.models.runs.run import Run
from mgc.pipeline import console
from mgc.pipeline.workspace import Workspace


@dataclass(frozen=True)
class Trained:
    """Finished runs of one command.

    Attributes:
        runs: the runs, in the order of training.
        label: what repeated runs differ in, `seed` or `fold`; None for a single run.
        is_new: whether this command has finished them.
    """

    runs: Sequence[Run]
    label: str | None = None
    is_new: bool = True


def announce(workspace: Workspace, trained: Trained, *, evaluated: bool = False) -> None:
    """Make the last of finished runs the latest one, draw learning curves, and print where the runs are.

    Args:
        workspace: workspace of the runs.
        trained: the runs.
        evaluated: whether the runs are evaluated next; otherwise the command that does so is printed.
    """
    from mgc.models.training import repeats

    workspace.remember("run", trained.runs[-1].path)
    for run in trained.runs:
        if run.history:
            from mgc.models.training import curves

            console.echo(f"curves: {curves.draw(run)}")
        hint = "" if trained.label is not None or evaluated else "; `mgc evaluate --by-genre` tests it"
        console.result(f"run: {run.path}{hint}")
    if trained.label is not None:
        for line in repeats.spread(trained.runs, trained.label):
            console.result(line)
        if not evaluated:
            paths = " ".join(shlex.quote(str(run.path)) for run in trained.runs)
            console.echo(f"to test {'them' if len(trained.runs) > 1 else 'it'}:", f"mgc evaluate {paths}")


def evaluate(context: click.Context, trained: Trained, device: str) -> None:
    """Evaluate each run on its test split by `mgc evaluate`, and print the spread of the accuracies of repeated runs.

    Args:
        context: context of the running command.
        trained: the runs.
        device: value of `--device`.
    """
    from mgc.models.training import repeats

    words = ["evaluate", *(str(run.path) for run in trained.runs)]
    console.show_command(shlex.join(words))
    console.run_command(context, [*words, "--device", device])
    if trained.label is not None:
        console.echo()
        for line in repeats.spread_of_tests(trained.runs, trained.label):
            console.result(line)
