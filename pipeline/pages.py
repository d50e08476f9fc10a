"""HTML pages: templates that escape what they show, and the parts of a Content-Security-Policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mgc.pipeline.escaping import visible


def show_controls(value: object) -> object:
    """Show the control characters of a text; return anything else as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def environment(templates: Path, finalize: Callable[[object], object] = show_controls) -> Environment:
    """Create the environment of the templates in a folder: it escapes all texts, and a missing variable is an error.

    Args:
        templates: the folder.
        finalize: function that each value goes through before it is escaped.
    """
    return Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )


def digest(text: str) -> str:
    """Return what allows an inline script or style sheet in a Content-Security-Policy: `sha256-` and its hash."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}"
