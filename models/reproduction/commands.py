"""The command `mgc reproduce`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mgc.models.parallel.options import device_option
from mgc.models.training.command_options import check_seeds
from mgc.pipeline import completion, console, help_groups, option_types
from mgc.pipeline.commands import choose_dataset, dataset_options, genre_options, scheduler_option
from mgc.pipeline.errors import MgcError, UsageError
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.models.reproduction.jobs import Job
    from mgc.models.reproduction.results import Result
    from mgc.pipeline.datasets import Dataset
    from mgc.pipeline.datasets.labels import Recorded
    from mgc.pipeline.storage.remote import Place


@help_groups.command()
@click.argument("name", required=False, metavar="[ID|STUDY|all]", shell_complete=completion.models)
@dataset_options
@genre_options
@help_groups.group("Reproduction")
@click.option(
    "--protocol",
    type=console.choice("published", "leak-free", "both"),
    default="both",
    show_default=True,
    help="Deal slices at random, as some studies did, which leaks; or keep the slices of a track together.",
)
@click.option("--seeds", callback=check_seeds, help="A run for each seed, such as 0,1,2.  [default: 0]")
@click.option("--epochs", type=option_types.COUNT, help="Maximum number of epochs.  [default: the recipe's]")
@click.option("--limit-tracks", type=option_types.COUNT, help="Maximum number of training tracks per genre.")
@click.option("--redo", is_flag=True, help="Repeat finished results, and begin interrupted runs anew.")
@help_groups.group("Table")
@click.option("--table", is_flag=True, help="Run nothing; show the newest results of this workspace.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the table as Markdown.")
@help_groups.group("Hardware")
@device_option
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes.  [default: one per processor]")
@scheduler_option
@console.json_option
@console.common_options
def reproduce(name: str | None, data_dir: Path, as_json: bool, table: bool, as_markdown: bool, **options: Any) -> int:
    """Extract, train and evaluate by recipe, and show the published scores beside the measured ones.

    Results are appended to results.jsonl in the workspace. The same command continues after an interruption, and does
    not repeat what is finished. What differs from the study must be asked for, and is listed.
    """
    workspace = Workspace(data_dir)
    if as_markdown and not table:
        raise UsageError("--markdown prints the table", "add --table")
    if table:
        _print_table(workspace, name, as_json=as_json, as_markdown=as_markdown)
        return 0
    if name is None:
        raise UsageError("nothing to reproduce", "name a system (see `mgc models`), a study, or all; or give --table")
    from mgc.models.reproduction import jobs
    from mgc.models.training import repeats

    seeds = repeats.parse(options["seeds"] or "0")
    planned = jobs.plan(name, options["protocol"], seeds, jobs.Limits(options["epochs"], options["limit_tracks"]))
    outcome = _Outcome(len(planned), as_json)
    for source, of_dataset in _by_dataset(workspace, planned, options["dataset"]):
        with outcome.collecting(of_dataset):
            _reproduce(workspace, of_dataset, options | {"dataset": source}, options["dataset"] is not None, outcome)
    outcome.finish()
    return 0


class _Outcome:
    """Results and errors of the jobs of a call.

    Args:
        n_jobs: number of jobs of the call. An error of all of them is raised, others are collected.
        as_json: print the results as JSON at the end, and other lines on stderr.
    """

    def __init__(self, n_jobs: int, as_json: bool) -> None:
        self._n_jobs, self._as_json = n_jobs, as_json
        self._results: list[Result] = []
        self._failed: dict[str, MgcError] = {}
        self.echo = console.note_printer(as_json)
        self.n_begun = 0

    def begin(self, job: Job) -> None:
        """Print which job begins."""
        self.n_begun += 1
        self.echo(f"{self.n_begun} of {self._n_jobs}: {job.title}")

    def add(self, result: Result, *, is_new: bool) -> None:
        """Add a result and print it."""
        from mgc.models.reproduction import report

        self._results.append(result)
        if not is_new:
            self.echo(f"finished on {result['created']}; --redo repeats it")
        if not self._as_json:
            console.echo_text(report.text(result, console.width()) + "\n")

    @contextlib.contextmanager
    def collecting(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Record an error for jobs, unless there is one job in all, and go on."""
        try:
            yield
        except MgcError as error:
            if not self.fail(jobs, error):
                raise

    def fail(self, jobs: Sequence[Job], error: MgcError) -> bool:
        """Record an error; return whether the call goes on."""
        if self._n_jobs == len(jobs):
            return False
        for job in jobs:
            self._failed.setdefault(job.title, error)
        console.warn(f"not reproduced: {error}")
        return True

    def finish(self) -> None:
        """Print the results as JSON if asked for.

        Raises:
            MgcError: jobs have failed.
        """
        if self._as_json:
            console.print_json(self._results)
        if self._failed:
            problem = f"{len(self._failed)} of {self._n_jobs} are not reproduced: {'; '.join(self._failed)}"
            raise MgcError(problem, "see the reasons above; the same command tries them again")


def _by_dataset(
    workspace: Workspace, jobs: Sequence[Job], named: Place | None
) -> Iterator[tuple[Place | None, list[Job]]]:
    """Yield the dataset of jobs and the jobs: the one that the user named, else the study's in the workspace.

    None stands for the only dataset in the workspace.
    """
    if named is not None:
        yield named, list(jobs)
        return
    for name in dict.fromkeys(job.system.recipe.dataset.name for job in jobs):
        folder = workspace.root / name
        yield folder if folder.is_dir() else None, [job for job in jobs if job.system.recipe.dataset.name == name]


def _reproduce(
    workspace: Workspace, jobs: Sequence[Job], options: dict[str, Any], is_named: bool, outcome: _Outcome
) -> None:
    """Extract what the jobs of one dataset need, and run them one after the other."""
    from mgc.models.reproduction import differences, stores
    from mgc.models.reproduction.reproduce import Reproducer
    from mgc.models.training import repeats
    from mgc.pipeline.extraction.options import Options

    dataset = _open_dataset(workspace, options)
    differences.require_dataset(jobs, dataset, is_named=is_named)
    for note in dataset.notes:
        outcome.echo(note)
    extracted = stores.extract_for(
        [system for system in dict.fromkeys(job.system for job in jobs) if not system.members],
        dataset,
        workspace,
        Options(workers=options["workers"], scheduler=options["scheduler"]),
        limit=options["limit_tracks"],
        seeds=repeats.parse(options["seeds"] or "0"),
        echo=outcome.echo,
        progress=console.progress_bar("extract", "track"),
    )
    reproducer = Reproducer(workspace, tuple(extracted), options["device"], options["redo"], outcome.echo)
    for job in jobs:
        outcome.begin(job)
        with outcome.collecting([job]):
            result, is_new = reproducer.reproduce(job)
            outcome.add(result, is_new=is_new)


def _open_dataset(workspace: Workspace, options: dict[str, Any]) -> Dataset:
    """Open the dataset; its stores know where its genres are."""
    from mgc.pipeline.extraction.opening import recorded_labels

    def recorded(name: str, root: Place) -> Recorded | None:
        return recorded_labels(workspace.features(name), root)

    return choose_dataset(workspace, options, recorded)


def _print_table(workspace: Workspace, name: str | None, *, as_json: bool, as_markdown: bool) -> None:
    """Print the newest results of the workspace, or those of a system or study.

    Raises:
        MgcError: there are none.
    """
    from mgc.models.registry import overview
    from mgc.models.reproduction import results, table

    found = results.read(workspace)
    if name not in (None, "all"):
        named = {system.id for system in overview.systems_named(name)}
        found = [result for result in found if result["system"] in named]
    if not found:
        of = f" of {name}" if name else ""
        raise MgcError(f"{results.path(workspace)}: no result{of}", f"make one: `mgc reproduce {name or 'ID'}`")
    if as_json:
        console.print_json(results.newest(found))
    else:
        console.echo_text(table.markdown(found) if as_markdown else table.text(found, console.width()))
