"""A leaderboard as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from mgc.models.compare import notes
from mgc.models.compare.compare import Comparison, Row
from mgc.models.compare.published import Published
from mgc.models.compare.render import deviation_text, p_text, points, seconds_text, size_text
from mgc.models.evaluation.intervals import Interval
from mgc.models.evaluation.report import bracketed
from mgc.pipeline.escaping import visible, visible_fields

_MARKDOWN = (
    "", "system", "trained", "accuracy", "macro F1", "points to the best", "p (Holm)", "same", "parameters", "time",
    "weights",
)  # fmt: skip
_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$", "–": "--",
}  # fmt: skip


def markdown(comparison: Comparison) -> str:
    """Format a comparison as Markdown: a table of the systems, one of the published results, and notes."""
    comparison = visible_fields(comparison)
    lines = [f"**{_markdown(notes.subject(comparison))}**", "", *_markdown_row(_MARKDOWN)]
    lines.append("|---:|---|---|---|---|---|---:|---|---:|---:|---:|")
    for number, row in enumerate(comparison.rows, 1):
        mark = " **LEAKY**" if row.leaky else ""
        cells = (
            str(number),
            _markdown(row.name) + mark,
            notes.trainings(row),
            _score(row.accuracy, row.accuracy_deviation, row.accuracy_interval, " %"),
            _score(row.macro_f1, row.macro_f1_deviation, row.macro_f1_interval, " %"),
            _to_best(row),
            p_text(row.to_best.p_holm) if row.to_best else "",
            row.letters,
            "" if row.params is None else f"{row.params:,}",
            seconds_text(row.seconds),
            size_text(row.size),
        )
        lines += _markdown_row(cells)
    if comparison.published:
        lines += ["", *_markdown_row(("row", "published, by slice", "accuracy", "macro F1", "here", "what differs"))]
        lines.append("|---:|---|---:|---:|---:|---|")
    for result in comparison.published:
        scores = (result.accuracy, result.macro_f1, result.measured)
        differs = _markdown("; ".join(result.differs))
        lines += _markdown_row((str(result.row + 1), _markdown(_title(result)), *map(_percent, scores), differs))
    return "\n".join([*lines, "", *(f"- {_markdown(line)}" for line in notes.sentences(comparison))])


def latex(comparison: Comparison) -> str:
    """Format a comparison as a LaTeX table; needs the package booktabs.

    Names are escaped; those in scripts that pdfLaTeX lacks need XeLaTeX or LuaLaTeX.
    """
    comparison = visible_fields(comparison)
    heads = (
        "System",
        "Trained",
        "Accuracy",
        "95\\,\\%",
        "Macro F1",
        "95\\,\\%",
        "$\\Delta$",
        "95\\,\\%",
        "$p$",
        "",
        "",
    )
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{llrlrlrlrlr}",
        r"\toprule",
        " & ".join((*heads[:-1], "Parameters")) + r" \\",
        r"\midrule",
    ]
    for row in comparison.rows:
        pair = row.to_best
        cells = (
            _latex(row.name) + (r" \textsc{leaky}" if row.leaky else ""),
            notes.trainings(row),
            _latex(f"{100 * row.accuracy:.1f}{deviation_text(row.accuracy_deviation)}"),
            _latex(bracketed(row.accuracy_interval)),
            _latex(f"{100 * row.macro_f1:.1f}{deviation_text(row.macro_f1_deviation)}"),
            _latex(bracketed(row.macro_f1_interval)),
            *((f"${text}$" for text in points(pair.accuracy.reversed())) if pair else ("", "")),
            _latex_p(pair.p_holm) if pair else "",
            row.letters,
            "" if row.params is None else f"{row.params:,}".replace(",", "\\,"),
        )
        lines.append(" & ".join(cells) + r" \\")
    if comparison.published:
        lines += [r"\midrule", r"\multicolumn{11}{l}{\emph{published, by slice}} \\"]
    for result in comparison.published:
        accuracy, macro_f1 = _number(result.accuracy), _number(result.macro_f1)
        lines.append(f"{_latex(_title(result))} & & {accuracy} & & {macro_f1} & & & & & & " + r"\\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {visible(line)}" for line in notes.sentences(comparison))])


def csv_text(comparison: Comparison) -> str:
    """Format a comparison as CSV: a line for each system, then one for each published result; scores from 0 to 1."""
    rows = [_csv_row(number, row) for number, row in enumerate(comparison.rows, 1)]
    rows += map(_csv_published, comparison.published)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue().rstrip("\n")


def _csv_row(number: int, row: Row) -> dict[str, Any]:
    pair = row.to_best
    accuracy, macro_f1 = (pair.accuracy.reversed(), pair.macro_f1.reversed()) if pair else (None, None)
    return {
        "row": number,
        "kind": "measured",
        "system": row.name,
        "seeds": " ".join(map(str, row.seeds)),
        "folds": row.folds,
        "trainings": row.n_trainings,
        "accuracy": row.accuracy,
        "accuracy_low": row.accuracy_interval.low,
        "accuracy_high": row.accuracy_interval.high,
        "accuracy_deviation": row.accuracy_deviation,
        "macro_f1": row.macro_f1,
        "macro_f1_low": row.macro_f1_interval.low,
        "macro_f1_high": row.macro_f1_interval.high,
        "macro_f1_deviation": row.macro_f1_deviation,
        "to_best": accuracy.difference if accuracy else None,
        "to_best_low": accuracy.low if accuracy else None,
        "to_best_high": accuracy.high if accuracy else None,
        "macro_f1_to_best": macro_f1.difference if macro_f1 else None,
        "macro_f1_to_best_low": macro_f1.low if macro_f1 else None,
        "macro_f1_to_best_high": macro_f1.high if macro_f1 else None,
        "only_best_right": pair.only_first if pair else None,
        "only_this_right": pair.only_second if pair else None,
        "mcnemar_p": pair.mcnemar if pair else None,
        "p": pair.p if pair else None,
        "p_holm": pair.p_holm if pair else None,
        "within_trainings": pair.within_trainings if pair else None,
        "letters": row.letters,
        "parameters": row.params,
        "seconds": row.seconds,
        "bytes": row.size,
        "leaky": row.leaky,
        "differs_from_study": "",
        "runs": " ".join(row.runs),
    }


def _csv_published(result: Published) -> dict[str, Any]:
    return {
        "row": result.row + 1,
        "kind": "published by slice",
        "system": _title(result),
        "accuracy": result.accuracy,
        "macro_f1": result.macro_f1,
        "differs_from_study": "; ".join(result.differs),
    }


def _cell(value: Any) -> Any:
    """A cell in which a spreadsheet finds no formula, and a terminal no command."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text


def _title(result: Published) -> str:
    return ", ".join(filter(None, (result.model, result.split, result.setting)))


def _score(value: float, deviation: float | None, interval: Interval, unit: str) -> str:
    score = f"{100 * value:.1f}{unit}{deviation_text(deviation)}"
    return f"{score} {bracketed(interval)}"


def _to_best(row: Row) -> str:
    return " ".join(points(row.to_best.accuracy.reversed())) if row.to_best else "the best"


def _number(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _markdown(text: str) -> str:
    """Escape what Markdown and HTML would interpret."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#!$])", r"\\\1", text)


def _markdown_row(cells: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(cells)} |"]


def _latex(text: str) -> str:
    return "".join(_LATEX_SPECIAL.get(character, character) for character in text)


def _latex_p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "$<$0.001"
