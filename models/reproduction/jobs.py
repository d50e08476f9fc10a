"""Jobs of `mgc reproduce`: one for each system, protocol and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mgc.models.registry import overview, systems
from mgc.models.registry.systems import System

#: `leak-free`: all slices of a track are in one split. `published`: slices are dealt at random, as some studies did.
Protocol = Literal["leak-free", "published"]


@dataclass(frozen=True)
class Limits:
    """What shortens a reproduction; None for nothing.

    Attributes:
        epochs: maximum number of epochs.
        tracks: maximum number of training tracks of each genre, and of validation tracks.
    """

    epochs: int | None = None
    tracks: int | None = None

    def as_dict(self) -> dict[str, int | None]:
        """Convert to plain values for JSON."""
        return {"epochs": self.epochs, "tracks": self.tracks}


@dataclass(frozen=True)
class Job:
    """One system to train and evaluate.

    Attributes:
        system: the system.
        protocol: how its tracks or slices are dealt to splits.
        seed: seed of the training.
        limits: limits that apply to the system.
    """

    system: System
    protocol: Protocol
    seed: int
    limits: Limits

    @property
    def title(self) -> str:
        """The job in a few words."""
        return f"{self.system.id}, {self.protocol} split, seed {self.seed}"

    def settings(self) -> dict[str, Any]:
        """What identifies the job, whatever it is run on, as plain values."""
        return {
            "system": self.system.id,
            "protocol": self.protocol,
            "seed": self.seed,
            "limits": self.limits.as_dict(),
        }

    @property
    def members(self) -> list[Job]:
        """The jobs of an ensemble's members; empty for other systems."""
        return [Job(systems.get(id), self.protocol, self.seed, self.limits) for id in self.system.members]


def protocols(system: System) -> list[Protocol]:
    """The protocols of a system: two if its study dealt slices to splits, else one."""
    return ["published", "leak-free"] if system.recipe.dataset.published_unit == "slice" else ["leak-free"]


def plan(name: str, protocol: str, seeds: Sequence[int], limits: Limits) -> list[Job]:
    """List the jobs that a name stands for, members of ensembles before these.

    Args:
        name: id of a system, key of a study, or `all`: but for probes, whose networks may have to be downloaded.
        protocol: `published`, `leak-free` or `both`. A system with one protocol has that, whatever is asked for.
        seeds: seeds of the trainings. A system that does not depend on its seed gets the first one only.
        limits: what shortens the trainings.

    Raises:
        UnknownModelError: there is no such system or study.
    """
    named = [system for system in overview.systems_named(name) if name != "all" or not system.recipe.embedding]
    members = [systems.get(id) for system in named for id in system.members]
    ordered = sorted(dict.fromkeys([*members, *named]), key=lambda system: (system.kind == "ensemble", system.id))
    jobs = []
    for system in ordered:
        # Epochs are for networks; the members of an ensemble are some.
        own = limits if system.kind != "classical" else Limits(None, limits.tracks)
        chosen = [each for each in protocols(system) if protocol in (each, "both")] or protocols(system)
        own_seeds = seeds if system.uses_seed or limits.tracks is not None else seeds[:1]
        jobs += [Job(system, each, seed, own) for each in chosen for seed in own_seeds]
    return jobs
