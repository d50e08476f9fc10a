"""Pictures: the style that all of them share, names as labels, and their PNG and SVG files.

A function that draws runs in `style`, which makes the picture independent of the user's own settings of matplotlib.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING

from mgc.pipeline.errors import SpecError
from mgc.pipeline.escaping import visible
from mgc.pipeline.wrapping import ellipsise

if TYPE_CHECKING:
    from pathlib import PurePath

    from matplotlib.figure import Figure

#: Formats of pictures, by the ending of a file's name.
FORMATS = ("png", "svg")
#: Colour map of values around 0.
DIVERGING = "RdBu_r"
#: Colour of a warning: Okabe and Ito's vermilion, darkened so that text on white has a contrast of 4.5.
ALARM = "#B84A00"
#: Fonts for characters that matplotlib's own font lacks, if they are installed: CJK, Indic scripts, Thai, symbols.
_FALLBACKS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Source Han Sans", "Hiragino Sans", "PingFang SC",
    "Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "WenQuanYi Zen Hei", "Droid Sans Fallback",
    "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Telugu", "Nirmala UI",
    "Noto Sans Thai", "Leelawadee UI", "Noto Sans Ethiopic", "Noto Sans Symbols 2", "Segoe UI Symbol",
    "Apple Symbols", "FreeSans", "Arial Unicode MS", "Unifont",
)  # fmt: skip


@contextmanager
def style() -> Iterator[None]:
    """Apply the style sheet in a block, or as a decorator in a function, on top of matplotlib's defaults."""
    import matplotlib.style
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = ["DejaVu Sans", *(name for name in _FALLBACKS if name in installed)]
    with (
        resources.as_file(resources.files("mgc.manifests") / "mgc.mplstyle") as sheet,
        matplotlib.style.context(["default", sheet, {"font.family": families}]),
    ):
        yield


def new_figure(width: float, height: float, title: str, *, alarm: str = "") -> Figure:
    """Create a figure whose parts get space of their own, so that no text lies on another.

    Args:
        width: width in inches; a PNG has 120 pixels per inch.
        height: height in inches.
        title: title of the whole picture, which is wrapped; control characters are escaped.
        alarm: what a reader must know before the numbers; it precedes the title and colours it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    text = visible(f"{alarm}: {title}" if alarm else title)
    colour, weight = (ALARM, "bold") if alarm else ("black", "normal")
    # `parse_math`: a name may hold a dollar sign.
    figure.suptitle(text, parse_math=False, wrap=True, color=colour, weight=weight)
    return figure


def labels(names: Sequence[str], width: int = 24) -> list[str]:
    """Make labels of names: escaped, and at most `width` characters long; different names stay different."""
    return ellipsise([visible(name) for name in names], width)


def format_of(path: PurePath) -> str:
    """Return the format that the ending of a file's name stands for.

    Raises:
        SpecError: it is none of `FORMATS`.
    """
    name = path.suffix.removeprefix(".").lower()
    if name not in FORMATS:
        raise SpecError(f"{path}: unknown kind of picture", f"end its name with .{' or .'.join(FORMATS)}")
    return name


def encode(figure: Figure, format: str = "png") -> bytes:
    """Encode a figure as PNG or SVG; equal figures give equal bytes. Text in an SVG is drawn as outlines."""
    buffer = io.BytesIO()
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[format]
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box stands for it
        figure.savefig(buffer, format=format, metadata=metadata)
    return buffer.getvalue()
