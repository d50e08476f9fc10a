"""Addresses of the explanations in docs/troubleshooting.md, by the messages that these explain."""

from __future__ import annotations

import re
from importlib import resources

PAGE = "docs/troubleshooting.md"


def address(message: str) -> str | None:
    """Return the page and anchor that explain a message, or None. Of several that fit, the longest text decides.

    `manifests/troubleshooting.txt` holds the headings of the page: parts of messages, one a line.
    """
    listed = (resources.files("mgc.manifests") / "troubleshooting.txt").read_text(encoding="utf-8").splitlines()
    text = max((text for text in listed if text in message), key=len, default=None)
    return f"{PAGE}#{anchor(text)}" if text is not None else None


def anchor(heading: str) -> str:
    """Anchor of a heading, as GitHub and the site make it: lower case, `-` for blanks, no punctuation."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
