"""The confusion matrices of an evaluation as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mgc.models.evaluation import report
from mgc.models.evaluation.evaluation import Evaluation
from mgc.pipeline import pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

#: Side of a cell in inches: the largest; the smallest, so that 161 genres make 18 inches; the smallest with a number.
_CELL, _MIN_CELL, _NUMBERED = 0.45, 0.11, 0.26
#: Most genres of which the matrix by slice is drawn beside that by track.
_BESIDE = 40
#: Inches that the cells of one matrix take, if they can be small enough.
_SIDE = 8.0
#: Most characters of a genre's name.
_LABEL = 24


def confusion_png(evaluation: Evaluation) -> bytes:
    """Draw the confusion matrices as a PNG, with counts as numbers and shares of the true genre as colours."""
    return pictures.encode(draw_confusion(evaluation))


@pictures.style()
def draw_confusion(evaluation: Evaluation) -> Figure:
    """Draw the confusion matrices by track and, if there are scores by slice and at most 40 genres, by slice.

    The more genres, the smaller are the cells; the numbers are left out where they would not fit.
    """
    n_genres = len(evaluation.by_track.by_genre)
    levels = report.score_levels(evaluation)[: 2 if n_genres <= _BESIDE else 1]
    genres = pictures.labels(list(evaluation.by_track.by_genre), _LABEL)
    cell = float(np.clip(_SIDE / n_genres, _MIN_CELL, _CELL))
    side = 2 + cell * n_genres + 0.08 * max(len(genre) for genre in genres)
    alarm = "LEAKY" if evaluation.leaky else ""
    figure = pictures.new_figure(side * len(levels) + 0.8, side, _title(evaluation), alarm=alarm)
    all_axes = figure.subplots(1, len(levels), squeeze=False)[0]
    for axes, (item, scores) in zip(all_axes, levels, strict=True):
        image = _draw_matrix(axes, np.array(scores.confusion), genres, cell)
        axes.set_title(f"{report.counted(scores.n, item)}, {report.percentage(scores.accuracy).strip()} right")
    figure.colorbar(image, ax=list(all_axes), label="share of the true genre", shrink=0.8, fraction=0.04, pad=0.02)
    return figure


def _title(evaluation: Evaluation) -> str:
    """Say which runs were evaluated on which data; runs of one model are counted."""
    models = [run["model"] for run in evaluation.runs]
    names = (
        f"{models.count(model)} × {model}" if models.count(model) > 1 else model for model in dict.fromkeys(models)
    )
    return f"{', '.join(names)} on {report.place(evaluation)}"


def _draw_matrix(axes: Axes, counts: np.ndarray, genres: list[str], cell: float) -> AxesImage:
    """Draw a confusion matrix with cells of this size in inches; return its image for the colour bar."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    axes.spines[:].set_visible(True)
    axes.set(xlabel="predicted genre", ylabel="true genre")
    size = min(8.5, 60 * cell)  # points: a line of text is 72 per inch
    rotation, align = (45, "baseline") if cell > _NUMBERED else (90, "center")
    axes.set_xticks(range(len(genres)), genres, rotation=rotation, ha="right", va=align, rotation_mode="anchor")
    axes.tick_params(labelsize=size)
    axes.set_yticks(range(len(genres)), genres)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
    if cell < _NUMBERED:
        return image
    digits = len(str(counts.max()))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            size = min(8.5, 100 * cell / max(digits, 3))
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)
    return image
