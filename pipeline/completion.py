"""The command `mgc completion`, and what the shell offers for the arguments of other commands.

Each function takes the context, the parameter and the beginning of a word, and returns what may be meant. They read
names of folders only, so that a shell waits for the start of Python and no more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from mgc.pipeline import console, help_groups

#: A function that completes the beginning of a word.
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
#: Pattern of the files that make a folder a store or a run, below the workspace.
_STORES, _RUNS = "features/*/*/store.json", "runs/*/config.json"
SHELLS = ("bash", "zsh", "fish")


@help_groups.command()
@click.argument("shell", type=click.Choice(SHELLS))
@console.common_options
@click.pass_context
def completion(context: click.Context, shell: str, data_dir: Path) -> int:
    """Print the script by which a shell completes commands, options, runs, stores, models and features.

    \b
    Install it once; it works in new shells:
      bash   mgc completion bash > ~/.local/share/bash-completion/completions/mgc
      zsh    mgc completion zsh > "${fpath[1]}/_mgc"
      fish   mgc completion fish > ~/.config/fish/completions/mgc.fish
    Or for this shell alone, in bash and zsh: source <(mgc completion bash)
    """
    script_class = get_completion_class(shell)
    assert script_class is not None, shell  # click has all three
    script = script_class(context.find_root().command, {}, "mgc", "_MGC_COMPLETE")
    # Not by `source`: click asks bash for its version there, which the machine that prints the script need not have.
    console.echo_text((script.source_template % script.source_vars()).strip("\n"))
    return 0


def commands(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of commands."""
    group = context.find_root().command
    return _matching(group.list_commands(context) if isinstance(group, click.Group) else (), incomplete)


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Ids of the systems that mgc brings along."""
    text = (resources.files("mgc.manifests") / "systems.json").read_text(encoding="utf-8")
    return _matching((system["id"] for system in json.loads(text)), incomplete)


def features(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of features."""
    from mgc.pipeline.features import feature_names

    return _matching(feature_names(), incomplete)


def _folders(*patterns: str) -> Completer:
    """Create the completion of stores or runs of the workspace, the newest first, besides other paths."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        named = context.params.get("data_dir")
        workspace = Path(named or os.environ.get("MGC_DATA") or "data")
        heads = [head for pattern in patterns for head in workspace.glob(pattern)]
        heads.sort(key=lambda head: head.stat().st_mtime, reverse=True)
        names = [str(head.parent) for head in heads]
        # A run is also found by the beginning of its own name.
        found = [name for name in names if name.startswith(incomplete) or Path(name).name.startswith(incomplete)]
        return [*map(CompletionItem, found)] or [CompletionItem(incomplete, type="file")]

    return complete


#: Folders of stores, of runs, and of both.
stores, runs, stores_and_runs = _folders(_STORES), _folders(_RUNS), _folders(_STORES, _RUNS)


def run_then_files(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Runs for the first of several arguments, files for the others."""
    if context.params.get(parameter.name or ""):
        return [CompletionItem(incomplete, type="file")]
    return runs(context, parameter, incomplete)


def names_in_workspace(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names by which `mgc remove` knows stores and runs: paths below the workspace."""
    workspace = Path(context.params.get("data_dir") or os.environ.get("MGC_DATA") or "data")
    heads = (head for pattern in (_STORES, _RUNS) for head in workspace.glob(pattern))
    return _matching(sorted(head.parent.relative_to(workspace).as_posix() for head in heads), incomplete)


def _matching(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
