"""The runs of a workspace that `mgc compare` takes if none is named."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from mgc.models.compare import alignment, evaluated, groups
from mgc.models.compare.evaluated import EvaluatedRun, TrackSet
from mgc.models.runs.run import Run
from mgc.pipeline.errors import MgcError, RunError
from mgc.pipeline.workspace import Workspace


@dataclass(frozen=True)
class Found:
    """Evaluated runs on the same tracks.

    Attributes:
        runs: the runs.
        lines: which they are, and which others were left out, for the user.
    """

    runs: list[EvaluatedRun]
    lines: list[str]


def find(workspace: Workspace, scored: TrackSet, *, common: bool) -> Found:
    """Find the evaluated runs that have the tracks of the latest run; of the newest one, if that is not evaluated.

    Args:
        workspace: workspace of the runs.
        scored: tracks that they were evaluated on.
        common: also take runs that share some tracks with it only.

    Raises:
        RunError: no run has been evaluated on these tracks.
    """
    heads = sorted(workspace.runs.glob("*/config.json"), key=lambda head: (head.stat().st_mtime, head))
    lines, results = [], []
    for head in heads:
        try:
            if scored.path(head.parent, "metrics.json").is_file():
                results.append(evaluated.read(Run.open(head.parent), scored))
        except MgcError as error:
            lines.append(f"left out: {error.problem}")
    if not results:
        of = f" on {'' if scored.dataset else 'its '}{scored.words}" if scored.options else ""
        remedy = f"name runs, or `mgc evaluate RUN{scored.options}` first"
        raise RunError(f"no run in {workspace.root} has been evaluated{of}", remedy)
    first = _latest(workspace, results)
    reference = groups.Training((first,), first.tracks)
    taken = [run for run in results if _belongs(run, reference, scored, common=common)]
    others = f"; {len(results) - len(taken)} with other tracks left out" if len(taken) < len(results) else ""
    word = "run" if len(taken) == 1 else "runs"
    of = "" if scored.dataset else f" of {first.run.path}"
    lines.append(f"runs: {len(taken)} evaluated {word} on the {scored.words}{of}{others}")
    return Found(taken, lines)


def _latest(workspace: Workspace, results: list[EvaluatedRun]) -> EvaluatedRun:
    """The latest run of the workspace if it is among these, else the newest of them."""
    latest: Path | None = None
    with contextlib.suppress(RunError):
        latest = workspace.latest_run().resolve()
    return next((run for run in results if run.run.path.resolve() == latest), results[-1])


def _belongs(run: EvaluatedRun, reference: groups.Training, scored: TrackSet, *, common: bool) -> bool:
    """Whether a run has the tracks of another one, or is another fold of a system that is validated fold by fold."""
    if scored.is_own_validation and run.fold and reference.runs[0].fold and run.dataset == reference.runs[0].dataset:
        return run.fold[1] == reference.runs[0].fold[1]
    shared = alignment.same_tracks(reference, groups.Training((run,), run.tracks))
    return bool(shared) if common else len(shared) == len(run.tracks) == len(reference.tracks)
