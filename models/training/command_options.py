"""Decorators that add options to `mgc train`: the settings of the training loop, and `--nproc`; checks of others."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, get_args

import click

from mgc.models.runs.commands import choose_run
from mgc.pipeline import console, help_groups, option_types
from mgc.pipeline.errors import SpecError
from mgc.pipeline.workspace import Workspace

#: Largest value of `--nproc`. All of them are started at once: a typing error must not bring the machine down.
MAX_PROCESSES = 256
#: Headings in `mgc train --help` of settings that do not stand under `Training`.
_SETTING_GROUPS = {"Hardware": ("amp", "channels_last", "compile"), "Augmentation": ("crop",)}


def loop_options(command: Callable) -> Callable:
    """Add the options of the training loop to a command.

    The command receives the chosen settings of `mgc.models.registry.settings.Loop` as one argument, the dict `loop`.
    """
    from mgc.models.registry.settings import DEFAULT_LOOP, Metric, OptimizerName, loop_settings

    @functools.wraps(command)
    def with_loop(**options: Any) -> Any:
        values = {setting.name: options.pop(setting.name) for setting in loop_settings()}
        chosen = {name: value for name, value in values.items() if value is not None}
        DEFAULT_LOOP.override(chosen)  # a value out of range is an error before a store is opened or a process started
        return command(**options, loop=chosen)

    decorators = [
        help_groups.group("Training"),
        click.option("--epochs", type=option_types.COUNT, help="Maximum number of epochs."),
        click.option("--batch-size", type=option_types.Whole(2), help="Slices per update, over all processes."),
        click.option("--lr", type=option_types.POSITIVE, help="Learning rate of the first update."),
        click.option("--optimizer", type=console.choice(*get_args(OptimizerName)), help="Optimiser."),
        click.option("--weight-decay", type=option_types.NOT_NEGATIVE, help="Weight decay of the optimiser."),
        click.option("--monitor", type=console.choice(*get_args(Metric)), help="Validation score of the best epoch."),
        click.option("--patience", type=option_types.COUNT, help="Stop after this many epochs without a better one."),
    ]
    sections = {name: group for group, names in _SETTING_GROUPS.items() for name in names}
    for setting in loop_settings():
        decorators.append(help_groups.group(sections.get(setting.name, "Training")))
        name = setting.name.replace("_", "-")
        kind = console.choice(*setting.choices) if setting.choices else setting.type
        flags = f"--{name}/--no-{name}" if setting.type is bool else f"--{name}"
        decorators.append(click.option(flags, setting.name, type=kind, default=None, help=setting.help))
    return console.with_options(with_loop, *decorators)


def check_seeds(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """Check the value of `--seeds` before the command begins."""
    if text is not None:
        from mgc.models.training import repeats

        repeats.parse(text)
    return text


def check_folds(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """Check the value of `--folds` before the command begins."""
    if text is not None:
        from mgc.models.training import folds

        folds.parse(text)
    return text


def check_augmentation(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """Check the value of `--augment` before the command begins."""
    if text is not None:
        from mgc.models.registry.augmentation import Augmentation

        Augmentation.parse(text)
    return text


def nproc_option(command: Callable) -> Callable:
    """Add `--nproc` to a command, and run it in that many processes unless torchrun has started them already.

    Rank 0 runs the command with the processes as its argument `ranks` (None for a single process); the other ranks
    follow its trainings.
    """

    @functools.wraps(command)
    def in_processes(nproc: int | None, **options: Any) -> Any:
        from mgc.models.parallel import launcher

        if launcher.is_launched():
            from mgc.models.parallel import ranks
            from mgc.models.training import train as training

            with ranks.join(nproc) as processes:
                if not processes.is_main:
                    training.follow(processes)
                    return 0
                code = command(**options, ranks=processes)
                training.dismiss(processes)
                return code
        resume_words: list[str] = []
        if options["resume"]:
            # The launched processes must continue the same run, and as many of them as began it.
            run = choose_run(Workspace(options["data_dir"]), options["run"], resuming=True)
            options["run"], nproc = run.path, nproc or run.config.get("processes", 1)
            resume_words = ["--run", str(run.path)]
        if nproc in (None, 1):
            return command(**options, ranks=None)
        if options["find_lr"]:
            raise SpecError(f"--nproc {nproc}: one process finds the learning rate", "leave out --nproc")
        words = click.get_current_context().find_root().obj
        # -P: a module in the current folder must not hide a module of Python that has the same name.
        return launcher.launch([sys.executable, "-P", "-m", "mgc", *words, *resume_words], nproc)

    option = click.option(
        "--nproc",
        type=click.IntRange(1, MAX_PROCESSES),
        help="Processes that train together, on the CPU or with one GPU each.  [default: 1]",
    )
    return help_groups.group("Hardware")(option(in_processes))
