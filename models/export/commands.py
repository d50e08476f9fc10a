"""The command `mgc export`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mgc.models.runs.commands import choose_run
from mgc.pipeline import console, help_groups
from mgc.pipeline.console import LOCAL_PATH
from mgc.pipeline.errors import SpecError
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.models.export.export import Export
    from mgc.models.export.smaller import Measurement


@help_groups.command()
@click.argument("path", type=LOCAL_PATH, required=False, metavar="[RUN]")
@help_groups.group("File")
@click.option(
    "--format", "form", type=console.choice("onnx", "torch"), default="onnx", show_default=True, help="Kind of file."
)
@click.option(
    "--from",
    "origin",
    type=console.choice("samples", "features"),
    default="samples",
    show_default=True,
    help="What the file reads: samples of a slice, or its frames.",
)
@click.option(
    "--out",
    type=LOCAL_PATH,
    metavar="FOLDER|FILE",
    help="Where to write it, with its model card.  [default: exports/RUN in the workspace]",
)
@click.option("--licence", default="unknown", show_default=True, help="Licence of the model, for its card.")
@help_groups.group("Smaller files")
@click.option("--quantise", type=console.choice("int8"), help="Quantise the network, calibrated on training slices.")
@click.option("--half", is_flag=True, help="Convert the network to float16.")
@console.json_option
@console.common_options
def export(
    path: Path | None,
    form: str,
    origin: str,
    out: Path | None,
    licence: str,
    quantise: str | None,
    half: bool,
    data_dir: Path,
    as_json: bool,
) -> int:
    """Export the model of a run to one file, with a model card.

    The file is checked against the run before it is written: probabilities must agree to 0.0001, and to 0.001 where a
    level lies between two steps of the store.
    """
    if quantise and half:
        raise SpecError("--quantise and --half exclude each other", "leave one out")
    if (quantise or half) and form == "torch":
        option = "--quantise" if quantise else "--half"
        raise SpecError(f"{option} makes ONNX files smaller", "take --format onnx")
    from mgc.models.export import export as exporting

    workspace = Workspace(data_dir)
    run = choose_run(workspace, path)
    target = out or workspace.root / "exports" / run.path.resolve().name
    precision = "int8" if quantise else "float16" if half else "float32"
    result = exporting.export(run, target, form, origin, precision=precision, licence=licence)  # type: ignore[arg-type]
    if as_json:
        console.print_json(result.as_dict())
        return 0
    for line in _lines(result):
        console.note(line)
    return 0


def _lines(result: Export) -> Iterator[str]:
    shapes = ", ".join(" × ".join(map(str, shape)) for shape in result.shapes)
    yield f"{result.path}: {result.size / 1e6:.2f} MB, reads {shapes}"
    yield f"check: {result.check}"
    if result.measured is not None:
        yield from _measured(result.measured)
    yield f"model card: {result.card}"


def _measured(measured: Measurement) -> Iterator[str]:
    span = measured.difference
    yield f"size: {measured.bytes_before / 1e6:.2f} MB as float32, {measured.bytes_after / 1e6:.2f} MB"
    yield (
        f"accuracy on {measured.n_tracks} {measured.split} tracks: {measured.accuracy_before:.1%} as float32, "
        f"{measured.accuracy_after:.1%} ({100 * span.difference:+.1f} points, 95 % interval {100 * span.low:+.1f} to "
        f"{100 * span.high:+.1f})"
    )
    yield f"time for a slice on one thread: {measured.ms_before:.2f} ms as float32, {measured.ms_after:.2f} ms"
