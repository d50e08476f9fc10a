"""Sentences that a reader of a leaderboard must know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mgc.models.compare.compare import Comparison, Row
from mgc.models.evaluation.report import counted


def sentences(comparison: Comparison) -> list[str]:
    """How to read the leaderboard, and what limits its numbers; names in the sentences are as foreign as they were."""
    lines = [*_how_to_read(comparison), *_seeds(comparison), *_faults(comparison), *comparison.notes]
    if comparison.n_left_out:
        lines.append(f"{counted(comparison.n_left_out, 'track')} that not all runs have are left out.")
    return lines


def trainings(row: Row) -> str:
    """The trainings of a row in a few words: `3 seeds`, `5 folds`, `5 folds, 3 seeds`, `1 seed`, or `1 run`."""
    parts = [f"{row.folds} folds"] if row.folds and len(row.runs) > 1 else []
    if len(row.seeds) > 1 or (row.other_seeds is not None and not parts):
        parts.append(counted(len(row.seeds), "seed"))
    return ", ".join(parts) or counted(len(row.runs), "run")


def subject(comparison: Comparison) -> str:
    """The head of a leaderboard: how many systems, on which tracks."""
    rows, tracks = counted(len(comparison.rows), "system"), counted(comparison.n_tracks, "track")
    by = f" by {counted(comparison.n_artists, 'artist')}" if comparison.n_artists else " by unknown artists"
    if comparison.n_artists and comparison.n_unattributed:
        by += f", {comparison.n_unattributed:,} by unknown ones"
    part = "" if comparison.split == "all" else f"the {comparison.split} split of "
    return f"{rows} on {part}{comparison.dataset}: {tracks}{by}"


def _how_to_read(comparison: Comparison) -> Iterator[str]:
    unit = "artists" if comparison.n_artists else "tracks, as artists are unknown"
    deviation = ""
    if any(row.accuracy_deviation is not None for row in comparison.rows):
        deviation = " ± is the standard deviation of trainings; the intervals contain it."
    resamples = comparison.bootstrap["resamples"]
    yield f"In brackets: 95 % intervals, from {resamples:,} bootstrap samples of the {unit}.{deviation}"
    if len(comparison.rows) < 2:
        yield "One system: there is nothing to compare it with."
        return
    n = len(comparison.pairs)
    holm = f", corrected for {n} pairs (Holm)" if n > 1 else ""
    yield f"Systems that share a letter are not shown to differ at 5 %{holm}."
    if not any(pair.differs for pair in comparison.pairs):
        yield f"So no two systems differ demonstrably on these {counted(comparison.n_tracks, 'track')}."


def _seeds(comparison: Comparison) -> Iterator[str]:
    """Differences within the spread of trainings, and systems of which other seeds were not tried."""
    for number, row in enumerate(comparison.rows, 1):
        if (pair := row.to_best) is not None and pair.within_trainings and pair.trainings is not None:
            what = "folds" if row.folds and len(row.seeds) == 1 else "seeds"
            yield (
                f"Row {number}: its distance to row 1, {100 * pair.accuracy.difference:.1f} points, is within the "
                f"spread of {what}: two trainings differ by ± {100 * pair.trainings:.1f} points."
            )
    alone = [number for number, row in enumerate(comparison.rows, 1) if row.other_seeds is False]
    if alone:
        yield f"{rows_text(alone)}: other seeds were not tried, so how much of the score is luck is unknown."


def _faults(comparison: Comparison) -> Iterator[str]:
    leaky = [number for number, row in enumerate(comparison.rows, 1) if row.leaky]
    if leaky:
        yield f"{rows_text(leaky)}: LEAKY, the system has heard test tracks in training; its scores are too good."
    yield from dict.fromkeys(row.audit["line"] for row in comparison.rows if row.audit and row.audit.get("line"))
    if comparison.split == "training":
        yield "NOT A TEST: the systems were fitted to these very tracks; the scores say nothing about new ones."
    if comparison.split == "validation":
        yield "NOT A TEST: a network keeps the epoch that suits these tracks best; the scores may flatter it."


def rows_text(numbers: Sequence[int]) -> str:
    """Name rows by their numbers: `Row 2`, `Rows 2, 3`."""
    return f"Row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
