"""The command `mgc config`: the options of commands, each with its value and where that comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from mgc.pipeline import completion, console, help_groups, settings, suggestions, wrapping
from mgc.pipeline.errors import UsageError
from mgc.pipeline.settings import Setting


@help_groups.command()
@click.argument("command", required=False, metavar="[COMMAND]", shell_complete=completion.commands)
@console.json_option
@console.common_options
@click.pass_context
def config(context: click.Context, command: str | None, data_dir: Path, as_json: bool) -> int:
    """Show the options of a command with their values, and where these come from.

    A value comes from the environment, from mgc.toml in this folder, or it is the default; `-` means that the command
    chooses. Without COMMAND, the options that a variable or mgc.toml sets are shown, for all commands: a mistake in
    either is an error.
    """
    group = context.find_root().command
    names = group.list_commands(context) if isinstance(group, click.Group) else []
    if command is not None and command not in names:
        hint = suggestions.question(suggestions.nearest(command, names))
        raise UsageError(f"there is no command {command}", f"{hint}`mgc --help` lists them")
    tables = {name: list(_settings(context, name)) for name in ([command] if command else names)}
    if as_json:
        console.print_json({name: {row.key: _plain(row) for row in rows} for name, rows in tables.items()})
        return 0
    if command is None:
        tables = {name: [row for row in rows if row.source != "default"] for name, rows in tables.items()}
    for number, (name, rows) in enumerate((name, rows) for name, rows in tables.items() if rows):
        console.echo(*[""] * (number > 0), f"mgc {name}")
        console.echo_text("\n".join(_table(rows, console.width())))
    if not any(tables.values()):
        unset = "neither mgc.toml nor an environment variable sets an option; `mgc config COMMAND` lists options"
        console.result(unset)
    return 0


def _settings(context: click.Context, name: str) -> Iterator[Setting]:
    """Yield the settings of a command as if it were called without arguments.

    Raises:
        SpecError: the file or the environment has a value that cannot be used.
    """
    root = context.find_root()
    command = root.command.get_command(root, name) if isinstance(root.command, click.Group) else None
    if command is None:
        return
    settings.apply(command, click.Context(command, info_name=name, parent=root))
    # Only to learn the values and their sources: a missing argument is no error here.
    inner = command.make_context(name, [], parent=root, resilient_parsing=True)
    yield from settings.settings(inner, command)


def _plain(setting: Setting) -> dict[str, Any]:
    """Return value, source and origin of a setting as values for JSON."""
    value = list(setting.value) if isinstance(setting.value, tuple) else setting.value
    return {"value": json.loads(json.dumps(value, default=str)), "source": setting.source, "origin": setting.origin}


def _table(rows: list[Setting], width: int) -> list[str]:
    """Format settings as lines of key, value and origin; long values are shortened."""
    texts = [(row.key, settings.value_text(row.value), row.origin) for row in rows]
    first, last = (max(len(text[column]) for text in texts) for column in (0, 2))
    room = max(8, width - first - last - 6)
    values = [wrapping.ellipsise([text[1]], room)[0] for text in texts]
    middle = max(map(len, values))
    return [f"  {text[0]:<{first}}  {value:<{middle}}  {text[2]}" for text, value in zip(texts, values, strict=True)]
