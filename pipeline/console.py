"""What all commands share: the group that loads them, errors as one line, progress bars, common options."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from mgc.pipeline.errors import MgcError, SpecError
from mgc.pipeline.storage import urls


class PathOrUrl(click.Path):
    """A path on this machine, or a URL.

    Args:
        remote: whether it may be a URL.
    """

    def __init__(self, *, remote: bool) -> None:
        super().__init__(path_type=Path)
        self._remote = remote

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path."""
        url = urls.parse_url(value) if isinstance(value, str) else None
        if url is None:
            return super().convert(value, param, ctx)
        if not self._remote:
            raise SpecError(f"{url}: a URL", "name a path on this machine here")
        return url


#: A path on this machine.
LOCAL_PATH = PathOrUrl(remote=False)
#: The same, or a URL.
PATH_OR_URL = PathOrUrl(remote=True)


class _Interrupted(Exception):
    """Ctrl-C. Click would make an Abort of a KeyboardInterrupt and print an empty line, terminal or not."""


class LazyCommands(Mapping[str, click.Command]):
    """Commands by name, each imported when it is asked for.

    Args:
        places: `module:object` of each command.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> click.Command:
        module, _, command = self._places[name].partition(":")
        return getattr(importlib.import_module(module), command)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class CommandGroup(click.Group):
    """A group whose errors are one line on stderr: what is wrong; what to do."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context, whose `obj` is the command line."""
        return super().make_context(info_name, args, parent, **extra | {"obj": list(args)})

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                click.echo(err=True)  # the terminal shows ^C
            raise _Interrupted from None

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line and exit: 0, 1 for an error, 2 for wrong usage, 130 when interrupted."""
        sys.exit(self._run(*args, **kwargs | {"standalone_mode": False}))

    def _run(self, *args: Any, **kwargs: Any) -> int:
        try:
            return super().main(*args, **kwargs) or 0
        except click.exceptions.Exit as stop:
            return stop.exit_code
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            return 0
        except click.ClickException as error:
            usage = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "mgc"
            return _fail(_one_line(error.format_message()).rstrip("."), f"see `{usage} --help`", 2)
        except (_Interrupted, click.Abort, KeyboardInterrupt):
            return _fail("interrupted", "what is done is kept: the same command goes on, training with --resume", 130)
        except SpecError as error:
            return _fail(error.problem, error.remedy, 2)
        except MgcError as error:
            return _fail(error.problem, error.remedy, 1)
        except OSError as error:
            if not urls.is_url(error.filename):
                return _fault(error)
            from mgc.pipeline.storage.files import explain_server_error

            explained = explain_server_error(error)
            return _fail(explained.problem, explained.remedy, 1)
        except Exception as error:
            return _fault(error)


def _fault(error: Exception) -> int:
    problem = f"{type(error).__name__}: {_one_line(str(error))}"
    return _fail(problem, "this is a fault in mgc; `--debug` shows where", 1)


def _fail(problem: str, remedy: str, code: int) -> int:
    if "--debug" in sys.argv and code != 130:
        traceback.print_exc()
    click.echo(f"error: {_one_line(problem)}" + (f"; {_one_line(remedy)}" if remedy else ""), err=True)
    return code


def _one_line(text: str) -> str:
    return " ".join(text.split())


def run_command(context: click.Context, words: list[str]) -> None:
    """Run another command of the same group, as if `words` (its name and arguments) had been typed."""
    name, *rest = words
    group = context.find_root().command
    command = group.get_command(context, name) if isinstance(group, click.Group) else None
    if command is None:
        raise LookupError(name)
    with command.make_context(name, rest, parent=context.find_root()) as inner:
        command.invoke(inner)


def common_options(command: Callable) -> Callable:
    """Options of every command."""
    data_dir = click.option(
        "--data-dir",
        type=LOCAL_PATH,
        default="data",
        envvar="MGC_DATA",
        show_default=True,
        help="Workspace of datasets, stores and runs [$MGC_DATA].",
    )
    debug = click.option("--debug", is_flag=True, expose_value=False, help="Show where an error comes from.")
    return data_dir(debug(command))


def json_option(command: Callable) -> Callable:
    """`--json`: print plain values instead of text."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def with_options(command: Callable, *options: Callable) -> Callable:
    """A command with options, which its help lists in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def note_printer(quiet: bool) -> Callable[[str], None]:
    """Notes for the user: on stdout, or on stderr where stdout is for JSON."""
    return lambda line: click.echo(line, err=quiet)


def print_json(value: Any) -> None:
    """Plain values as indented JSON, on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def progress_bar(label: str, unit: str) -> Callable[[int], contextlib.AbstractContextManager]:
    """A tqdm bar on a terminal; plain lines, a tenth of the work each, elsewhere."""

    @contextlib.contextmanager
    def shown_as(total: int) -> Iterator[Callable[[int], None]]:
        if sys.stderr.isatty():
            from tqdm import tqdm

            with tqdm(total=total, desc=label, unit=unit) as shown:
                yield shown.update
            return
        done = said = 0

        def advance(step: int) -> None:
            nonlocal done, said
            done += step
            if done == total or (done - said) * 10 >= total:
                said = done
                click.echo(f"{label}: {done} of {total} {unit}s", err=True)

        yield advance

    return shown_as
