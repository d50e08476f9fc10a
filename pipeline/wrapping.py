"""Text for a terminal of a given width: wrapped lines, and names that are shortened to fit a table."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

#: Columns of a terminal of unknown width.
WIDTH = 80


def wrap(line: str, width: int = WIDTH, indent: int = 0) -> list[str]:
    """Wrap a line at its blanks, but not between a number and its percent sign. A longer word, as a path, overflows.

    Args:
        line: the line; blanks at its start are kept.
        width: columns of the terminal.
        indent: columns by which all but the first line are indented.
    """
    glued = line.replace(" %", "\N{NO-BREAK SPACE}%")
    lines = textwrap.wrap(glued, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    return [part.replace("\N{NO-BREAK SPACE}%", " %") for part in lines]


def ellipsise(names: Sequence[str], width: int) -> list[str]:
    """Shorten names that are longer than `width` by an ellipsis, so that different names stay different if possible.

    The ellipsis replaces the end of a name, or its middle if names would become equal.
    """
    shortened: list[str] = []
    for tail in (0, (width - 1) // 2, *range(1, width - 1)):
        head = max(0, width - 1 - tail)
        cut = [name if len(name) <= width else f"{name[:head]}…{name[len(name) - tail :]}" for name in names]
        shortened = shortened or cut
        if len(set(cut)) == len(set(names)):
            return cut
    return shortened
