"""The charts of a report as SVG: drawn for a phone's width, so that their texts stay legible there.

Colours are classes of the style sheet (`templates/report.css`), which has them for light and dark pages.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from mgc.models.report import svg
from mgc.models.report.svg import element, line, path, picture, text
from mgc.pipeline.wrapping import ellipsise

#: Width of a chart in pixels.
WIDTH = 360
#: Number of genre colours in the style sheet; further genres use them again.
COLOURS = 8
#: Most genres of a confusion matrix with counts in its cells, and with names at its sides.
_MOST_COUNTS, _MOST_NAMES = 20, 40


def percent(value: float | None) -> str:
    """Format a share, such as `47.5 %`; a dash if it is undefined."""
    return "–" if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def scale(score: float, low: float, high: float, chance: float) -> Markup:
    """Draw an accuracy with its interval between 0 and 100 %, and the accuracy of guessing."""
    left, right, y = 14, WIDTH - 14, 34

    def x(value: float) -> float:
        return left + value * (right - left)

    parts = [element("rect", x=x(0), y=y - 3, width=right - left, height=6, rx=3, class_="track")]
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        anchor = {0.0: "start", 1.0: "end"}.get(value, "middle")
        at = {0.0: 2.0, 1.0: WIDTH - 2.0}.get(value, x(value))
        parts.append(text(at, y + 24, f"{100 * value:.0f} %", "tick", anchor))
    parts += [
        element("rect", x=x(low), y=y - 7, width=max(2.0, x(high) - x(low)), height=14, rx=7, class_="interval"),
        line(x(chance), y - 11, x(chance), y + 11, "chance"),
        element("circle", cx=x(score), cy=y, r=7, class_="dot"),
        text(min(max(x(chance), 46), WIDTH - 46), 15, f"guessing {percent(chance)}", "tick", "middle"),
    ]
    description = f"{percent(score)}, interval {percent(low)} to {percent(high)}; guessing reaches {percent(chance)}."
    return picture("scale", WIDTH, 62, "Accuracy between 0 and 100 %", description, *parts)


def bar(
    value: float | None, low: float | None = None, high: float | None = None, chance: float | None = None
) -> Markup:
    """Draw a share as a bar with its interval, for a cell of a table; it fills the width of the cell."""

    def share(number: float) -> str:
        return f"{100 * number:.1f}%"

    if value is None:
        return Markup()
    parts = [element("rect", x="0", y=2, width="100%", height=12, class_="track")]
    parts.append(element("rect", x="0", y=2, width=share(value), height=12, class_="bar"))
    if low is not None and high is not None:
        parts += [
            element("rect", x=share(low), y=7, width=share(max(high - low, 0.005)), height=2, class_="whisker"),
            *(line(share(end), 4, share(end), 12, "whisker-end") for end in (low, high)),  # type: ignore[arg-type]
        ]
    if chance is not None:
        parts.append(line(share(chance), 0, share(chance), 16, "chance"))  # type: ignore[arg-type]
    return element("svg", *parts, class_="bar-cell", height=16, aria_hidden="true", focusable="false")


def strip(value: float, low: float, high: float, span: tuple[float, float], others: Sequence[float] = ()) -> Markup:
    """Draw a score and its interval as a point on a line, for a cell of a table.

    Args:
        value, low, high: the score and the ends of its interval.
        span: scores at the left and the right end of the cell.
        others: further scores, as smaller points: those of single trainings.
    """
    first, last = span

    def share(number: float) -> str:
        return f"{100 * (number - first) / max(last - first, 1e-9):.1f}%"

    ticks = [tick for tick in svg.ticks(first, last, 4) if first < tick < last]
    parts = [line(share(tick), 0, share(tick), 24, "grid") for tick in ticks]  # type: ignore[arg-type]
    parts.append(line(share(low), 12, share(high), 12, "span"))  # type: ignore[arg-type]
    parts += [element("circle", cx=share(other), cy=12, r=3, class_="training") for other in others]
    parts.append(element("circle", cx=share(value), cy=12, r=5.5, class_="dot"))
    return element("svg", *parts, class_="strip-cell", height=24, aria_hidden="true", focusable="false")


def curves(
    id: str, title: str, epochs: Sequence[int], series: Mapping[str, Sequence[float | None]], *, best: int | None,
    shares: bool = False,
) -> Markup:  # fmt: skip
    """Draw values over the epochs of a training, with the names of the curves at their ends.

    Args:
        id: id of the picture.
        title: what the values are.
        epochs: numbers of the epochs.
        series: values of each curve by its name; None where there is none.
        best: epoch whose weights were kept.
        shares: whether the values are shares, in per cent.
    """
    left, right, top, bottom, height = 54, WIDTH - (86 if len(series) > 1 else 20), 22, 180, 212
    values = [value for curve in series.values() for value in curve if value is not None and math.isfinite(value)]
    low, high = (0.0, 1.0) if shares else (min([0.0, *values]), max(values, default=1.0) or 1.0)
    first, last = epochs[0], epochs[-1]

    def x(epoch: float) -> float:
        return left + (epoch - first) / max(last - first, 1) * (right - left)

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    parts: list[Markup] = []
    for tick in svg.ticks(low, high, 4):
        label = f"{100 * tick:.0f} %" if shares else f"{tick:.7f}".rstrip("0").rstrip(".")
        parts += [line(left, y(tick), right, y(tick), "grid"), text(left - 6, y(tick) + 4, label, "tick", "end")]
    for tick in svg.ticks(first, last, 5):
        if tick == int(tick):
            parts.append(text(x(tick), bottom + 16, int(tick), "tick", "middle"))
    parts.append(text((left + right) / 2, height - 2, "epoch", "tick", "middle"))
    if best is not None and first <= best <= last:
        parts.append(line(x(best), top, x(best), bottom, "best"))
        parts.append(text(x(best), top - 7, "kept", "tick", "middle"))
    ends = []
    for number, (name, curve) in enumerate(series.items()):
        points = [
            (x(epoch), y(value))
            for epoch, value in zip(epochs, curve, strict=True)
            if value is not None and math.isfinite(value)
        ]
        if points:
            parts.append(path(points, f"curve s{number}"))
            marked = points[:: max(1, len(points) // 30)]
            parts += [element("circle", cx=a, cy=b, r=2.5, class_=f"point s{number}") for a, b in marked]
            ends.append([points[-1][1] + 4, number, name])
    for height_at, number, name in _spread(ends, 13, bottom + 4) if len(series) > 1 else ():
        parts.append(text(right + 8, height_at, name, f"label s{number}"))
    last_values = ", ".join(f"{name} {_last(curve, shares)}" for name, curve in series.items())
    return picture(id, WIDTH, height, title, f"{len(epochs)} epochs; at the end: {last_values}.", *parts)


def _last(curve: Sequence[float | None], shares: bool) -> str:
    known = [value for value in curve if value is not None and math.isfinite(value)]
    return "–" if not known else percent(known[-1]) if shares else f"{known[-1]:.3g}"


def _spread(labels: list[list[Any]], gap: float, lowest: float) -> list[list[Any]]:
    """Move labels `[height, ...]` apart, so that none lies on another and the last stays above `lowest`."""
    labels = sorted(labels, key=lambda label: label[0])
    for above, below in itertools.pairwise(labels):
        below[0] = max(below[0], above[0] + gap)
    limit = lowest
    for label in reversed(labels):
        label[0] = min(label[0], limit)
        limit = label[0] - gap
    return labels


def confusion(genres: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """Draw a confusion matrix: true genres as rows, shares of the true genre as colours."""
    n = len(genres)
    has_names, has_counts = n <= _MOST_NAMES, n <= _MOST_COUNTS
    names = ellipsise(genres, 14 if n <= 12 else 18)
    margin = 8 + (6.4 * max(map(len, names)) if has_names else 6)
    cell = max((WIDTH - margin - 4) / n, 22.0 if has_counts else 13.0 if has_names else 4.0)
    top = 8 + (0.72 * margin if has_names else 4)
    parts: list[Markup] = []
    matrix = np.asarray(counts)
    for row in range(n):
        support = matrix[row].sum()
        if has_names:
            parts.append(text(margin - 6, top + (row + 0.5) * cell + 4, names[row], "name", "end"))
            at = margin + (row + 0.5) * cell, top - 6
            turn = f"rotate(-45 {at[0]:.1f} {at[1]:.1f})"
            parts.append(text(*at, names[row], "name", transform=turn))
        parts.append(
            element("rect", x=margin, y=top + row * cell, width=n * cell, height=max(cell - 1, 1), class_="track")
        )
        for column in np.flatnonzero(matrix[row]).tolist():
            count, share = int(matrix[row, column]), matrix[row, column] / support
            title = f"{genres[row]} taken for {genres[column]}" if row != column else f"{genres[row]}, right"
            kind = "cell right" if row == column else "cell wrong"
            where = {"x": margin + column * cell, "y": top + row * cell}
            side = max(cell - 1, 1)
            tip = element("title", f"{title}: {count} of {support}")
            opacity = f"{0.12 + 0.88 * share:.2f}"
            parts.append(element("rect", tip, **where, width=side, height=side, class_=kind, fill_opacity=opacity))
            if has_counts:
                tone = "count strong" if share > 0.45 else "count"
                parts.append(text(where["x"] + side / 2, where["y"] + side / 2 + 4, count, tone, "middle"))
    right, total = int(np.trace(matrix)), int(matrix.sum())
    description = f"Rows are true genres, columns predicted ones. {right} of {total} tracks lie on the diagonal."
    width = margin + n * cell + (0.72 * margin if has_names else 4)
    return picture("confusion", width, top + n * cell + 4, "Confusion matrix", description, *parts)


def reliability(bins: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw a reliability diagram: accuracy of the tracks over the probability of their predicted genre."""
    left, right, top, bottom = 44, WIDTH - 16, 12, 262

    def x(value: float) -> float:
        return left + value * (right - left)

    def y(value: float) -> float:
        return bottom - value * (bottom - top)

    parts: list[Markup] = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts += [
            line(left, y(tick), right, y(tick), "grid"),
            text(left - 6, y(tick) + 4, f"{100 * tick:.0f} %", "tick", "end"),
        ]
        parts.append(text(x(tick), bottom + 16, f"{100 * tick:.0f} %", "tick", "middle" if tick < 1 else "end"))
    parts.append(line(x(0), y(0), x(1), y(1), "ideal"))
    filled = [row for row in bins if row["n"]]
    most = max((row["n"] for row in filled), default=1)
    for row in filled:
        tip = element(
            "title",
            f"{row['n']} tracks, mean probability {percent(row['confidence'])}, {percent(row['accuracy'])} right",
        )
        middle, accuracy = x(row["confidence"]), y(row["accuracy"])
        parts.append(line(middle, y(row["confidence"]), middle, accuracy, "gap"))
        radius = 3 + 9 * math.sqrt(row["n"] / most)
        parts.append(element("circle", tip, cx=middle, cy=accuracy, r=radius, class_="bubble"))
    parts.append(text((left + right) / 2, bottom + 34, "probability of the predicted genre", "tick", "middle"))
    parts.append(text(left + 6, top + 12, "accuracy", "tick"))
    said = "; ".join(f"{percent(row['confidence'])}: {percent(row['accuracy'])} of {row['n']}" for row in filled)
    return picture(
        "reliability", WIDTH, bottom + 40, "Reliability diagram", f"Accuracy by probability. {said}.", *parts
    )


def spread_of_artists(groups: Sequence[tuple[str, int]]) -> Markup:
    """Draw how many artists have none, some or all of their tracks right."""
    left, bar_height, gap = 104, 20, 10
    most = max([1, *(count for _, count in groups)])
    parts = []
    for number, (label, count) in enumerate(groups):
        y = 6 + number * (bar_height + gap)
        width = (WIDTH - left - 44) * count / most
        parts += [
            text(left - 8, y + 15, label, "name", "end"),
            element("rect", x=left, y=y, width=max(width, 1.0), height=bar_height, class_="bar"),
            text(left + width + 6, y + 15, f"{count:,}", "value"),
        ]
    said = ", ".join(f"{label}: {count}" for label, count in groups)
    height = 6 + len(groups) * (bar_height + gap)
    return picture("artists", WIDTH, height, "Artists by the share of their tracks that is right", said + ".", *parts)


def track_map(id: str, name: str, points: np.ndarray, genres: Sequence[int], right: Sequence[bool]) -> Markup:
    """Draw tracks as points: coloured by true genre, filled if the prediction is right.

    Args:
        id: id of the picture.
        name: name of the layout.
        points: positions, float64 `(n, 2)`, the longer axis from 0 to 1.
        genres: index of the true genre of each track.
        right: whether each track is right.
    """
    pad, side = 12, WIDTH - 24
    tall, wide = max(float(points[:, 1].max()) * side, 120.0), float(points[:, 0].max()) * side
    radius = 5.0 if len(points) < 150 else 3.6 if len(points) < 900 else 2.6
    parts = [element("rect", x=0.5, y=0.5, width=WIDTH - 1, height=tall + 2 * pad - 1, rx=6, class_="frame")]
    for row, ((a, b), genre, is_right) in enumerate(zip(points, genres, right, strict=True)):
        parts.append(
            element(
                "circle",
                cx=round(pad + (side - wide) / 2 + a * side, 1),
                cy=round(pad + (1 - b / max(float(points[:, 1].max()), 1e-9)) * tall, 1),
                r=radius,
                class_=f"g{genre % COLOURS}" + ("" if is_right else " miss"),
                data_row=row,
                data_genre=genre,
            )
        )
    wrong = len(right) - int(sum(right))
    said = f"{len(right)} tracks as points, one colour per true genre; the {wrong} wrong ones are hollow."
    return picture(id, WIDTH, tall + 2 * pad, f"Map of the tracks by {name}", said, *parts)
