"""The command `mgc predict`."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mgc.models.parallel.options import device_option
from mgc.models.runs.commands import choose_run, is_run
from mgc.pipeline import console, help_groups, option_types
from mgc.pipeline.commands import scheduler_option, timeout_option
from mgc.pipeline.console import LOCAL_PATH
from mgc.pipeline.errors import MgcError, SpecError, UsageError
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.models.prediction.frames import Decoding
    from mgc.models.prediction.predict import FilePrediction
    from mgc.models.prediction.results import ResultFile
    from mgc.models.prediction.sorting import Way
    from mgc.models.runs.run import Run

_PROBABILITY = option_types.Real("a probability from 0 to below 1", below=1)


@help_groups.command()
@click.argument("names", nargs=-1, metavar="[RUN] FILE|FOLDER|PLAYLIST|-...")
@help_groups.group("Files")
@click.option("--recursive", is_flag=True, help="Also predict the files in folders below a folder.")
@help_groups.group("Answers")
@click.option("--top-k", type=option_types.COUNT, default=3, show_default=True, help="Genres to show of each file.")
@click.option("--timeline", is_flag=True, help="Also show the probabilities in each second.")
@click.option(
    "--unknown",
    type=_PROBABILITY,
    default=0,
    help="Answer `none of these` if the most probable genre is less probable than this.",
)
@click.option("--csv", "csv_file", type=LOCAL_PATH, metavar="FILE", help="Write all probabilities as CSV.")
@click.option("--parquet", "parquet_file", type=LOCAL_PATH, metavar="FILE", help="Write all probabilities as Parquet.")
@click.option("--out", type=LOCAL_PATH, metavar="FILE", help="Keep results here (JSON lines); a later call continues.")
@help_groups.group("Files that are named")
@click.option("--write-tags", is_flag=True, help="Write the most probable genre into each file's tags.")
@click.option("--sort-into", type=LOCAL_PATH, metavar="FOLDER", help="Put each file into FOLDER/GENRE.")
@click.option("--copy", "way", flag_value="copy", help="Sort copies.")
@click.option("--link", "way", flag_value="link", help="Sort symbolic links.")
@click.option("--move", "way", flag_value="move", help="Sort the files themselves.")
@click.option(
    "--min-confidence",
    type=_PROBABILITY,
    default=0,
    help="Leave files alone whose most probable genre is less probable than this.",
)
@click.option("--dry-run", is_flag=True, help="Change no file; say what --write-tags and --sort-into would do.")
@help_groups.group("Processes and hardware")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that decode.  [default: one per processor]")
@scheduler_option
@timeout_option
@device_option
@console.json_option
@console.common_options
def predict(
    names: tuple[str, ...],
    recursive: bool,
    top_k: int,
    timeline: bool,
    unknown: float,
    csv_file: Path | None,
    parquet_file: Path | None,
    out: Path | None,
    workers: int | None,
    scheduler: str | None,
    timeout: float,
    device: str,
    data_dir: Path,
    as_json: bool,
    **actions: Any,
) -> int:
    """Name the genres of audio files, by the model of a run.

    Files are decoded, cut and scored as in training. Without RUN, the latest run is used. `-` reads a list of files
    from standard input, one a line. The exit code is 1 if no file can be predicted.
    """
    from mgc.models.evaluation.tables import csv_bytes
    from mgc.models.prediction import frames, inputs, results
    from mgc.pipeline.storage import files, parquet

    _check_actions(**actions)
    path, arguments = _split_names(names)
    listed = inputs.collect(arguments, recursive=recursive, stdin=sys.stdin.buffer)
    for note in listed.notes:
        console.echo(f"predict: {note}", err=True)
    run = choose_run(Workspace(data_dir), path)
    store = None
    if out is not None:
        store = results.ResultFile(out, {"run": run.config["created"], "model": run.model, "genres": list(run.classes)})
    decoding = frames.Decoding(workers, scheduler, timeout)
    predictions = _predict(run, listed.paths, store, decoding, device)
    if as_json:
        console.print_json([results.as_dict(one, unknown=unknown, timeline=timeline) for one in predictions])
    else:
        lines = results.text(predictions, top_k=top_k, unknown=unknown, timeline=timeline, width=console.width())
        console.echo(*lines)
    for file, encode in {csv_file: csv_bytes, parquet_file: parquet.table_bytes}.items():
        if file is not None:
            with files.translate_write_errors(file):
                files.write_bytes(file, encode(results.table(predictions, run.classes, unknown=unknown)))
    refused = sum(one.status != "ok" for one in predictions)
    if refused == len(predictions):
        raise MgcError(f"none of {len(predictions)} files can be predicted", "see the reasons above")
    if refused:
        console.echo(f"predict: {refused} of {len(predictions)} files were refused", err=True)
    _act(predictions, **actions)
    return 0


def _check_actions(
    write_tags: bool, sort_into: Path | None, way: str | None, min_confidence: float, dry_run: bool
) -> None:
    """Raise `SpecError` if options on named files contradict each other."""
    if sort_into is not None and way is None:
        raise SpecError("--sort-into: how is not said", "add --copy, --link or --move")
    if sort_into is None and way is not None:
        raise SpecError(f"--{way}: there is nothing to sort into", "add --sort-into FOLDER")
    if not write_tags and sort_into is None and (dry_run or min_confidence):
        option = "--dry-run" if dry_run else "--min-confidence"
        raise SpecError(f"{option}: there is nothing to do with the files", "add --write-tags or --sort-into FOLDER")


def _act(
    predictions: list[FilePrediction],
    write_tags: bool,
    sort_into: Path | None,
    way: Way | None,
    min_confidence: float,
    dry_run: bool,
) -> None:
    """Write tags and sort files, and say on stderr what became of each.

    Raises:
        MgcError: a file could not be treated; all others were.
    """
    from mgc.models.prediction import actions

    outcomes: list[actions.Outcome] = []
    steps = []
    if write_tags:
        steps.append(actions.write_tags(predictions, min_confidence, dry_run=dry_run))
    if sort_into is not None and way is not None:
        steps.append(actions.sort(predictions, sort_into, way, min_confidence, dry_run=dry_run))
    for outcome in itertools.chain.from_iterable(steps):
        console.echo(outcome.line, err=True)
        outcomes.append(outcome)
    if failed := sum(outcome.failed for outcome in outcomes):
        raise MgcError(f"{failed} of {len(outcomes)} files could not be tagged or sorted", "see the lines above")


def _split_names(names: tuple[str, ...]) -> tuple[Path | None, tuple[str, ...]]:
    """Divide the arguments into the run, if the first one is a run's folder, and the files.

    Raises:
        UsageError: no file is named.
    """
    run = Path(names[0]) if names and is_run(Path(names[0])) else None
    files = names if run is None else names[1:]
    if not files:
        raise UsageError("no file to predict", "name files, folders, playlists, or - for a list on standard input")
    return run, files


def _predict(
    run: Run, paths: list[str], store: ResultFile | None, decoding: Decoding, device: str
) -> list[FilePrediction]:
    """Predict files, those without a result in `store`; return a prediction for each path, in their order."""
    from mgc.models.prediction.predict import FilePredictor

    predictions = [store.known(path) if store is not None else None for path in paths]
    missing = [number for number, one in enumerate(predictions) if one is None]
    if missing:
        predictor = FilePredictor(run, device)
        with console.progress_bar("predict", "file")(len(missing)) as advance:
            rest = [paths[number] for number in missing]
            for number, one in predictor.predict(rest, decoding, advance):
                predictions[missing[number]] = one
                if store is not None:
                    store.append(one)
    return [one for one in predictions if one is not None]
