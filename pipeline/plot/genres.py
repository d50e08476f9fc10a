"""A picture of the mean spectrum of each genre."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mgc.pipeline import pictures
from mgc.pipeline.plot.reading import GenreMeans
from mgc.pipeline.plot.spectrogram import set_ticks
from mgc.pipeline.plot.view import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Most genres that lines can show: as many as there are colours.
LINES = 8
#: Height of a genre's row in inches, if there are more.
_ROW = 0.16
_DASHES = ("-", "--", "-.", ":")


@pictures.style()
def draw_means(view: View, means: GenreMeans, title: str) -> Figure:
    """Draw mean spectra: up to eight genres as lines, more as rows of their differences from the mean of all."""
    if len(means.counts) <= LINES:
        return _draw_lines(view, means, title)
    return _draw_rows(view, means, title)


def _names(means: GenreMeans) -> list[str]:
    """Labels of the genres, with the number of tracks."""
    shown = pictures.labels(list(means.counts), 30)
    return [f"{name} ({count:,})" for name, count in zip(shown, means.counts.values(), strict=True)]


def _draw_lines(view: View, means: GenreMeans, title: str) -> Figure:
    """Draw the spectra, and below them their differences from the mean of all genres if there are several."""
    curves = view.curve_axis.sample(means.means)
    panels = [(curves, view.label)]
    if len(curves) > 1:
        unit = " (dB)" if view.label.endswith("(dB)") else ""
        panels.append((curves - curves.mean(axis=0), f"difference from\nthe mean{unit}"))
    figure = pictures.new_figure(9, 1.6 + 2.6 * len(panels), title)
    all_axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (values, label) in zip(all_axes, panels, strict=True):
        for number, (line, name) in enumerate(zip(values, _names(means), strict=True)):
            axes.plot(line, label=name, linestyle=_DASHES[number % len(_DASHES)])
        axes.set(ylabel=label, xlim=(0, max(1, curves.shape[1] - 1)))
        axes.grid()
    if len(panels) > 1:
        all_axes[1].axhline(0, color="0.35", linewidth=0.8)
    set_ticks(all_axes[-1], view.curve_axis, "x")
    all_axes[-1].set_xlabel(view.curve_axis.label)
    handles, labels = all_axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside right center", title="genre (tracks)", handlelength=3)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw_rows(view: View, means: GenreMeans, title: str) -> Figure:
    """Draw each genre as a row: blue where it is below the mean of all genres, red where it is above."""
    curves = view.curve_axis.sample(means.means)
    differences = curves - curves.mean(axis=0)
    largest = float(np.percentile(np.abs(differences), 99.5)) or 1.0
    figure = pictures.new_figure(10, 1.6 + _ROW * len(curves), title)
    axes = figure.subplots()
    image = axes.imshow(differences, cmap=pictures.DIVERGING, vmin=-largest, vmax=largest)
    axes.spines[:].set_visible(True)
    axes.set(xlabel=view.curve_axis.label)
    set_ticks(axes, view.curve_axis, "x")
    axes.set_yticks(range(len(curves)), _names(means), fontsize=8)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    figure.colorbar(image, ax=axes, label=f"{view.label}: difference from the mean", pad=0.01, fraction=0.04)
    return figure
