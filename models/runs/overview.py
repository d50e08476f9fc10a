"""The output of `mgc info` for a run, as plain values for `--json` and as text."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from mgc.models.runs.run import Run
from mgc.pipeline import wrapping
from mgc.pipeline.escaping import visible
from mgc.pipeline.wrapping import WIDTH, wrap


def describe_run(run: Run) -> dict[str, Any]:
    """Describe a run as plain values: configuration, history and result."""
    return {
        "run": str(run.path),
        "finished": run.finished,
        **run.config,
        "history": run.history,
        "summary": run.summary,
    }


def leak_reason(config: dict[str, Any]) -> str:
    """Say why a leaky run is leaky, from its configuration."""
    if heard := config.get("heard_test_tracks"):
        return f"the files of {heard:,} test tracks are also training or validation tracks, byte for byte"
    asked = " (--split-unit slice)" if config.get("split_unit") == "slice" else ""
    return f"slices of one track are in several splits{asked}"


def refit_line(run: Run) -> str:
    """Say what the model in use of a run with a refit learnt from."""
    n_tracks = run.selection.tracks["split"].to_pylist().count("validation")
    return f"the model in use also learnt from the {n_tracks:,} validation tracks"


def study_lines(differences: Sequence[str], run: str, *, listed: bool) -> list[str]:
    """Lines on how a run differs from the study of its system; none if it does not.

    Args:
        differences: settings that differ.
        run: path of the run, for the command that lists them; `RUN` for several runs.
        listed: give a line to each difference instead of counting them, as for a run that was to follow the study.
    """
    if listed or not differences:
        return [f"differs from the study: {difference}" for difference in differences]
    return [f"not as published: {_count(differences)}, see `mgc info {run if run == 'RUN' else shlex.quote(run)}`"]


def _count(differences: Sequence[str]) -> str:
    return f"{len(differences)} difference{'' if len(differences) == 1 else 's'}"


def _input_lines(run: Run) -> list[str]:
    """Lines about the input of a run: its stores and slices, or the members of an ensemble."""
    if "members" in run.config:
        return [f"  member    {member['model']}: {member['run']}" for member in run.config["members"]]
    frames = " + ".join(str(source.frames) for source in run.sources)
    return [
        *(f"  store     {source.path}" for source in run.sources),
        *(f"  frames    {source.spec}, computed of {source.waveform}" for source in run.sources if source.waveform),
        f"  slices    {run.slicing}, {frames} frames each",
    ]


def render_run(run: Run, width: int = WIDTH) -> str:
    """Describe a run in a few lines of text; all but those with paths are wrapped to the terminal."""
    splits = run.selection.tracks["split"].to_pylist()
    head = [f"{run.path}", f"  model     {run.model}, seed {run.config['seed']}", *_input_lines(run)]
    lines = [
        f"  tracks    {', '.join(f'{split} {splits.count(split):,}' for split in dict.fromkeys(splits))}",
        f"  genres    {', '.join(run.config['classes'])}",
    ]
    if differences := run.config["differences"]:
        lines.append(f"  study     not as published: {_count(differences)}")
        lines += [f"            {difference}" for difference in differences]
    if run.config["leaky"]:
        lines += wrapping.wrap(f"  leaky     {leak_reason(run.config)}", indent=12)
    if fold := run.config.get("fold"):
        lines.append("  fold      validated on fold {} of {}".format(*fold))
    if run.config.get("refit"):
        lines.append(f"  refit     {refit_line(run)}")
    if parameters := run.summary.get("search", {}).get("chosen"):
        lines.append(f"  search    {', '.join(f'{name} {value}' for name, value in parameters.items())}")
    lines.append(f"  state     {'finished' if run.finished else 'unfinished: `mgc train --resume` continues it'}")
    if run.history:
        last = run.history[-1]
        scores = ", ".join(f"{name} {value:.3f}" for name, value in last.items() if isinstance(value, float))
        lines.append(f"  epoch {last['epoch']:<3} {scores}")
    wrapped = [part for line in lines for part in wrap(visible(line), width, indent=12)]
    return "\n".join([*map(visible, head), *wrapped])
