"""Console: the command group with one-line errors, path types, common options, and progress bars."""

from __future__ import annotations

import contextlib
import enum
import functools
import importlib
import json
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.exceptions import NoSuchCommand

from mgc.pipeline import help_groups, settings, troubleshooting, wrapping
from mgc.pipeline.errors import MgcError, SpecError
from mgc.pipeline.escaping import visible, visible_json, visible_lines
from mgc.pipeline.storage import urls

#: Narrowest and widest layout of text, in columns. Narrower tables would lose their names.
MIN_WIDTH, MAX_WIDTH = 80, 100


class PathOrUrl(click.Path):
    """Click parameter type: a local path, or a URL.

    Args:
        remote: True if URLs are accepted.
    """

    def __init__(self, *, remote: bool) -> None:
        super().__init__(path_type=Path)
        self._remote = remote

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert the text to a `Path` or a `RemotePath`.

        Raises:
            SpecError: the URL is invalid, or URLs are not accepted.
        """
        url = urls.parse_url(value) if isinstance(value, str) else None
        if url is None:
            return super().convert(value, param, ctx)
        if not self._remote:
            raise SpecError(f"{url}: a URL cannot be used here", "name a path on this machine")
        return url

    def split_envvar_value(self, rv: str) -> list[str]:
        """Split the value of an environment variable at colons, but for those of URLs."""
        return [part for part in re.split(r":(?!//)", rv) if part]


#: Parameter type of options that take a local path.
LOCAL_PATH = PathOrUrl(remote=False)
#: Parameter type of options that take a local path or a URL.
PATH_OR_URL = PathOrUrl(remote=True)


def choice(*names: str) -> click.Choice[str]:
    """Create the type of an option with a closed set of values; upper and lower case do not differ."""
    return click.Choice(names, case_sensitive=False)


class _Interrupted(Exception):
    """Ctrl-C. Click would turn a KeyboardInterrupt into an Abort, and print an empty line even without a terminal."""


class LazyCommands(Mapping[str, click.Command]):
    """Commands by name; a command's module is imported when the command is looked up.

    Args:
        locations: `{command name: "module:object"}`.
    """

    def __init__(self, locations: Mapping[str, str]) -> None:
        self._locations = locations

    def __getitem__(self, name: str) -> click.Command:
        module, _, command = self._locations[name].partition(":")
        return getattr(importlib.import_module(module), command)

    def __contains__(self, name: object) -> bool:
        return name in self._locations

    def __iter__(self) -> Iterator[str]:
        return iter(self._locations)

    def __len__(self) -> int:
        return len(self._locations)


class CommandGroup(click.Group):
    """A click group that prints each error as one line on stderr: `error: PROBLEM; REMEDY`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Create the context; its `obj` is the list of command-line arguments."""
        return super().make_context(info_name, args, parent, **extra | {"obj": list(args)})

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            _Interrupted: the user pressed Ctrl-C.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                echo(err=True)  # ends the line on which the terminal shows ^C
            raise _Interrupted from None

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line and exit with the codes that `mgc.pipeline.errors` describes."""
        _state.verbosity, _state.shows_tracebacks = Verbosity.NORMAL, "--debug" in sys.argv
        sys.exit(self._run(*args, **kwargs | {"standalone_mode": False}))

    def _run(self, *args: Any, **kwargs: Any) -> int:
        try:
            return super().main(*args, **kwargs) or 0
        except click.exceptions.Exit as stop:
            return stop.exit_code
        except click.exceptions.NoArgsIsHelpError as error:
            echo_text(error.format_message())
            return 0
        except click.ClickException as error:
            _prefer_other_case(error)
            usage = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "mgc"
            return _print_error(_one_line(error.format_message()).rstrip("."), f"see `{usage} --help`", error.exit_code)
        except (_Interrupted, click.Abort, KeyboardInterrupt):
            remedy = "finished work is kept: run the same command again to continue, training with --resume"
            return _print_error("interrupted", remedy, 130)
        except MgcError as error:
            return _print_error(error.problem, error.remedy, error.exit_code)
        except OSError as error:
            if not urls.is_url(error.filename):
                return _print_bug(error)
            from mgc.pipeline.storage.files import explain_server_error

            explained = explain_server_error(error)
            return _print_error(explained.problem, explained.remedy, 1)
        except Exception as error:
            return _print_bug(error)


def _prefer_other_case(error: click.ClickException) -> None:
    """Let the error of an unknown command or option suggest one that differs in upper and lower case only."""
    if not isinstance(error, click.NoSuchOption | NoSuchCommand) or error.ctx is None:
        return
    command = error.ctx.command
    if isinstance(error, click.NoSuchOption):
        word, names = error.option_name, [name for option in command.get_params(error.ctx) for name in option.opts]
    else:
        word, names = error.command_name, command.list_commands(error.ctx) if isinstance(command, click.Group) else []
    same = [name for name in names if name.casefold() == word.casefold()]
    if same:
        error.possibilities = same  # type: ignore[misc]  # Final in click: nothing else sets it


def _print_bug(error: Exception) -> int:
    problem = f"{type(error).__name__}: {_one_line(str(error))}"
    return _print_error(problem, "this is a bug in mgc; `--debug` shows where", 1)


def _print_error(problem: str, remedy: str, code: int) -> int:
    """Print an error on stderr, after its traceback if `--debug` is given, and return the exit code."""
    if _state.shows_tracebacks and code != 130:
        _print(visible_lines(traceback.format_exc()), err=True)
    message = problem + (f"; {remedy}" if remedy else "")
    warn(f"error: {message}")
    if _state.verbosity is Verbosity.VERBOSE and (address := troubleshooting.address(message)):
        warn(f"more: {address}")
    return code


def _one_line(text: str) -> str:
    return " ".join(text.split())


def run_command(context: click.Context, arguments: list[str]) -> None:
    """Run another command of the same group.

    Args:
        context: context of the running command.
        arguments: name of the other command, and its arguments as a user would type them.

    Raises:
        LookupError: there is no such command.
    """
    name, *rest = arguments
    group = context.find_root().command
    command = group.get_command(context, name) if isinstance(group, click.Group) else None
    if command is None:
        raise LookupError(name)
    with command.make_context(name, rest, parent=context.find_root()) as command_context:
        command.invoke(command_context)


class Verbosity(enum.Enum):
    """How much a command prints: `QUIET` results and errors, `VERBOSE` also settings and times."""

    QUIET = enum.auto()
    NORMAL = enum.auto()
    VERBOSE = enum.auto()


class _State:
    """What the options of the running command say about its output."""

    verbosity = Verbosity.NORMAL
    shows_tracebacks = False


_state = _State()
#: Sources of values, the one that decides first.
_SOURCES = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)


def common_options(command: Callable) -> Callable:
    """Add the options of every command: `--data-dir`, `--quiet`, `--verbose` and `--debug`."""

    @functools.wraps(command)
    def run(*arguments: Any, quiet: bool, verbose: bool, debug: bool, **options: Any) -> Any:
        context = click.get_current_context()
        before = _state.verbosity
        _state.verbosity = _chosen_verbosity(context, quiet=quiet, verbose=verbose) or before
        _state.shows_tracebacks |= debug
        if _state.verbosity is not Verbosity.VERBOSE:
            return command(*arguments, **options)
        for setting in settings.settings(context, context.command):
            if setting.source != "default":
                note(f"{setting.key}: {settings.value_text(setting.value)} ({setting.origin})", err=True)
        processor = time.process_time()
        with phase(f"mgc {context.info_name}"):
            code = command(*arguments, **options)
        note(f"processor time of this process: {time.process_time() - processor:.2f} s", err=True)
        return code

    return with_options(
        run,
        help_groups.group(help_groups.GENERAL),
        click.option(
            "--data-dir",
            type=LOCAL_PATH,
            default="data",
            envvar="MGC_DATA",
            show_default=True,
            help="Workspace of datasets, stores and runs [$MGC_DATA].",
        ),
        click.option("--quiet", is_flag=True, help="Print results and errors only."),
        click.option("--verbose", is_flag=True, help="Also print where settings come from, and times."),
        click.option("--debug", is_flag=True, help="Show where an error comes from."),
    )


def _chosen_verbosity(context: click.Context, *, quiet: bool, verbose: bool) -> Verbosity | None:
    """Return what --quiet and --verbose ask for; None if neither is given. Of both, the stronger source decides.

    Raises:
        SpecError: the same source gives both.
    """
    if quiet and verbose:
        sources = [context.get_parameter_source(name) for name in ("quiet", "verbose")]
        if sources[0] == sources[1]:
            raise SpecError("--quiet and --verbose contradict each other", "leave one of them out")
        quiet = next(source for source in _SOURCES if source in sources) == sources[0]
    return Verbosity.QUIET if quiet else Verbosity.VERBOSE if verbose else None


def is_quiet() -> bool:
    """Whether the running command prints results and errors only."""
    return _state.verbosity is Verbosity.QUIET


def hides_bars() -> bool | None:
    """Value of tqdm's `disable`: True for --quiet, else None, which hides bars without a terminal."""
    return True if is_quiet() else None


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Print the time that a block takes, with --verbose, also if it fails.

    Args:
        name: what the block does.
    """
    start = time.perf_counter()
    try:
        yield
    finally:
        if _state.verbosity is Verbosity.VERBOSE:
            note(f"{name}: {time.perf_counter() - start:.2f} s", err=True)


def json_option(command: Callable) -> Callable:
    """Add `--json`, which prints JSON instead of text."""
    option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    return help_groups.group(help_groups.GENERAL)(option(command))


def with_options(command: Callable, *options: Callable) -> Callable:
    """Add options to a command; its help lists them in the given order."""
    for option in reversed(options):
        command = option(command)
    return command


def echo(*lines: object, err: bool = False) -> None:
    """Print lines, an empty one if there is none. All output for users goes through the functions of this module.

    On stdout they are results. On stderr they are remarks, which `--quiet` leaves out; `warn` is for what must be read.
    Characters that a terminal obeys, a newline within a line included, are escaped: names come from strangers' files.

    Args:
        lines: the lines, without newlines of their own.
        err: print on stderr.
    """
    if not (err and is_quiet()):
        _print("\n".join(visible(str(line)) for line in lines), err)


def warn(line: str) -> None:
    """Print a line on stderr also with `--quiet`: an error, or what a result lacks."""
    _print(visible(line), err=True)


def echo_text(text: str, *, err: bool = False) -> None:
    """Print a text of several lines like `echo`; names in it are escaped already, or their newlines break its lines."""
    if not (err and is_quiet()):
        _print(visible_lines(text), err)


def _print(text: str, err: bool) -> None:
    """Print a text above the progress bar, if there is one."""
    tqdm = sys.modules.get("tqdm")
    with tqdm.tqdm.external_write_mode() if tqdm is not None else contextlib.nullcontext():
        click.echo(text, err=err)


def width() -> int:
    """Columns that text is laid out in: those of the terminal, from 80, as without one, to 100: longer lines tire."""
    return max(MIN_WIDTH, min(MAX_WIDTH, shutil.get_terminal_size((wrapping.WIDTH, 24)).columns))


def note(line: str, *, err: bool = False) -> None:
    """Print a remark, wrapped on a terminal; `--quiet` leaves it out.

    Elsewhere than on a terminal, as in a log that is searched, it stays one line.
    """
    if is_quiet():
        return
    echo(*wrapping.wrap(visible(line), width(), indent=2) if _is_terminal(err) else [line], err=err)


def result(line: str) -> None:
    """Print a line of the result on stdout, wrapped on a terminal like `note`."""
    echo(*wrapping.wrap(visible(line), width(), indent=2) if _is_terminal(False) else [line])


def show_command(words: str) -> None:
    """Print a command that runs next, as a user would type it, below an empty line; `--quiet` leaves it out."""
    if not is_quiet():
        echo("", f"$ mgc {words}")


def _is_terminal(err: bool) -> bool:
    return (sys.stderr if err else sys.stdout).isatty()


def note_printer(to_stderr: bool) -> Callable[[str], None]:
    """Create a function that prints a line for the user by `note`.

    Args:
        to_stderr: True to print on stderr, as when stdout is for JSON.
    """
    return lambda line: note(line, err=to_stderr)


def print_json(value: Any) -> None:
    """Print plain values as indented JSON on stdout."""
    click.echo(visible_json(json.dumps(value, indent=2, ensure_ascii=False)))


def progress_bar(label: str, unit: str) -> Callable[[int], contextlib.AbstractContextManager]:
    """Create a progress bar: tqdm on a terminal, else one line on stderr for each tenth of the work; none if quiet.

    Args:
        label: name of the work.
        unit: singular noun for what is counted, such as `track`.

    Returns:
        A function of the total count that returns a context manager; its value is called with each increment.
    """

    @contextlib.contextmanager
    def bar(total: int) -> Iterator[Callable[[int], None]]:
        if is_quiet():
            yield lambda step: None
            return
        if sys.stderr.isatty():
            from tqdm import tqdm

            with tqdm(total=total, desc=label, unit=unit) as terminal_bar:
                yield terminal_bar.update
            return
        count = printed = 0

        def advance(step: int) -> None:
            nonlocal count, printed
            count += step
            if count == total or (count - printed) * 10 >= total:
                printed = count
                echo(f"{label}: {count} of {total} {unit}s", err=True)

        yield advance

    return bar
