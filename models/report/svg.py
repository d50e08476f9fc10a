"""Elements of SVG as escaped text, and the ticks of an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from mgc.pipeline.escaping import visible


def element(name: str, *children: object, **attributes: object) -> Markup:
    """Make an element; texts among its children and attributes are escaped.

    Args:
        name: name of the element.
        children: elements, or texts.
        attributes: a trailing underscore is dropped (`class_`), others become hyphens; None leaves an attribute out.
    """
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    content = Markup().join(child if isinstance(child, Markup) else escape(_text(child)) for child in children)
    return Markup(f"<{name}{pairs}>{content}</{name}>") if children else Markup(f"<{name}{pairs}/>")


def picture(id: str, width: float, height: float, title: str, description: str, *children: object) -> Markup:
    """Make a picture with a title and a description for those who cannot see it.

    Args:
        id: id of the picture, unique in the page.
        width, height: size of its drawing in pixels; a page may show it larger or smaller.
        title: short title.
        description: what the picture shows, in a sentence or two.
        children: its elements.
    """
    labels = element("title", title, id=f"{id}-title"), element("desc", description, id=f"{id}-desc")
    return element(
        "svg",
        *labels,
        *children,
        id=id,
        viewBox=f"0 0 {_text(width)} {_text(height)}",
        role="img",
        aria_labelledby=f"{id}-title",
        aria_describedby=f"{id}-desc",
    )


def text(x: float, y: float, content: object, class_: str = "", anchor: str = "start", **attributes: object) -> Markup:
    """Make a text at a point of its baseline."""
    return element("text", content, x=x, y=y, class_=class_ or None, text_anchor=anchor, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Make a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """Make a line through points."""
    steps = "L".join(f"{_text(x)} {_text(y)}" for x, y in points)
    return element("path", d=f"M{steps}", class_=class_)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two limits, at most about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _text(value: object) -> str:
    """Format a number with two decimals at most; show the control characters of a text."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".") or "0"
    return visible(str(value))
