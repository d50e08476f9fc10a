"""The inventory of a workspace as text for `mgc list`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mgc.models.housekeeping.inventory import Item
from mgc.pipeline.escaping import visible
from mgc.pipeline.units import format_size
from mgc.pipeline.wrapping import ellipsise

#: Headings of the kinds, in their order.
HEADINGS = {"dataset": "datasets", "weights": "weights", "store": "stores", "run": "runs", "remains": "remains"}
#: Smallest width of a column of names.
_MIN_NAME = 20


def text(items: Sequence[Item], root: Path, width: int) -> str:
    """Format the inventory, a table for each kind.

    Args:
        items: the items.
        root: the workspace.
        width: columns of the terminal.
    """
    total = format_size(sum(item.bytes for item in items))
    lines = [f"{visible(str(root))}: {total}" if items else f"{visible(str(root))}: nothing"]
    for kind, heading in HEADINGS.items():
        chosen = [item for item in items if item.kind == kind]
        if chosen:
            lines += ["", f"{heading} ({len(chosen)}, {format_size(sum(item.bytes for item in chosen))})"]
            lines += _rows(chosen, width)
    if any(item.kind == "remains" for item in items):
        lines += ["", "`mgc remove NAME` finishes the removals that were interrupted"]
    return "\n".join(lines)


def _rows(items: Sequence[Item], width: int) -> list[str]:
    """Format items of a kind as lines of name, columns of its kind, size and remarks."""
    columns = [_columns(item) for item in items]
    widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
    cells = ["  ".join(_align(cell, size) for cell, size in zip(row, widths, strict=True)) for row in columns]
    ends = [f"{cell}  {remark}".rstrip() for cell, remark in zip(cells, map(_remarks, items), strict=True)]
    room = max(_MIN_NAME, width - max(map(len, ends)) - 4)
    names = ellipsise([visible(item.name.partition("/")[2] or item.name) for item in items], room)
    longest = max(map(len, names))
    return [f"  {name:<{longest}}  {end}" for name, end in zip(names, ends, strict=True)]


def _align(cell: str, width: int) -> str:
    """Pad a cell to a width: numbers, which begin with a digit or `-`, to the left, words to the right."""
    return f"{cell:>{width}}" if cell[:1].isdigit() or cell == "-" else f"{cell:<{width}}"


def _columns(item: Item) -> tuple[str, ...]:
    """Cells of an item between its name and the remarks; those of one kind have the same number."""
    size = "" if item.is_link else format_size(item.bytes)
    tracks = f"{item.tracks:,} tracks" if item.tracks is not None else ""
    if item.kind == "store":
        return (visible(str(item.details["feature"] or "?")), tracks, size)
    if item.kind == "run":
        accuracy = item.details["accuracy"]
        score = f"{100 * accuracy:.1f} %" if isinstance(accuracy, int | float) else "-"
        return (visible(str(item.details["model"] or "?")), score, size)
    return (tracks, size) if item.kind == "dataset" else (f"{item.files:,} files", size)


def _remarks(item: Item) -> str:
    """What else is to be said of an item, in a few words."""
    return ", ".join(
        word
        for word, applies in (
            ("latest", item.latest),
            ("unfinished", not item.finished and item.kind != "remains"),
            ("leaky", item.details.get("leaky", False)),
            ("link", item.is_link),
        )
        if applies
    )


def removal_lines(item: Item, consequences: Iterable[str], verb: str) -> list[str]:
    """Say what is removed: kind, path, size and number of files, and below it what needs it.

    Args:
        item: the item.
        consequences: see `removal.consequences`.
        verb: `remove`, `would remove` or `removed`.
    """
    what = "remains of a removal" if item.kind == "remains" else item.kind
    latest = ", the latest" if item.latest else ""
    head = f"{verb} {what} {item.path}{latest}: {format_size(item.bytes)} in {item.files:,} files"
    return [head, *(f"  {line}" for line in consequences)]
