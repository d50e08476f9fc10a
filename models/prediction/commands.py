"""The command `mgc predict`."""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mgc.models.parallel.options import device_option
from mgc.models.prediction.naming import calibrated_option, choose_naming, unknown_option
from mgc.models.runs.commands import choose_run, is_run
from mgc.pipeline import completion, console, help_groups, option_types
from mgc.pipeline.commands import scheduler_option, timeout_option
from mgc.pipeline.console import LOCAL_PATH
from mgc.pipeline.errors import MgcError, SpecError, UsageError
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from mgc.models.prediction.frames import Decoding
    from mgc.models.prediction.predict import FilePredictor, Sink
    from mgc.models.prediction.prediction import FilePrediction
    from mgc.models.prediction.results import ResultFile
    from mgc.models.prediction.sorting import Way
    from mgc.models.runs.run import Run

_PROBABILITY = option_types.Real("a probability from 0 to below 1", below=1)


@help_groups.command()
@click.argument("names", nargs=-1, metavar="[RUN] FILE|FOLDER|PLAYLIST|-...", shell_complete=completion.run_then_files)
@help_groups.group("Files")
@click.option("--recursive", is_flag=True, help="Also predict the files in folders below a folder.")
@help_groups.group("Answers")
@click.option("--top-k", type=option_types.COUNT, default=3, show_default=True, help="Genres to show of each file.")
@click.option("--timeline", is_flag=True, help="Also show the probabilities in each second.")
@click.option(
    "--pictures",
    type=LOCAL_PATH,
    metavar="FOLDER",
    help="Draw spectrogram and probabilities over time of each file.",
)
@click.option(
    "--embeddings",
    type=LOCAL_PATH,
    metavar="FILE",
    help="Write the input of the network's last layer for each slice, as Parquet.",
)
@unknown_option
@calibrated_option
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
    pictures: Path | None,
    embeddings: Path | None,
    unknown: float | str,
    calibrated: bool,
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
    from mgc.models.prediction import frames, inputs, results

    _check_actions(**actions)
    if out is not None and (beside := "--embeddings" if embeddings else "--pictures" if pictures else None):
        problem = f"{beside} and --out: files whose results {out} keeps are not decoded again"
        raise SpecError(problem, "use one of them at a time")
    path, arguments = _split_names(names)
    listed = inputs.collect(arguments, recursive=recursive, stdin=sys.stdin.buffer)
    for note in listed.notes:
        console.echo(f"predict: {note}", err=True)
    run = choose_run(Workspace(data_dir), path)
    naming = choose_naming(run, unknown, calibrated=calibrated, command="predict")
    head = {"run": run.config["created"], "model": run.model, "genres": list(run.classes)}
    store = results.ResultFile(out, head) if out is not None else None
    decoding = frames.Decoding(workers, scheduler, timeout)
    with contextlib.ExitStack() as processes:
        with contextlib.ExitStack() as written:
            sinks: list[Sink] = []
            if embeddings is not None:
                from mgc.models.prediction.embeddings import EmbeddingFile

                sinks.append(written.enter_context(EmbeddingFile(embeddings, head)))
            if pictures is not None:
                from mgc.models.prediction.timeline_pictures import TimelinePictures

                sinks.append(TimelinePictures(pictures, listed.paths))
            load = functools.partial(_load_predictor, run, device, embed=embeddings is not None)
            with console.phase("decoding and prediction"):
                predictions = _predict(processes, load, listed.paths, store, decoding, sinks)
        predictions = [naming.tempered(one) for one in predictions]
        # The answers come before the processes end, which takes half a second.
        if as_json:
            console.print_json([results.as_dict(one, unknown=naming.unknown, timeline=timeline) for one in predictions])
        else:
            lines = results.text(
                predictions, top_k=top_k, unknown=naming.unknown, timeline=timeline, width=console.width()
            )
            console.echo(*lines)
    if csv_file is not None or parquet_file is not None:
        _write_tables(results.table(predictions, run.classes, unknown=naming.unknown), csv_file, parquet_file)
    refused = sum(one.status != "ok" for one in predictions)
    if refused == len(predictions):
        raise MgcError(f"none of {len(predictions)} files can be predicted", "see the reasons above")
    if strange := sum(one.strange for one in predictions):
        what = "unlike the music that the run was trained on; `--unknown validation` names no genre of such"
        console.warn(f"predict: {strange} of {len(predictions)} files are {what}")
    if refused:
        console.warn(f"predict: {refused} of {len(predictions)} files were refused")
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
        if outcome.failed or dry_run:
            console.warn(outcome.line)
        else:
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


def _write_tables(table: pa.Table, csv_file: Path | None, parquet_file: Path | None) -> None:
    """Write predictions as CSV and as Parquet.

    Raises:
        MgcError: a file cannot be written.
    """
    from mgc.models.evaluation.tables import csv_bytes
    from mgc.pipeline.storage import files, parquet

    for file, encode in ((csv_file, csv_bytes), (parquet_file, parquet.table_bytes)):
        if file is not None:
            with files.translate_write_errors(file):
                files.write_bytes(file, encode(table))


def _load_predictor(run: Run, device: str, *, embed: bool) -> FilePredictor:
    """Load the model while the worker processes start."""
    from mgc.models.prediction.predict import FilePredictor

    return FilePredictor(run, device, embed=embed)


def _predict(
    processes: contextlib.ExitStack,
    load: Callable[[], FilePredictor],
    paths: list[str],
    store: ResultFile | None,
    decoding: Decoding,
    sinks: Sequence[Sink],
) -> list[FilePrediction]:
    """Predict files, those without a result in `store`; return a prediction for each path, in their order.

    The model is loaded while the processes start that decode: each takes a second or two. They end with `processes`.
    """
    from mgc.models.prediction import frames

    predictions = [store.known(path) if store is not None else None for path in paths]
    missing = [number for number, one in enumerate(predictions) if one is None]
    if missing:
        rest = [paths[number] for number in missing]
        with (
            futures.ThreadPoolExecutor(1) as executor,
            console.progress_bar("predict", "file")(len(missing)) as advance,
        ):
            loading = executor.submit(load)
            client = processes.enter_context(frames.processes(rest, decoding))
            predictor = loading.result()
            for batches in frames.decode(client, rest, predictor.specs, decoding, advance):
                for number, one in predictor.predict_frames(rest, batches, sinks):
                    predictions[missing[number]] = one
                    if store is not None:
                        store.append(one)
    return [one for one in predictions if one is not None]
