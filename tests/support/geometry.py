"""Geometry of pictures: whether texts, legends and data have space of their own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

#: Points by which boxes may overlap: those of texts include a margin.
_TOLERANCE = 1.0


def texts(figure: Figure) -> list[Text]:
    """The texts that a figure shows; call `draw_without_rendering` before."""
    found = [*figure.texts, *([figure._suptitle] if figure._suptitle else [])]
    for axes in figure.axes:
        found += [axes.title, axes._left_title, axes._right_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        found += tick_labels(axes)
        found += axes.get_legend().get_texts() if axes.get_legend() else []
    for legend in figure.legends:
        found += legend.get_texts()
    return [text for text in dict.fromkeys(found) if text.get_visible() and text.get_text()]


def tick_labels(axes: Axes) -> Iterator[Text]:
    """The labels of the ticks that lie in the range of an axis."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        inside = [tick for tick in ticks if low <= tick.get_loc() <= high]
        yield from (label for tick in inside for label in (tick.label1, tick.label2) if label.get_visible())


def overlap(one: Bbox, other: Bbox) -> bool:
    shared = Bbox.intersection(one, other)
    return shared is not None and min(shared.width, shared.height) > _TOLERANCE


def _slanted(text: Text) -> bool:
    return text.get_rotation() % 90 != 0


def assert_legible(figure: Figure) -> None:
    """No text lies on another or outside the picture, and no legend on data. Slanted labels may stand side by side."""
    figure.draw_without_rendering()
    shown = texts(figure)
    boxes = {text: text.get_window_extent() for text in shown}
    picture = figure.get_tightbbox().transformed(figure.dpi_scale_trans).padded(_TOLERANCE)
    for one, other in itertools.combinations(shown, 2):
        if not (_slanted(one) and _slanted(other)):
            assert not overlap(boxes[one], boxes[other]), (one.get_text(), other.get_text())
    for text, box in boxes.items():
        assert picture.contains(box.x0, box.y0), text.get_text()
        assert picture.contains(box.x1, box.y1), text.get_text()
    for legend in (*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())):
        box = legend.get_window_extent()
        for axes in figure.axes:
            assert not overlap(box, axes.get_window_extent()), "the legend lies on data"
