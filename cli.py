"""The `mgc` command: the names of its commands, and where each is defined. A command's module is loaded on demand."""

from __future__ import annotations

import os

import click

from mgc.pipeline import console

#: Module and object of each command.
COMMANDS = {
    "audit": "mgc.models.audit.commands:audit",
    "compare": "mgc.models.compare.commands:compare",
    "completion": "mgc.pipeline.completion:completion",
    "config": "mgc.pipeline.configuration:config",
    "demo": "mgc.models.commands:demo",
    "download": "mgc.pipeline.downloads.commands:download",
    "embed": "mgc.models.embedding.commands:embed",
    "evaluate": "mgc.models.report.commands:evaluate",
    "export": "mgc.models.export.commands:export",
    "extract": "mgc.models.commands:extract",
    "info": "mgc.models.runs.commands:info",
    "list": "mgc.models.housekeeping.commands:list_",
    "models": "mgc.models.commands:models",
    "new": "mgc.pipeline.scaffold:new",
    "plot": "mgc.pipeline.plot.commands:plot",
    "predict": "mgc.models.prediction.commands:predict",
    "remove": "mgc.models.housekeeping.commands:remove",
    "report": "mgc.models.report.commands:report",
    "reproduce": "mgc.models.reproduction.commands:reproduce",
    "search": "mgc.models.search.commands:search",
    "segments": "mgc.models.report.commands:segments",
    "serve": "mgc.models.service.commands:serve",
    "slice": "mgc.pipeline.commands:slice_",
    "split": "mgc.pipeline.commands:split",
    "train": "mgc.models.training.commands:train",
    "verify": "mgc.models.runs.commands:verify",
}


@click.group(
    cls=console.CommandGroup,
    commands=console.LazyCommands(COMMANDS),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 an error in data, files or runs, 2 wrong usage, 130 interrupted by Ctrl-C.",
)
@click.version_option(None, "-V", "--version", package_name="mgc-music", prog_name="mgc")
@click.option("--debug", is_flag=True, expose_value=False, help="Show where an error comes from.")
def main() -> None:
    """Folders of music into trained, honestly evaluated genre classifiers.

    Three stages that meet in files: `mgc extract` makes a feature store, `mgc train` a run, `mgc evaluate` a report.
    """
    # Must be set before torch is imported. On shared processors, OpenMP threads that spin while they wait make a
    # training step three times as slow as threads that soon sleep (kth2020/cnn: 1.2 s, 0.42 s; idle machine: 0.18 s).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


if __name__ == "__main__":
    main()
