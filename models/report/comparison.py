"""The report of several runs: their leaderboard as a page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from mgc.models.compare import evaluated, notes
from mgc.models.compare.compare import Comparison, Row, compare_evaluated
from mgc.models.compare.evaluated import TrackSet
from mgc.models.compare.render import deviation_text, p_text, seconds_text
from mgc.models.evaluation.report import bracketed, counted
from mgc.models.report import charts
from mgc.models.report.charts import percent
from mgc.models.runs.run import Run


def page(runs: Sequence[Run], split: str, *, common: bool) -> dict[str, Any]:
    """Compare runs, and collect what their page shows.

    Args:
        runs: evaluated runs, at least two.
        split: split to compare on.
        common: compare runs of different tracks on those that all of them have.

    Raises:
        RunError: a run was not evaluated or is damaged, or the runs have different tracks and `common` is false.
    """
    results = [evaluated.read(run, TrackSet(split)) for run in {run.path.resolve(): run for run in runs}.values()]
    comparison = compare_evaluated(results, TrackSet(split), common=common)
    best = comparison.rows[0]
    span = _span(comparison)
    recalls = {str(result.run.path): result.metrics["by_track"]["by_genre"] for result in results}
    command = shlex.join(["mgc", "report", *(str(run.path) for run in runs), "--split", split])
    return {
        "title": f"{counted(len(comparison.rows), 'system')} on {comparison.dataset}",
        "kicker": f"{counted(len(results), 'run')} · {split} split",
        "dataset": comparison.dataset,
        "subject": notes.subject(comparison),
        "headline": _headline(comparison),
        "alarms": ["Leaky: a system has heard its test tracks."] if any(row.leaky for row in comparison.rows) else [],
        "rows": [_row(row, best, span) for row in comparison.rows],
        "span": f"{percent(span[0])} to {percent(span[1])}",
        "notes": notes.sentences(comparison),
        "genres": None if comparison.n_left_out else _by_genre(comparison, recalls),
        "published": [
            {
                "row": comparison.rows[result.row].name,
                "setting": ", ".join(filter(None, (result.split, result.setting))),
                "accuracy": percent(result.accuracy),
                "macro_f1": percent(result.macro_f1),
                "measured": percent(result.measured),
                "differs": "; ".join(result.differs) or "nothing that mgc knows of",
            }
            for result in comparison.published
        ],
        "commands": [command + (" --common" if common else "")],
        "runs": [path for row in comparison.rows for path in row.runs],
    }


def _headline(comparison: Comparison) -> str:
    """Say in words whether one system is better than the others."""
    best, *others = comparison.rows
    said = f"{best.name} is right on {percent(best.accuracy)} of the tracks"
    if not others:
        return f"{said}. There is no other system to compare it with."
    alike = [row.name for row in others if set(row.letters) & set(best.letters)]
    if not alike:
        return f"{said}, demonstrably more than every other system here."
    if len(alike) == len(others):
        return f"{said}, but that is not demonstrably more than any other system here."
    return f"{said}, but not demonstrably more than {counted(len(alike), 'other')} of these systems."


def _row(row: Row, best: Row, span: tuple[float, float]) -> dict[str, Any]:
    interval, pair = row.accuracy_interval, row.to_best
    others = row.accuracies if len(row.accuracies) > 1 else ()
    difference = ""
    if pair is not None:
        low, high = -pair.accuracy.high, -pair.accuracy.low
        difference = f"{-100 * pair.accuracy.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return {
        "name": row.name,
        "letters": row.letters,
        "leaky": row.leaky,
        "accuracy": row.accuracy,
        "accuracy_text": percent(row.accuracy) + deviation_text(row.accuracy_deviation),
        "interval": bracketed(interval),
        "strip": charts.strip(row.accuracy, interval.low, interval.high, span, others),
        "macro_f1": row.macro_f1,
        "difference": difference,
        "distance": -pair.accuracy.difference if pair else 0.0,
        "p": p_text(pair.p_holm) if pair else "",
        "trainings": notes.trainings(row),
        "params": row.params,
        "seconds": row.seconds,
        "time": seconds_text(row.seconds),
    }


def _span(comparison: Comparison) -> tuple[float, float]:
    """Round limits around all intervals, for a common axis."""
    low = min(row.accuracy_interval.low for row in comparison.rows)
    high = max(row.accuracy_interval.high for row in comparison.rows)
    return max(0.0, np.floor(20 * low) / 20), min(1.0, np.ceil(20 * high) / 20)


def _by_genre(comparison: Comparison, recalls: dict[str, Any]) -> list[dict[str, Any]]:
    """Recall of each genre and row, the mean over the runs of a row."""
    table = []
    for genre in comparison.genres:
        cells = []
        for row in comparison.rows:
            found = [recalls[path].get(genre, {}).get("recall") for path in row.runs if path in recalls]
            known = [value for value in found if value is not None]
            cells.append(float(np.mean(known)) if known else None)
        drawn = [{"value": value, "bar": charts.bar(value)} for value in cells]
        table.append({"genre": genre, "cells": drawn})
    return table
