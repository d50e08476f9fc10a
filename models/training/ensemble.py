"""Ensembles: runs that refer to other runs, the members, and predict the mean of their probabilities.

The folder of such a run has the configuration and the tracks of any other, and no weights. Its configuration names each
member by its path from that folder, and holds the digest of its weights: the ensemble is of these, and no others.
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

from mgc.models.data.sources import StoreCandidates
from mgc.models.parallel.ranks import SINGLE_PROCESS, Ranks
from mgc.models.registry import systems
from mgc.models.registry.systems import System
from mgc.models.runs.run import Run, relative_store_path
from mgc.models.training.loop import Echo
from mgc.models.training.train import Options, train
from mgc.pipeline.errors import RunError, SpecError
from mgc.pipeline.store.store import Store


def train_members(
    system: System,
    offer: StoreCandidates,
    options: Options,
    folder: Path,
    members: Sequence[Run] = (),
    echo: Echo = print,
    begun: Callable[[Run], object] = lambda run: None,
    ranks: Ranks = SINGLE_PROCESS,
) -> Run:
    """Train the members of an ensemble one after the other, each as a run of its own, and write a run that joins them.

    Args:
        system: the ensemble.
        offer: the stores that the members are trained on.
        options: what the user chose, for each of them.
        folder: where runs are kept.
        members: finished runs to take instead of training these members.
        echo: prints a line.
        begun: told each run before it is trained.
        ranks: see `mgc.models.training.train.train`.

    Returns:
        The run of the ensemble.

    Raises:
        ModelError: a member has no store that it can be made from.
        SpecError: a run is given that is no member.
        RunError: a run is unfinished, or the runs do not belong together.
        MgcError: what `mgc.models.training.train.train` raises.
    """
    if options.weights is not None:
        raise SpecError(f"--weights: {system.id} has {len(system.members)} members", "leave the option out")
    done = {run.model: run for run in members}
    for run in members:
        _require_member(system, run, done[run.model])
    # Before the first of them is trained: what is missing for the last one should not be told hours later.
    stores = {id: offer.choose(systems.get(id)) for id in system.members if id not in done}
    offer.require_all_used([store for chosen in stores.values() for store in chosen], system.id)
    for id, (first, *further) in stores.items():
        echo(f"member {system.members.index(id) + 1} of {len(system.members)}: {_named(id, [first, *further])}")
        chosen = dataclasses.replace(options, model=id)
        try:
            done[id] = train(first, chosen, folder, echo=echo, begun=begun, further=further, ranks=ranks)
        except KeyboardInterrupt:
            given = "".join(f" --member {shlex.quote(str(run.path))}" for run in done.values())
            echo(f"then `mgc train --model {system.id}{given} --member RUN` trains what is left; RUN is the one above")
            raise
    return join(system, [done[id] for id in system.members], folder)


def join(system: System, members: Sequence[Run], folder: Path) -> Run:
    """A run of an ensemble of finished runs.

    Args:
        system: the ensemble.
        members: a run of each of its members, in their order.
        folder: where runs are kept.

    Raises:
        RunError: the members have other classes or test tracks than the first one.
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
        "leaky": any(run.config["leaky"] for run in members),
    }
    # From the folder of the ensemble, which lies in `folder` whatever its name will be.
    inside = folder.resolve() / "ensemble"
    described = []
    for run in members:
        weights, path = _weights(run), os.path.relpath(run.path.resolve(), inside)
        described.append({"model": run.model, "run": path, "weights": weights.name, "sha256": _digest(weights)})
    made = Run.create(folder, system.id, config | {"members": described}, first.selection)
    made.finish({"members": len(members)})
    return made


def members_of(run: Run) -> list[Run]:
    """The members of an ensemble; the run itself where it is none.

    Raises:
        RunError: a member is missing, or no longer the one that the ensemble was made of.
    """
    if run.config.get("kind") != "ensemble":
        return [run]
    found = []
    for member in run.config["members"]:
        path = Path(os.path.normpath(run.path.resolve() / member["run"]))
        remedy = f"restore it, or make a new ensemble: `mgc train --model {run.model} --member RUN ...`"
        weights = path / member["weights"]
        if not (path / "config.json").is_file() or not weights.is_file():
            raise RunError(f"{run.path}: its member {path} is missing", remedy)
        if _digest(weights) != member["sha256"]:
            raise RunError(f"{run.path}: its member {path} has changed since: {weights.name} is another", remedy)
        found.append(Run.open(path))
    return found


def _require_member(system: System, run: Run, known: Run) -> None:
    if run.model not in system.members:
        raise SpecError(
            f"--member {run.path}: {run.model} is none of {system.id}", f"it has {', '.join(system.members)}"
        )
    if run is not known:
        raise SpecError(f"--member: {run.path} and {known.path} are both of {run.model}", "name one of each")
    if not run.finished:
        raise RunError(f"{run.path} is unfinished", f"continue it: `mgc train --resume --run {run.path}`")


def _require_same_data(first: Run, run: Run) -> None:
    remedy = "train them on stores of one dataset with one split"
    if first.classes != run.classes:
        raise RunError(f"{first.path.name} and {run.path.name} make no ensemble: other genres", remedy)
    tests: list[set[Any]] = []
    for one in (first, run):
        tracks = one.selection.tracks
        tests.append(set(tracks["track_id"].filter(pc.equal(tracks["split"], "test")).to_pylist()))
    if odd := tests[0] ^ tests[1]:
        problem = f"{len(odd)} tracks, such as {min(odd)}, are in the test split of one only"
        raise RunError(f"{first.path.name} and {run.path.name} make no ensemble: {problem}", remedy)


def _weights(run: Run) -> Path:
    return run.path / ("model.skops" if run.config["kind"] == "classical" else "best.pt")


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _named(id: str, stores: Sequence[Store]) -> str:
    return f"{id} on {' and '.join(str(store.path) for store in stores)}"
