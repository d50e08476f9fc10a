"""The table of all results: the newest of each system, protocol, seed and limits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mgc.models.reproduction import report, results
from mgc.models.reproduction.results import Result
from mgc.pipeline.escaping import visible_fields
from mgc.pipeline.wrapping import WIDTH, ellipsise, wrap

#: Columns of the table for a terminal, beside the system's name.
_HEAD = f"{'split':<9} {'epochs':>6} {'published':>9} {'here':>5} {'accuracy by track':>17} {'chance':>6}"
_MARKDOWN = {
    "system": "---",
    "split": "---",
    "epochs": "---:",
    "published": "---:",
    "here": "---:",
    "accuracy by track": "---",
    "chance": "---:",
    "test tracks": "---:",
    "seeds": "---",
    "training, s": "---:",
}
_NOTES = (
    "published: the study's headline score in per cent, of test slices unless marked: v of validation slices, o mean"
    " one-vs-rest accuracy; here: the same score of the same split. Accuracy by track: of the test tracks, with the"
    " 95 % interval by artists, or the range over seeds. LEAKY: the tested tracks were heard in training."
)


@dataclass(frozen=True)
class Row:
    """Results that differ in their seed alone.

    Attributes:
        results: newest result of each seed, at least one.
    """

    results: Sequence[Result]

    @property
    def first(self) -> Result:
        """Result of the first seed."""
        return self.results[0]

    @property
    def is_leaky(self) -> bool:
        """Whether a result is leaky."""
        return any(result["leaky"] for result in self.results)

    @property
    def epochs(self) -> str:
        """Maximum number of epochs if it was limited, else `all`; empty for a system without epochs."""
        limit = self.first["limits"]["epochs"]
        return "" if self.first["kind"] == "classical" else str(limit or "all")

    @property
    def headline(self) -> tuple[str, str]:
        """The study's headline score with its mark, and the mean of its counterparts; dashes if there is none."""
        found = [report.scores(result)[:1] for result in self.results]
        if not found[0]:
            return "–", "–"
        score = found[0][0]
        mark = "v" * (score.split == "validation") + "o" * (score.name == "one_vs_rest_accuracy")
        return f"{score.published:.1f}{mark}", f"{_mean([each[0].measured for each in found]):.1f}"

    @property
    def accuracy(self) -> str:
        """Accuracy of the test tracks with its interval; for several seeds, mean and range."""
        found = [report.accuracy(result) for result in self.results]
        values = [score.measured for score in found]
        low, high = found[0].interval or (0.0, 100.0)
        if len(found) == 1:
            return f"{values[0]:.1f} [{low:.1f}–{high:.1f}]"
        return f"{_mean(values):.1f} ({min(values):.1f}–{max(values):.1f})"

    @property
    def chance(self) -> str:
        """Accuracy of guessing."""
        return f"{100 * self.first['scores']['test']['chance']['level']:.1f}"


def rows(found: Sequence[Result]) -> list[tuple[str, list[Row]]]:
    """Arrange results: blocks of one dataset and limit of tracks, each with a heading."""
    kept = sorted(
        results.newest(found), key=lambda result: (result["dataset"]["name"], result["limits"]["tracks"] or 0)
    )
    blocks = []
    for _, block in itertools.groupby(kept, key=lambda result: (result["dataset"], result["limits"]["tracks"])):
        ordered = sorted(block, key=lambda result: (result["system"], result["limits"]["epochs"] or 0))
        groups = itertools.groupby(ordered, key=_setting)
        made = [Row(list(group)) for _, group in groups]
        blocks.append((_heading(made[0].first), made))
    return blocks


def _setting(result: Result) -> tuple[Any, ...]:
    return result["system"], result["limits"]["epochs"], result["protocol"]


def _heading(result: Result) -> str:
    limit = result["limits"]["tracks"]
    few = f"; at most {limit} training tracks of each genre: these scores say nothing of the systems" if limit else ""
    return f"{result['dataset']['name']}, {result['dataset']['genres']} genres{few}"


def text(found: Sequence[Result], width: int = WIDTH) -> str:
    """Render results as a table for a terminal."""
    return "\n\n".join([*_blocks(visible_fields(list(found)), width), "\n".join(wrap(_NOTES, width))])


def _blocks(found: Sequence[Result], width: int) -> Iterator[str]:
    for heading, block in rows(found):
        names = ellipsise([row.first["system"] for row in block], width - len(_HEAD) - 1)
        margin = max(map(len, [*names, "system"]))
        lines = [*wrap(heading, width), f"{'system':{margin}} {_HEAD}"]
        for name, row in zip(names, block, strict=True):
            published, here = row.headline
            split = "LEAKY" if row.is_leaky else row.first["protocol"]
            lines.append(
                f"{name:{margin}} {split:<9} {row.epochs:>6} {published:>9} {here:>5} "
                f"{row.accuracy:>17} {row.chance:>6}"
            )
        yield "\n".join(lines)


def markdown(found: Sequence[Result]) -> str:
    """Render results as Markdown tables, with more columns."""
    lines = []
    for heading, block in rows(visible_fields(list(found))):
        lines += [heading + ":", "", f"| {' | '.join(_MARKDOWN)} |", f"|{'|'.join(_MARKDOWN.values())}|"]
        for row in block:
            seeds = ", ".join(str(result["seed"]) for result in row.results)
            seconds = [result["seconds"]["training"] for result in row.results]
            known = [value for value in seconds if value is not None]
            cells = (
                f"`{row.first['system']}`",
                row.first["protocol"] + ", **leaky**" * row.is_leaky,
                row.epochs,
                *row.headline,
                row.accuracy,
                row.chance,
                f"{row.first['scores']['test']['n_tracks']:,}",
                seeds,
                f"{_mean(known):.1f}" if known else "",
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join([*lines, _NOTES])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
