"""Removal of datasets, stores and runs of a workspace.

A folder is renamed to `.removing-NAME` first, and its files are deleted then. A kill leaves the folder as it was, or
remains that the inventory lists and the next removal finishes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mgc.models.housekeeping import inventory
from mgc.models.housekeeping.inventory import REMAINS_PREFIX, Item
from mgc.pipeline import suggestions
from mgc.pipeline.errors import MgcError, RunError, UsageError
from mgc.pipeline.storage import files
from mgc.pipeline.workspace import Workspace

#: Seconds without a change after which no training writes to an unfinished run: it saves its state every two minutes.
IDLE_SECONDS = 150.0


def choose(names: Sequence[str], items: list[Item], workspace: Workspace) -> list[Item]:
    """Choose the items that a user names, each once, in the order of the names.

    Args:
        names: paths below the workspace, last parts of them, or other paths of the folders.
        items: inventory of the workspace.
        workspace: the workspace.

    Raises:
        MgcError: a name stands for no item, or for something outside of the workspace, or for a link.
        UsageError: a name stands for several items.
    """
    chosen: dict[str, Item] = {}
    for name in names:
        item = _named(name, items, workspace)
        if item.is_link:
            raise MgcError(
                f"{item.path} is a link, or lies behind one", "remove the link yourself: rm removes no target"
            )
        chosen[item.name] = item
    # What lies in a chosen folder goes with it.
    return [item for item in chosen.values() if not any(item.name.startswith(f"{name}/") for name in chosen)]


def _named(name: str, items: list[Item], workspace: Workspace) -> Item:
    """Return the item with a name; see `choose`."""
    plain = name.rstrip("/")
    by_name = [item for item in items if item.name == plain]
    found = by_name or [item for item in items if _same_place(Path(name), item.path)]
    found = found or [item for item in items if item.path.name == plain]
    if len(found) == 1:
        return found[0]
    if found:
        names = " or ".join(item.name for item in found)
        raise UsageError(f"{name} is the name of {len(found)} folders", f"name {names}")
    path = Path(name)
    if path.exists() and not path.resolve().is_relative_to(workspace.root.resolve()):
        raise MgcError(
            f"{name} lies outside of the workspace {workspace.root}", "remove it yourself, or set --data-dir"
        )
    near = suggestions.nearest(plain, [other for item in items for other in (item.name, item.path.name)], cutoff=0.5)
    hint = suggestions.question(near)
    problem = f"{name} is no dataset, store, run or weights of {workspace.root}"
    raise MgcError(problem, f"{hint}`mgc list` shows what there is")


def _same_place(path: Path, other: Path) -> bool:
    """Whether two paths lead to one folder, without following a link in the last part."""
    return Path(os.path.abspath(path)) == Path(os.path.abspath(other))  # noqa: PTH100  (resolve follows links)


def require_idle(items: Iterable[Item], now: float | None = None) -> None:
    """Check that nothing works on the items.

    Args:
        items: stores, runs and others.
        now: the time, in seconds since 1970; None for now.

    Raises:
        StoreError: a process is writing to a store.
        RunError: an unfinished run was changed a moment ago: it may be trained now.
    """
    for item in items:
        if item.kind == "store" and (item.path / ".lock").exists():  # else none holds it, and a check would make it
            with _locked(item):
                pass
        age = (time.time() if now is None else now) - item.changed
        if item.kind == "run" and not item.finished and age < IDLE_SECONDS:
            problem = f"{item.path} is unfinished and was changed {max(0, age):.0f} s ago: it may be in training"
            raise RunError(problem, f"stop its training, and try again in {IDLE_SECONDS - age:.0f} s")


@contextlib.contextmanager
def _locked(item: Item) -> Iterator[None]:
    """Hold the write lock of a store; the context of other items does nothing."""
    if item.kind != "store":
        yield
        return
    from mgc.pipeline.store.lock import write_lock

    with files.translate_write_errors(item.path), write_lock(item.path):
        yield


def remove(item: Item, workspace: Workspace) -> None:
    """Remove an item with all its files, and what `latest.json` says of it.

    Raises:
        MgcError: it is in use, or cannot be removed.
    """
    root = workspace.root.resolve()
    if item.path.is_symlink() or not item.path.resolve().is_relative_to(root) or item.path.resolve() == root:
        raise MgcError(f"{item.path} is a link, or lies outside of the workspace", "remove it yourself")
    with files.translate_write_errors(item.path):
        remains = item.path
        if item.kind != "remains":
            remains = _free_name(item.path)
            with _locked(item):
                item.path.rename(remains)
            workspace.forget(item.path)
        shutil.rmtree(remains)
        if item.kind == "store":
            with contextlib.suppress(OSError):  # other stores, or caches
                item.path.parent.rmdir()


def _free_name(path: Path) -> Path:
    """A name for the remains of a folder, beside it."""
    number = 1
    while (remains := path.with_name(f"{REMAINS_PREFIX}{path.name}{'' if number == 1 else f'-{number}'}")).exists():
        number += 1
    return remains


def consequences(item: Item, items: list[Item], chosen: Sequence[Item]) -> list[str]:
    """Say in one line for each kind what needs an item and stays."""
    left = [other for other in inventory.dependents(item, items) if other not in chosen]
    meaning = {
        "store": ("store of it", "stores of it", "cannot be extended or extracted again without the dataset"),
        "run": ("run needs it", "runs need it", "cannot be evaluated again or resumed"),
    }
    lines = []
    for kind, (one, many, effect) in meaning.items():
        names = [other.name for other in left if other.kind == kind]
        if names:
            listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            lines.append(f"{len(names)} {one if len(names) == 1 else many} and {effect}: {listed}")
    return lines
