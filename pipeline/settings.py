"""Settings: values of options from `mgc.toml` in the working folder and from environment variables.

    [all]                       options of every command
    data-dir = "/music/mgc"

    [train]                     options of one command, by their long names
    epochs = 20

A value of the command line overrides the environment, the environment the file, and the file the default. Values pass
through the types of the options, as if they had been typed. The file is data: nothing in it is run, and it cannot set
the options of `WITHHELD`.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from mgc.pipeline import suggestions
from mgc.pipeline.errors import MgcError, SpecError, UsageError

FILE = "mgc.toml"
#: Table of the options that every command has, and these.
COMMON = "all"
COMMON_KEYS = ("data-dir", "debug", "quiet", "verbose")
#: Options that a file, which may come with somebody else's folder, cannot set, and why.
WITHHELD = {
    "scheduler": "its processes run what they are sent",
    "yes": "it removes files",
    "write-tags": "it changes your files",
    "sort-into": "it copies or moves your files",
    "move": "it moves your files",
    "host": "it opens the service to other machines",
}
#: Largest file that is read, in bytes. Settings take a few hundred.
MAX_BYTES = 2**16
#: Key of `click.Context.meta` with the entries that the context's command uses, by parameter name.
_META = "mgc.settings"


@dataclass(frozen=True)
class Entry:
    """A line of the file.

    Attributes:
        table: name of a command, or `all`.
        key: name of an option, without dashes.
        value: value as TOML has it.
        line: number of the line on which the entry begins, from 1.
    """

    table: str
    key: str
    value: Any
    line: int

    @property
    def origin(self) -> str:
        """The file and line."""
        return f"{FILE}, line {self.line}"

    @property
    def text(self) -> str:
        """File, line, key and value, for error messages."""
        shown = json.dumps(self.value, ensure_ascii=False, default=str)
        return f"{self.origin}: [{self.table}] {self.key} = {shown if len(shown) <= 60 else shown[:59] + '…'}"


def key(option: click.Parameter) -> str:
    """Return the name of an option in the file: its long spelling without dashes, such as `data-dir`."""
    return max(option.opts, key=len).lstrip("-")


def variables(command: str, option: click.Parameter) -> list[str]:
    """Return the environment variables that set an option, the one that decides first.

    They are `MGC_<COMMAND>_<OPTION>`, and what the option declares itself, such as `MGC_DATA`.
    """
    own = f"{_prefix(command)}{key(option)}".replace("-", "_").upper()
    declared = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
    return [own, *(name for name in declared if name != own)]


def _prefix(command: str) -> str:
    return f"MGC_{command.upper()}_"


def options_of(command: click.Command) -> list[click.Option]:
    """Return the options of a command that can be set: all but `--help`."""
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


# -- the file ----------------------------------------------------------------------------------------------------------


def read(commands: Collection[str] = (), path: Path = Path(FILE)) -> list[Entry]:
    """Read the file.

    Args:
        commands: names of the commands, the valid tables; empty to take any.
        path: the file.

    Returns:
        Its entries in the order of the file; none if there is no file.

    Raises:
        SpecError: the file is unreadable, broken or too large, or a table is unknown.
    """
    try:
        if not path.is_file():
            if path.exists() or path.is_symlink():
                raise SpecError(f"{path} is no file", "remove it, or make it a TOML file")
            return []
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}", "check its permissions, or remove it") from None
    if len(data) > MAX_BYTES:
        raise SpecError(f"{path} is larger than {MAX_BYTES // 1024} KiB", "keep the options in it, and nothing else")
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
        tables = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: byte {error.start} is not UTF-8", "save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path}: no valid TOML: {error}", 'write options as `epochs = 20` or `model = "ID"`') from None
    except RecursionError:
        raise SpecError(f"{path}: no valid TOML: nested too deeply", "write options as `epochs = 20`") from None
    lines = dict(_lines(text))
    for name, table in tables.items():
        line = lines.get((name, None), 1)
        if not isinstance(table, dict):
            raise SpecError(
                f"{path}, line {line}: {name} stands in no table", f"put it below [{COMMON}] or a [COMMAND]"
            )
        if commands and name not in (*commands, COMMON):
            hint = suggestions.question(suggestions.nearest(name, [*commands, COMMON]))
            remedy = f"{hint}tables are named after commands (`mgc --help`), or {COMMON}"
            raise SpecError(f"{path}, line {line}: [{name}]: no such command", remedy)
    return [
        Entry(name, entry, value, lines.get((name, entry), lines.get((name, None), 1)))
        for name, table in tables.items()
        for entry, value in table.items()
    ]


def _lines(text: str) -> Iterator[tuple[tuple[str, str | None], int]]:
    """Yield the first line of each table (`(table, None)`) and of each entry (`(table, key)`) of a valid file.

    tomllib gives no positions. The file is cut into statements: the shortest runs of lines that are valid TOML.
    """
    table: str | None = None
    rows = text.split("\n")
    start = 0
    for end in range(1, len(rows) + 1):
        try:
            values = tomllib.loads("\n".join(rows[start:end]))
        except tomllib.TOMLDecodeError:
            continue
        for name, value in values.items():
            if rows[start].lstrip().startswith("["):
                table = name
                yield (name, None), start + 1
            elif table is not None:
                yield (table, name), start + 1
            else:
                yield (name, None), start + 1
                if isinstance(value, dict):  # `train.epochs = 20`
                    for entry in value:
                        yield (name, entry), start + 1
        start = end


def select(entries: Iterable[Entry], command: click.Command) -> dict[str, Entry]:
    """Choose the entries that set options of a command; its own table overrides `all`.

    Returns:
        `{parameter name: entry}`.

    Raises:
        SpecError: an option is unknown, or the file cannot set it.
    """
    options = {key(option): option for option in options_of(command)}
    chosen: dict[str, Entry] = {}
    for entry in entries:
        if entry.table not in (command.name, COMMON):
            continue
        known = COMMON_KEYS if entry.table == COMMON else options.keys()
        if entry.key not in known:
            _raise_unknown(entry, known)
        if entry.key in WITHHELD:
            problem = f"{entry.text}: the file cannot set this option, as {WITHHELD[entry.key]}"
            raise SpecError(problem, f"write --{entry.key} on the command line")
        name = options[entry.key].name or ""
        if entry.table != COMMON or name not in chosen:
            chosen[name] = entry
    return chosen


def _raise_unknown(entry: Entry, known: Iterable[str]) -> None:
    """Raise the `SpecError` for a key that is none of the known ones."""
    hint = suggestions.question(suggestions.nearest(entry.key.replace("_", "-"), known))
    if entry.table == COMMON:
        remedy = f"{hint}it holds {', '.join(COMMON_KEYS)}; put others below [COMMAND]"
        raise SpecError(f"{entry.text}: no option of every command", remedy)
    raise SpecError(f"{entry.text}: no option of `mgc {entry.table}`", f"{hint}see `mgc {entry.table} --help`")


def value_of(entry: Entry, option: click.Option) -> Any:
    """Return the value of an entry as the command line would give it: a text, several texts, or a bool for a flag.

    Raises:
        SpecError: the value has a type that the option cannot have.
    """
    if option.is_flag:
        if not isinstance(entry.value, bool):
            raise SpecError(f"{entry.text}: a flag has no such value", "write true or false")
        return entry.value
    values = entry.value if isinstance(entry.value, list) and option.multiple else [entry.value]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            several = ", or several in brackets" if option.multiple else ""
            raise SpecError(f"{entry.text}: no value of this option", f"write a text or a number{several}")
    texts = [str(value) for value in values]
    return texts if option.multiple else texts[0]


# -- a command's options -------------------------------------------------------------------------------------------


def apply(command: click.Command, context: click.Context) -> None:
    """Let the file and the environment set the options of a command before its arguments are parsed.

    Args:
        command: the command.
        context: its new context.

    Raises:
        SpecError: a value of the file or the environment cannot be used; the message says where it stands.
    """
    root = context.find_root().command
    entries = read(root.list_commands(context) if isinstance(root, click.Group) else ())
    name = command.name or ""
    options = {option.name or "": option for option in options_of(command)}
    _require_known_variables(name, options.values())
    chosen = select(entries, command)
    values = {parameter: value_of(entry, options[parameter]) for parameter, entry in chosen.items()}
    for parameter, option in options.items():
        option.envvar = variables(name, option)
        if (variable := _used_variable(option)) is not None:
            shown = f"${variable} = {json.dumps(os.environ[variable], ensure_ascii=False)}"
            _check(option, context, option.value_from_envvar(context), shown)
        if parameter in values:
            _check(option, context, values[parameter], chosen[parameter].text)
    context.default_map = {**(context.default_map or {}), **values}
    context.meta[_META] = chosen


def _require_known_variables(command: str, options: Iterable[click.Option]) -> None:
    """Raise `SpecError` if an environment variable is named after the command, but after none of its options."""
    known = {name for option in options for name in variables(command, option)}
    prefix = _prefix(command)
    for variable in sorted(os.environ):
        if variable.startswith(prefix) and variable not in known:
            near = suggestions.nearest(variable.removeprefix(prefix), [n.removeprefix(prefix) for n in known])
            hint = suggestions.question(prefix + name for name in near)
            problem = f"${variable}: `mgc {command}` has no such option"
            raise SpecError(problem, f"{hint}unset it, or see `mgc config {command}`")


def _used_variable(option: click.Option) -> str | None:
    """Return the environment variable that sets an option; None if none does."""
    names = [option.envvar] if isinstance(option.envvar, str) else option.envvar or ()
    return next((name for name in names if os.environ.get(name)), None)


def _check(option: click.Option, context: click.Context, value: Any, shown: str) -> None:
    """Raise `SpecError`, which names the origin, if an option cannot have a value."""
    try:
        option.process_value(context, value)
    except click.ClickException as error:
        problem = " ".join(error.message.split()).rstrip(".")
        raise SpecError(f"{shown}: {problem}", f"correct it; see `mgc {context.info_name} --help`") from None
    except MgcError as error:
        raise SpecError(f"{shown}: {error.problem}", error.remedy) from None


def name_origin(error: UsageError, context: click.Context, command: click.Command) -> UsageError:
    """Add to an error about an option where its value comes from, if it was not typed."""
    for setting in settings(context, command):
        option = f"--{setting.key}"
        if setting.source not in ("command line", "default") and option in error.problem.split():
            return type(error)(f"{error.problem} ({option} is set by {setting.origin})", error.remedy)
    return error


@dataclass(frozen=True)
class Setting:
    """An option with its value, and where that comes from.

    Attributes:
        key: name of the option, without dashes.
        value: the value; None if there is none, and the command chooses.
        source: `command line`, `environment`, `mgc.toml` or `default`.
        origin: the same with the variable or the line.
    """

    key: str
    value: Any
    source: str
    origin: str


def settings(context: click.Context, command: click.Command) -> list[Setting]:
    """List the options of a command with values and origins, after its arguments were parsed.

    Args:
        context: context of the command.
        command: the command.
    """
    entries: dict[str, Entry] = context.meta.get(_META, {})
    rows = []
    for option in options_of(command):
        name = option.name or ""
        source = context.get_parameter_source(name)
        value, label, origin = context.params.get(name), "default", "default"
        if source is ParameterSource.COMMANDLINE:
            label = origin = "command line"
        elif source is ParameterSource.ENVIRONMENT:
            label, origin = "environment", f"${_used_variable(option)}"
        elif source is ParameterSource.DEFAULT_MAP:
            label, origin = FILE, entries[name].origin
        rows.append(Setting(key(option), value, label, origin))
    return rows


def value_text(value: Any) -> str:
    """Format the value of an option in one line; `-` where the command chooses."""
    if value is None or (isinstance(value, Sequence) and not isinstance(value, str) and not value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    return str(value)
