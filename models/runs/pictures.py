"""Pictures in the folder of a run: a figure with the title and font sizes that all of them share, and its PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from mgc.pipeline.escaping import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float, title: str) -> Figure:
    """Create a figure whose parts get space of their own, so that no text lies on another.

    Args:
        width: width in inches; the picture has 120 pixels per inch.
        height: height in inches.
        title: title of the whole picture; control characters are escaped.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(width, height), dpi=120, layout=layout)
    figure.suptitle(visible(title), parse_math=False)  # a name may hold a dollar sign
    return figure


def png(figure: Figure) -> bytes:
    """Encode a figure as PNG; a title that is wider than the figure widens the picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()
