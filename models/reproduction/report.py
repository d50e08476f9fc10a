"""A result as text: the published scores beside the measured ones, and what differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from mgc.models.evaluation.report import counted
from mgc.models.reproduction.results import Result
from mgc.pipeline.escaping import visible_fields
from mgc.pipeline.wrapping import WIDTH, wrap

#: Scores that studies print, as they are called here.
LABELS = {
    "accuracy": "accuracy",
    "one_vs_rest_accuracy": "one-vs-rest accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "f1_of_means": "F1 of the means",
}
_LABEL, _PUBLISHED = 42, 10


class Score(NamedTuple):
    """A score of a study and its counterpart here.

    Attributes:
        name: key of `LABELS`.
        split: split that it was measured on.
        unit: `slice` or `track`: what was counted.
        published: the printed value in per cent; None if there is none.
        measured: the value here in per cent.
        interval: 95 % interval of it; None for scores without one.
    """

    name: str
    split: str
    unit: str
    published: float | None
    measured: float
    interval: tuple[float, float] | None

    @property
    def label(self) -> str:
        """What was measured, in words."""
        return f"{LABELS[self.name]}, {self.split} {self.unit}s"


def scores(result: Result) -> list[Score]:
    """The scores that the study printed of the recipe's setting, in their order, each with its counterpart."""
    rows = result["published"][:1]
    return [
        _score(
            result, name, row["split"], "slice" if result["scores"][row["split"]]["by_slice"] else "track", row[name]
        )
        for row in rows
        for name in LABELS
        if name in row
    ]


def accuracy(result: Result) -> Score:
    """The accuracy of the test tracks, which no study but those with one slice per track printed."""
    return _score(result, "accuracy", "test", "track", None)


def _score(result: Result, name: str, split: str, unit: str, published: float | None) -> Score:
    level = result["scores"][split][f"by_{unit}"]
    interval = level.get(f"{name}_interval")
    if name == "one_vs_rest_accuracy":  # a linear function of the accuracy
        n = result["dataset"]["genres"]
        interval = [1 - 2 * (1 - end) / n for end in level["accuracy_interval"]]
    ends = (100 * interval[0], 100 * interval[1]) if interval else None
    return Score(name, split, unit, published, 100 * level[name], ends)


def text(result: Result, width: int = WIDTH) -> str:
    """Render a result.

    Args:
        result: the result.
        width: columns of the terminal.
    """
    result = visible_fields(result)
    lines = [*wrap(_subject(result), width), *wrap(_leak(result), width), *_table(result)]
    for head, entries in (
        ("differs from the study", result["differences"]),
        ("chosen here, as the study does not say", [f"{key} {value}" for key, value in result["chosen"].items()]),
        ("also published, of other settings", [_other(row) for row in result["published"][1:]]),
    ):
        if entries:
            lines += wrap(f"{head}: {'; '.join(entries)}", width, indent=2)
    return "\n".join(lines)


def _subject(result: Result) -> str:
    test = result["scores"]["test"]
    return (
        f"{result['system']}, {result['protocol']} split, seed {result['seed']}, on {result['dataset']['name']}: "
        f"{counted(test['n_tracks'], 'test track')} by {counted(test['n_artists'], 'artist')}"
    )


def _leak(result: Result) -> str:
    if not result["leaky"]:
        return ""
    return "LEAKY: what is tested was heard in training, so the scores are too good."


def _table(result: Result) -> Iterator[str]:
    yield f"  {'':{_LABEL}}{'published':>{_PUBLISHED}}   measured"
    for score in [*scores(result), accuracy(result)]:
        published = "–" if score.published is None else f"{score.published:.1f} %"
        interval = f" [{score.interval[0]:.1f}–{score.interval[1]:.1f}]" if score.interval else ""
        yield f"  {score.label:{_LABEL}}{published:>{_PUBLISHED}}   {score.measured:.1f} %{interval}"
    chance = result["scores"]["test"]["chance"]
    verdict = "better than that" if chance["p_value"] < 0.05 else "not distinguishable from that"
    yield f"  chance by track is {100 * chance['level']:.1f} %: {verdict} (p = {chance['p_value']:.2g})"


def _other(row: dict[str, Any]) -> str:
    values = ", ".join(f"{LABELS[name]} {row[name]:.1f} %" for name in LABELS if name in row)
    return f"{row['setting'] or row['split']}: {values}"
