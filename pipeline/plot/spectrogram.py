"""Pictures of tracks: the spectrogram of one, and a sheet with one track of each genre."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mgc.pipeline import pictures
from mgc.pipeline.features import Waveform
from mgc.pipeline.plot.reading import Part
from mgc.pipeline.plot.view import BinAxis, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

#: Most columns of a spectrogram, and of one on a sheet: about the pixels that it has.
COLUMNS, SHEET_COLUMNS = 1200, 400
#: Spectrograms side by side on a sheet, and width and height of each in inches.
_ACROSS, _PANEL = 4, (2.9, 1.5)


@pictures.style()
def draw_track(view: View, part: Part) -> Figure:
    """Draw a part of a track: time in seconds, and the bins of its frames."""
    names = [part.row["track_id"], part.row["genre"], view.spec.name]
    figure = pictures.new_figure(10, 4.5, ", ".join(name for name in names if name))
    axes = figure.subplots()
    draw_panel(figure, axes, view, part)
    axes.set_xlabel("time (s)")
    return figure


def draw_panel(figure: Figure, axes: Axes, view: View, part: Part) -> None:
    """Draw a part of a track into axes of a figure, with the axis of its bins and a colour bar."""
    axes.set_ylabel(view.axis.label)
    image = _draw_part(axes, view, part, view.limits(part.columns))
    if image is not None:
        set_ticks(axes, view.axis, "y")
        figure.colorbar(image, ax=axes, label=view.label, pad=0.01)


@pictures.style()
def draw_sheet(view: View, parts: Sequence[Part], title: str) -> Figure:
    """Draw one track of each genre with common axes and colours.

    Args:
        view: how the frames are shown.
        parts: a part of a track of each genre.
        title: title of the sheet.
    """
    across = min(_ACROSS, len(parts))
    figure, panels, bar = _lay_out(math.ceil(len(parts) / across), across, title)
    limits = view.limits(np.concatenate([part.columns for part in parts]))
    genres = pictures.labels([str(part.row["genre"]) for part in parts], 22)
    ids = [pictures.labels([part.row["track_id"]], 12)[0] for part in parts]
    start, stop = min(part.start_s for part in parts), max(part.stop_s for part in parts)
    image = None
    for number, (axes, part) in enumerate(zip(panels, parts, strict=False)):
        image = _draw_part(axes, view, part, limits)
        axes.set_title(f"{genres[number]} ({ids[number]})", parse_math=False, fontsize=9)
        axes.set_xlim(start, stop)
        if image is not None:
            set_ticks(axes, view.axis.thinned(5), "y")
        axes.tick_params(labelleft=number % across == 0, labelbottom=number + across >= len(parts))
    for axes in panels[len(parts) :]:
        axes.set_visible(False)
    figure.supxlabel("time (s)", fontsize=9.5, y=0.1 / figure.get_figheight(), va="bottom")
    figure.supylabel(view.axis.label, fontsize=9.5, x=0.1 / figure.get_figwidth(), ha="left")
    if image is None:
        bar.set_visible(False)
    else:
        figure.colorbar(image, cax=bar, label=view.label)
    return figure


def _lay_out(rows: int, across: int, title: str) -> tuple[Figure, list[Axes], Axes]:
    """Create a figure with a grid of panels and an axes for a colour bar at its right.

    The margins are fixed: matplotlib's layout of 161 panels takes a minute.
    """
    left, right, top, bottom, gap = 1.0, 1.1, 0.9, 0.65, 0.4  # inches
    width, height = left + right + _PANEL[0] * across, top + bottom + (_PANEL[1] + gap) * rows - gap
    figure = pictures.new_figure(width, height, title)
    figure.set_layout_engine("none")
    figure.suptitle(figure.get_suptitle(), y=1 - 0.15 / height)
    frame = {"left": left / width, "right": 1 - right / width, "top": 1 - top / height, "bottom": bottom / height}
    grid = figure.add_gridspec(rows, across, wspace=0.08, hspace=gap / _PANEL[1], **frame)
    tall = min(frame["top"] - frame["bottom"], 4 / height)
    bar = figure.add_axes((1 - (right - 0.15) / width, frame["top"] - tall, 0.15 / width, tall))
    return figure, [figure.add_subplot(grid[number]) for number in range(rows * across)], bar


def _draw_part(axes: Axes, view: View, part: Part, limits: tuple[float, float]) -> ScalarMappable | None:
    """Draw a part of a track; return the image for a colour bar, or None for a waveform, which has none."""
    if isinstance(view.spec, Waveform):
        times = np.linspace(part.start_s, part.stop_s, len(part.columns), endpoint=False)
        axes.fill_between(times, part.columns[:, 0], part.columns[:, 1], color="C0", linewidth=0.5)
        axes.set(xlim=(part.start_s, part.stop_s), ylim=(-1.02, 1.02))
        return None
    extent = (part.start_s, part.stop_s, -0.5, part.columns.shape[1] - 0.5)
    return axes.imshow(
        part.columns.T,
        origin="lower",
        extent=extent,
        cmap=view.colours,
        vmin=limits[0],
        vmax=limits[1],
        interpolation_stage="data",
    )


def set_ticks(axes: Axes, bins: BinAxis, which: str) -> None:
    """Set the ticks of the `x` or `y` axis to those of the bins."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(bins.ticks, bins.tick_labels)
