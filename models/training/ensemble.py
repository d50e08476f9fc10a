"""Ensembles: runs without weights of their own, which predict the mean of their members' probabilities.

The folder of an ensemble holds a configuration and tracks like that of any other run. The configuration refers to each
member by its path relative to that folder, and records the SHA-256 of its weights, so that a member that was trained
again is noticed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from mgc.models.data.store_candidates import StoreCandidates
from mgc.models.registry import systems
from mgc.models.registry.systems import System
from mgc.models.runs.run import Run, relative_store_path
from mgc.models.training.loop import Echo
from mgc.models.training.options import Options
from mgc.pipeline.errors import RunError, SpecError
from mgc.pipeline.store.store import Store


def train_members(
    system: System,
    candidates: StoreCandidates,
    options: Options,
    train: Callable[[list[Store], Options], Run],
    finished: Sequence[Run] = (),
    echo: Echo = print,
) -> list[Run]:
    """Train the members of an ensemble one after the other, each as a run of its own.

    Args:
        system: ensemble.
        candidates: stores to train the members on.
        options: settings that the user chose, for every member.
        train: trains the run of a member on its stores.
        finished: finished runs of members, which are not trained again.
        echo: prints a line.

    Returns:
        A finished run of each member, in the order of `system.members`.

    Raises:
        ModelError: no store fits an input of a member.
        SpecError: a finished run belongs to no member, two belong to the same one, or options name initial weights.
        RunError: a run in `finished` is unfinished.
        MgcError: the errors of `mgc.models.training.train.train`.
    """
    if options.weights is not None:
        raise SpecError(f"--weights: {system.id} has {len(system.members)} members", "leave the option out")
    runs = {run.model: run for run in finished}
    for run in finished:
        _require_member(system, run, runs[run.model])
    # The stores of all members before the first is trained: a missing one must not be noticed hours later.
    stores = {id: candidates.choose(systems.get(id)) for id in system.members if id not in runs}
    candidates.require_all_used([store for chosen in stores.values() for store in chosen], system.id)
    for id, member_stores in stores.items():
        paths = " and ".join(str(store.path) for store in member_stores)
        echo(f"member {system.members.index(id) + 1} of {len(system.members)}: {id} on {paths}")
        try:
            runs[id] = train(member_stores, dataclasses.replace(options, model=id))
        except KeyboardInterrupt:
            named = "".join(f" --member {shlex.quote(str(run.path))}" for run in runs.values())
            echo(f"then `mgc train --model {system.id}{named} --member RUN` trains what is left; RUN is the one above")
            raise
    return [runs[id] for id in system.members]


def join(system: System, members: Sequence[Run], folder: Path) -> Run:
    """Create the run of an ensemble from finished runs of its members.

    Args:
        system: ensemble.
        members: run of each member, in the order of `system.members`.
        folder: folder of runs.

    Raises:
        RunError: the members differ in their classes or their test tracks.
    """
    first, *others = members
    for run in others:
        _require_same_data(first, run)
    store = first.config["store"]
    config = {
        "kind": system.kind,
        "params": sum(run.config["params"] or 0 for run in members),
        "store": store | {"from_runs": relative_store_path(first.store_path, folder)},
        "frames": first.frames,
        "training": None,
        "seed": first.config["seed"],
        "differences": list(dict.fromkeys(line for run in members for line in run.config["differences"])),
        "by_recipe": all(run.config.get("by_recipe", False) for run in members),
        "split_unit": first.config.get("split_unit", "track"),
        "split_seed": first.config.get("split_seed"),
        "leaky": any(run.config["leaky"] for run in members),
    }
    # Paths relative to the run's folder, whose name in `folder` is not known yet and does not matter.
    run_folder = folder.resolve() / "ensemble"
    entries = []
    for run in members:
        weights, path = _weights(run), os.path.relpath(run.path.resolve(), run_folder)
        entries.append({"model": run.model, "run": path, "weights": weights.name, "sha256": _digest(weights)})
    ensemble = Run.create(folder, system.id, config | {"members": entries}, first.selection)
    ensemble.finish({"members": len(members)})
    return ensemble


def members_of(run: Run) -> list[Run]:
    """Open the members of an ensemble.

    Args:
        run: any run.

    Returns:
        The members in their order; the run itself if it is not an ensemble.

    Raises:
        RunError: a member is missing, or its weights have changed since the ensemble was created.
    """
    if run.config.get("kind") != "ensemble":
        return [run]
    members = []
    for entry in run.config["members"]:
        path = Path(os.path.normpath(run.path.resolve() / entry["run"]))
        remedy = f"restore it, or make a new ensemble: `mgc train --model {run.model} --member RUN ...`"
        weights = path / entry["weights"]
        if not (path / "config.json").is_file() or not weights.is_file():
            raise RunError(f"{run.path}: its member {path} is missing", remedy)
        if _digest(weights) != entry["sha256"]:
            raise RunError(f"{run.path}: its member {path} has changed since: {weights.name} is another", remedy)
        members.append(Run.open(path))
    return members


def _require_member(system: System, run: Run, run_of_model: Run) -> None:
    """Raise an error unless `run` is finished and the only one given for a member of the ensemble."""
    if run.model not in system.members:
        problem = f"--member {run.path}: {run.model} is none of {system.id}"
        raise SpecError(problem, f"it has {', '.join(system.members)}")
    if run is not run_of_model:
        problem = f"--member: {run.path} and {run_of_model.path} are both of {run.model}"
        raise SpecError(problem, "name one of each")
    if not run.finished:
        raise RunError(f"{run.path} is unfinished", f"continue it: `mgc train --resume --run {run.path}`")


def _require_same_data(first: Run, run: Run) -> None:
    """Raise `RunError` if two members differ in their classes or their test tracks."""
    remedy = "train them on stores of one dataset with one split"
    names = f"{first.path.name} and {run.path.name}"
    if first.classes != run.classes:
        raise RunError(f"{names} make no ensemble: they have different genres", remedy)
    test_ids: list[set[Any]] = []
    for member in (first, run):
        tracks = member.selection.tracks
        test_ids.append(set(tracks["track_id"].filter(pc.equal(tracks["split"], "test")).to_pylist()))
    if unshared := test_ids[0] ^ test_ids[1]:
        problem = f"{len(unshared)} tracks, such as {min(unshared)}, are in the test split of one only"
        raise RunError(f"{names} make no ensemble: {problem}", remedy)


def _weights(run: Run) -> Path:
    return run.path / run.model_file()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
