"""Commands whose help lists the options in named groups, and whose options `mgc.toml` and the environment can set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import click

from mgc.pipeline import settings
from mgc.pipeline.errors import MgcError, UsageError

#: Group of the options that every command has; it comes last.
GENERAL = "General"
_ATTRIBUTE = "help_group"


def group(name: str) -> Callable[[Callable], Callable]:
    """Start a group of options: a decorator that puts those listed below it, up to the next group, under a heading.

    A group may be started in several places; its options are listed together.

    Args:
        name: heading, such as `Hardware`.
    """

    def assign(command: Callable) -> Callable:
        for parameter in getattr(command, "__click_params__", ()):  # decorators run from the bottom to the top
            if isinstance(parameter, click.Option) and group_of(parameter) is None:
                setattr(parameter, _ATTRIBUTE, name)
        return command

    return assign


def group_of(option: click.Parameter) -> str | None:
    """Return the heading of an option; None if it stands above the first group of its command."""
    return getattr(option, _ATTRIBUTE, None)


class Command(click.Command):
    """A click command whose help lists the options by group. Without groups of its own, it lists them all in one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; `mgc.toml` and environment variables set options that they do not set."""
        if not {"-h", "--help"} & set(args):
            with contextlib.suppress(*[MgcError] * ctx.resilient_parsing):  # a shell completes despite a broken file
                settings.apply(self, ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. The error of an option that was not typed says where its value comes from."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise settings.name_origin(error, ctx, self) from error.__cause__

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group, in the order in which the groups first appear; `General` is the last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):  # the usage line names the arguments
                is_help = parameter not in self.params
                heading = GENERAL if is_help else group_of(parameter) or "Options"
                sections.setdefault(heading, []).append(record)
        general = sections.pop(GENERAL, [])
        sections.setdefault(GENERAL if sections.keys() - {"Options"} else "Options", []).extend(general)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def command(*args: Any, **attributes: Any) -> Callable[[Callable], click.Command]:
    """Declare a command like `click.command`, as a `Command`."""
    return click.command(*args, cls=Command, **attributes)
