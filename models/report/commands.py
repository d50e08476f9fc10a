"""The commands `mgc evaluate` and `mgc report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mgc.models.parallel.options import device_option
from mgc.models.runs.commands import choose_run
from mgc.pipeline import completion, console, help_groups, option_types
from mgc.pipeline.commands import choose_store
from mgc.pipeline.console import LOCAL_PATH, PATH_OR_URL
from mgc.pipeline.errors import MgcError, SpecError
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.models.evaluation.other_dataset import OtherDataset
    from mgc.models.runs.run import Run


_scored_split_option = click.option(
    "--split",
    type=console.choice("training", "validation", "test"),
    default="test",
    show_default=True,
    help="Split that was scored.",
)


@help_groups.command()
@click.argument("runs", type=LOCAL_PATH, nargs=-1, shell_complete=completion.runs)
@help_groups.group("Scores")
@click.option("--ensemble", is_flag=True, help="Score the mean of the probabilities of the runs; write no files.")
@click.option("--by-genre", is_flag=True, help="Show precision, recall, F1 and support of each genre.")
@click.option(
    "--split",
    type=console.choice("training", "validation", "test"),
    help="Split to score.  [default: test; with --store all of it]",
)
@click.option(
    "--join",
    type=console.choice("mean", "log-mean", "vote", "median"),
    default="mean",
    show_default=True,
    help="How the probabilities of a track come from its slices.",
)
@click.option("--no-report", is_flag=True, help="Write no report.html, which takes some seconds.")
@help_groups.group("Other dataset")
@click.option(
    "--store",
    "stores",
    type=PATH_OR_URL,
    multiple=True,
    shell_complete=completion.stores,
    help="Score tracks of another dataset: its store of the run's feature; repeat for a system with several inputs.",
)
@click.option(
    "--map",
    "genre_map",
    type=LOCAL_PATH,
    metavar="FILE",
    help="Its genres: CSV/Parquet with `genre` and `as`, a genre of the run; no `as` leaves it out.",
)
@help_groups.group("Hardware")
@device_option
@console.json_option
@console.common_options
def evaluate(
    runs: tuple[Path, ...],
    ensemble: bool,
    by_genre: bool,
    split: str | None,
    join: str,
    stores: tuple[Place, ...],
    genre_map: Path | None,
    no_report: bool,
    device: str,
    data_dir: Path,
    as_json: bool,
) -> int:
    """Score each run on its own test tracks, and write scores, predictions and a report to its folder.

    Several runs are shown as a table; --ensemble scores their mean instead. The run of an ensemble is scored by the
    mean of its members. --store scores the tracks of another dataset instead, but for those that a run has heard. With
    --json, one run or --ensemble prints an object, several runs a list of such objects.
    """
    if genre_map is not None and not stores:
        raise SpecError("--map names the genres of another dataset", "add its --store, or leave it out")
    workspace = Workspace(data_dir)
    members = [choose_run(workspace, path) for path in runs or [None]]
    from mgc.models.evaluation import comparison, report
    from mgc.models.evaluation.evaluate import evaluate as evaluate_runs
    from mgc.models.evaluation.evaluate import result_paths
    from mgc.models.training.predict import require_scorable

    own_split = split or "test"
    for run in members:  # before the first is scored, which may take long and is counted
        require_scorable(run, "test" if stores else own_split)
    groups = [members] if ensemble else [[run] for run in members]
    others = _open_others(workspace, groups, stores, genre_map, split)
    evaluations = []
    for group, other in zip(groups, others, strict=True):
        with console.phase(f"scores of {', '.join(run.path.name for run in group)}"):
            evaluations.append(evaluate_runs(group, split=own_split, join=join, other=other, device=device))
    files = [
        result_paths(group[0], own_split, other) if len(group) == 1 else []
        for group, other in zip(groups, others, strict=True)
    ]
    shows_one = not as_json and len(evaluations) == 1
    if shows_one:  # before the report, which takes some seconds
        console.echo_text(report.text(evaluations[0], by_genre=by_genre, width=console.width()))
    if not (no_report or stores or (ensemble and len(members) > 1)):
        from mgc.models.report.page import write_report

        for run, paths in zip(members, files, strict=True):
            with console.phase(f"report of {run.path.name}"):
                paths.append(write_report(run, own_split, device=device))
    if shows_one:
        console.echo("", *report.written_lines(files[0], console.width()))
    elif as_json:
        objects = [
            evaluation.as_dict() | {"files": [str(path) for path in paths]}
            for evaluation, paths in zip(evaluations, files, strict=True)
        ]
        console.print_json(objects[0] if len(objects) == 1 else objects)
    else:
        console.echo_text(comparison.text(members, evaluations, files, by_genre=by_genre, width=console.width()))
    return 0


def _open_others(
    workspace: Workspace,
    groups: Sequence[Sequence[Run]],
    stores: Sequence[Place],
    genre_map: Path | None,
    split: str | None,
) -> list[OtherDataset | None]:
    """Open another dataset for each group of runs that are scored together; None if no stores are named."""
    if not stores:
        return [None for _ in groups]
    from mgc.models.evaluation.other_dataset import open_other
    from mgc.pipeline.datasets.labels import read_map

    opened = [choose_store(workspace, path) for path in stores]
    names = read_map(genre_map) if genre_map is not None else {}
    return [open_other(group, opened, names, split, console.progress_bar("compare", "track")) for group in groups]


@help_groups.command()
@click.argument("runs", type=LOCAL_PATH, nargs=-1, shell_complete=completion.runs)
@help_groups.group("Report")
@_scored_split_option
@click.option("--out", type=LOCAL_PATH, help="File to write.  [default: report.html or comparison.html, see above]")
@click.option("--no-audio", is_flag=True, help="Leave out the excerpts to listen to.")
@click.option("--common", is_flag=True, help="Compare runs of different tracks on those that all of them have.")
@help_groups.group("Hardware")
@device_option
@console.json_option
@console.common_options
def report(
    runs: tuple[Path, ...],
    split: str,
    out: Path | None,
    no_audio: bool,
    common: bool,
    device: str,
    data_dir: Path,
    as_json: bool,
) -> int:
    """Write one HTML file on an evaluated run, or on the comparison of several.

    The file requests nothing from anywhere. The report of a run is written to its folder as report.html (report-SPLIT
    for other splits than test), a comparison as comparison.html beside the folder that holds the first run.
    """
    workspace = Workspace(data_dir)
    chosen = [choose_run(workspace, path) for path in runs or [None]]
    from mgc.models.report.page import write_comparison, write_report

    if len(chosen) == 1:
        path = write_report(chosen[0], split, audio=not no_audio, device=device, out=out)
    else:
        path = write_comparison(chosen, split, common=common, out=out)
    if as_json:
        console.print_json({"report": str(path), "bytes": path.stat().st_size, "runs": [str(r.path) for r in chosen]})
    else:
        console.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


@help_groups.command()
@click.argument("path", type=LOCAL_PATH, required=False, metavar="[RUN]", shell_complete=completion.runs)
@help_groups.group("Excerpts")
@click.option("--count", type=option_types.COUNT, default=3, show_default=True, help="Excerpts of each kind and genre.")
@click.option("--seconds", type=option_types.SECONDS, default=10, show_default=True, help="Length of an excerpt.")
@_scored_split_option
@click.option(
    "--out", type=LOCAL_PATH, metavar="FOLDER", help="Folder to write.  [default: segments/RUN in the workspace]"
)
@console.json_option
@console.common_options
def segments(
    path: Path | None, count: int, seconds: float, split: str, out: Path | None, data_dir: Path, as_json: bool
) -> int:
    """Cut excerpts to listen to: those of each genre that a run gets best, gets worst, and is least certain of.

    The run must have been evaluated, and its audio files must be where they were extracted. Excerpts are FLAC, in a
    folder for each genre; segments.csv lists them.
    """
    workspace = Workspace(data_dir)
    run = choose_run(workspace, path)
    from mgc.models.report import segments as cutting
    from mgc.models.report.results import read_results

    folder = out or workspace.root / "segments" / run.path.resolve().name
    chosen = cutting.choose(read_results(run, split), count)
    with console.progress_bar("segments", "excerpt")(len(chosen)) as advance:
        made, problems = cutting.cut(run, chosen, seconds, folder, advance)
    for problem in problems:
        console.warn(f"segments: {problem}")
    if not made:
        raise MgcError("no excerpt could be cut", "see the lines above")
    if as_json:
        console.print_json({"folder": str(folder), "segments": [one.as_dict() for one in made]})
    else:
        console.echo(f"{folder}: {len(made)} excerpts, listed in {cutting.LIST}")
    return 0
