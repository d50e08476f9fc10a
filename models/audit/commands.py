"""The command `mgc audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mgc.models.runs.commands import choose_run
from mgc.pipeline import completion, console, help_groups
from mgc.pipeline.commands import choose_store
from mgc.pipeline.console import LOCAL_PATH, PATH_OR_URL
from mgc.pipeline.errors import MgcError, ModelError
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.models.audit.audit import Audit
    from mgc.models.audit.price import Price


@help_groups.command()
@click.argument("store", type=PATH_OR_URL, required=False, shell_complete=completion.stores)
@help_groups.group("Examination")
@click.option(
    "--runs", type=LOCAL_PATH, multiple=True, metavar="RUN", help="A run that judges labels; may be repeated."
)
@click.option("--price", is_flag=True, help="Measure the accuracy that leaks buy, by a baseline.")
@help_groups.group("Result")
@click.option("--write-splits", type=LOCAL_PATH, metavar="FILE", help="Write splits without these leaks, as CSV.")
@click.option(
    "--fail-on",
    type=console.choice("info", "warning", "error"),
    default="warning",
    show_default=True,
    help="Exit with 1 if a finding is as severe as this.",
)
@console.json_option
@console.common_options
def audit(store: Place | None, data_dir: Path, as_json: bool, **options: Any) -> int:
    """Find what is wrong with a dataset and its splits.

    Recordings that are there twice (also re-encoded, trimmed or amplified), artists and albums in several splits,
    genres with too few test tracks, encodings that tell the genre, and faults of sound; with --runs, labels that
    models which did not hear a track contradict, such as the runs of mgc train --folds 5; with --price, the accuracy
    that leaks buy. Nothing is decoded. The exit code is 1 if there are findings. The store keeps a record, audit.json:
    mgc split and mgc evaluate say if its test split is not clean.
    """
    from mgc.models.audit import clean_splits, findings
    from mgc.models.audit.audit import audit as examine

    workspace = Workspace(data_dir)
    runs = [choose_run(workspace, path) for path in options["runs"]]
    with console.phase("audit"):
        result = examine(choose_store(workspace, store), console.progress_bar("audit", "track"), runs)
    clean = findings.is_clean(result.findings, options["fail_on"])
    try:
        result.record()
    except MgcError as error:
        console.note(f"the audit is not recorded: {error.problem}", err=True)
    price = _measure_price(result) if options["price"] else None
    if as_json:
        console.print_json(result.as_dict(clean) | {"price": price.as_dict() if price else None})
    else:
        console.echo(*result.render(console.width()))
        if price:
            console.echo("", *price.render(console.width()))
    if (write_splits := options["write_splits"]) is not None:
        changed = clean_splits.write(write_splits, result.labelled, result.findings)
        console.note(f"{write_splits}: {changed} tracks change their split; mgc split --splits takes it", err=True)
    return 0 if clean else 1


def _measure_price(result: Audit) -> Price | None:
    """Measure what leaks buy; None, and a line on stderr that says why, if the store does not allow it."""
    from mgc.models.audit import price

    try:
        return price.measure(result.store, result.labelled, result.findings, console.progress_bar("price", "fit"))
    except ModelError as error:
        console.warn(f"the price of a leak cannot be measured: {error.problem}; {error.remedy}")
        return None
