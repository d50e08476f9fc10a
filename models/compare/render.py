"""A leaderboard as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mgc.models.compare import notes
from mgc.models.compare.compare import Comparison
from mgc.models.evaluation.paired import Span
from mgc.models.evaluation.report import bracketed, percentage, wrapped
from mgc.pipeline.escaping import visible_fields
from mgc.pipeline.wrapping import WIDTH, ellipsise

#: Differences between a study and a row that are listed; --json has all.
_LISTED = 4


def text(comparison: Comparison, width: int = WIDTH) -> str:
    """Render a comparison: scores, differences to the best, costs, published results, notes, and folders.

    Args:
        comparison: the comparison.
        width: columns of the terminal, at least 80. Only a path may be longer; tables shorten names.
    """
    comparison = visible_fields(comparison)
    blocks = [wrapped([notes.subject(comparison)], width), _scores(comparison, width)]
    if len(comparison.rows) > 1:
        blocks.append(_differences(comparison, width))
    blocks.append(_costs(comparison, width))
    if comparison.published:
        blocks.append("\n".join(_published(comparison, width)))
    blocks.append(wrapped(notes.sentences(comparison), width))
    folders = [f"{number:>3}  {run}" for number, row in enumerate(comparison.rows, 1) for run in row.runs]
    blocks.append("\n".join(["runs", *folders]))
    return "\n\n".join(blocks)


def points(span: Span) -> tuple[str, str]:
    """Format a difference and its interval in percentage points: `-3.2` and `[-9.1, +2.7]`."""
    return f"{100 * span.difference:+.1f}", f"[{100 * span.low:+.1f}, {100 * span.high:+.1f}]"


def p_text(value: float) -> str:
    """Format a p-value: `0.042`, `<0.001`."""
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def seconds_text(seconds: float | None) -> str:
    """Format a duration: `4 s`, `12 min`, `3.4 h`; a dash if it is unknown."""
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size_text(size: int | None) -> str:
    """Format a size: `98 kB`, `4.2 MB`; a dash if it is unknown."""
    if size is None:
        return "–"
    return f"{size / 1e3:.0f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"


def deviation_text(deviation: float | None) -> str:
    """Format a standard deviation in percentage points: ` ± 9.7`; empty if there is none."""
    return "" if deviation is None else f" ± {100 * deviation:.1f}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], names: Sequence[str], width: int) -> str:
    """A table whose first columns are the number and the name of each row, shortened to fit; others on the right."""
    cells = [list(row) for row in rows]
    sizes = [max(len(line[column]) for line in (heads, *cells)) for column in range(len(heads))]
    labels = ellipsise(names, width - 5 - sum(size + 2 for size in sizes))
    margin = max(map(len, ("system", *labels)))

    def line(number: str, label: str, values: Sequence[str]) -> str:
        texts = (f"  {value:>{size}}" for value, size in zip(values, sizes, strict=True))
        return f"{number:>3}  {label:{margin}}{''.join(texts)}".rstrip()

    lines = [line("row", "system", heads)]
    lines += [line(str(n), label, row) for n, (label, row) in enumerate(zip(labels, cells, strict=True), 1)]
    return "\n".join(lines)


def _scores(comparison: Comparison, width: int) -> str:
    any_leaky = any(row.leaky for row in comparison.rows)
    deviations = [deviation_text(row.accuracy_deviation) for row in comparison.rows]
    margin = max(map(len, deviations))
    spans = [(bracketed(row.accuracy_interval), bracketed(row.macro_f1_interval)) for row in comparison.rows]
    wide = max(len(text) for span in spans for text in span)
    letters = sorted({letter for row in comparison.rows for letter in row.letters})
    aligned = len(letters) < 9
    rows = [
        (
            f"{100 * row.accuracy:.1f}{deviation:{margin}} {span[0]:>{wide}}",
            f"{100 * row.macro_f1:.1f} {span[1]:>{wide}}",
            "".join(letter if letter in row.letters else " " for letter in letters) if aligned else row.letters,
            *(("LEAKY" if row.leaky else "",) if any_leaky else ()),
        )
        for row, deviation, span in zip(comparison.rows, deviations, spans, strict=True)
    ]
    heads = ("accuracy by track, %", "macro F1, %", "same", *(("",) if any_leaky else ()))
    return _table(heads, rows, [row.name for row in comparison.rows], width)


def _differences(comparison: Comparison, width: int) -> str:
    rows = []
    for row in comparison.rows:
        if (pair := row.to_best) is None:
            rows.append(("the best",) + ("",) * 4)
            continue
        rows.append(
            (
                *points(pair.accuracy.reversed()),
                points(pair.macro_f1.reversed())[0],
                f"{pair.only_first:.0f} : {pair.only_second:.0f}",
                p_text(pair.p_holm),
            )
        )
    heads = ("points", "", "in F1", "alone right", "p (Holm)")
    legend = (
        "points: accuracy less that of row 1, and its interval; in F1: the same of macro F1; alone right: tracks that "
        "row 1 alone has right : that this row alone has right"
    )
    return _table(heads, rows, [row.name for row in comparison.rows], width) + "\n" + wrapped([legend], width)


def _costs(comparison: Comparison, width: int) -> str:
    rows = [
        (
            notes.trainings(row),
            "–" if row.params is None else f"{row.params:,}",
            seconds_text(row.seconds),
            size_text(row.size),
        )
        for row in comparison.rows
    ]
    return _table(("trained", "parameters", "time", "weights"), rows, [row.name for row in comparison.rows], width)


def _published(comparison: Comparison, width: int) -> Iterator[str]:
    """Published results, each with what differs from the row that measures the same system."""
    names = [", ".join(filter(None, (result.model, result.split, result.setting))) for result in comparison.published]
    labels = ellipsise(names, width - 5 - 3 * 11)
    margin = max(map(len, ("published, by slice", *labels)))
    yield f"row  {'published, by slice':{margin}}{'accuracy':>11}{'macro F1':>11}{'here':>11}"
    for label, result in zip(labels, comparison.published, strict=True):
        cells = (result.accuracy, result.macro_f1, result.measured)
        yield f"{result.row + 1:>3}  {label:{margin}}" + "".join(f"{percentage(cell).strip():>11}" for cell in cells)
    by_row = {result.row: result.differs for result in comparison.published}
    for differs in dict.fromkeys(by_row.values()):
        numbers = [row + 1 for row in by_row if by_row[row] == differs]
        more = f"; and {len(differs) - _LISTED} more (--json)" if len(differs) > _LISTED else ""
        what = "; ".join(differs[:_LISTED]) + more if differs else "nothing that mgc knows of"
        verb = "differ from their studies" if len(numbers) > 1 else "differs from its study"
        yield wrapped([f"{notes.rows_text(numbers)} {verb}: {what}."], width)
