"""The confusion matrices of an evaluation as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mgc.models.evaluation import report
from mgc.models.evaluation.evaluation import Evaluation
from mgc.models.runs import pictures
from mgc.pipeline.escaping import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def confusion_png(evaluation: Evaluation) -> bytes:
    """Draw the confusion matrices as a PNG, with counts as numbers and shares of the true genre as colours."""
    return pictures.png(draw_confusion(evaluation))


def draw_confusion(evaluation: Evaluation) -> Figure:
    """Draw the confusion matrices by track and, if there are scores by slice, by slice."""
    levels = report.score_levels(evaluation)
    genres = [visible(genre) for genre in evaluation.by_track.by_genre]
    side = 2.5 + 0.45 * len(genres) + 0.08 * max(0, *(len(genre) - 10 for genre in genres))
    names = ", ".join(run["model"] for run in evaluation.runs)
    title = f"{names} on the {evaluation.split} split of {evaluation.dataset}"
    figure = pictures.new_figure(side * len(levels) + 0.8, side, title)
    all_axes = figure.subplots(1, len(levels), squeeze=False)[0]
    for axes, (item, scores) in zip(all_axes, levels, strict=True):
        counts = np.array(scores.confusion)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_title(f"{report.counted(scores.n, item)}, {report.percentage(scores.accuracy).strip()} right")
        axes.set_xlabel("predicted genre")
        axes.set_ylabel("true genre")
        axes.set_xticks(range(len(genres)), genres, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
        axes.set_yticks(range(len(genres)), genres, parse_math=False)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour)
    figure.colorbar(image, ax=list(all_axes), label="share of the true genre", shrink=0.8)
    return figure
