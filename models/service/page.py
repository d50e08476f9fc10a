"""The page of a server: one HTML file that requests nothing but the server's answers."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mgc.models.service.service import Service
from mgc.pipeline.escaping import visible

_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Page:
    """The page, and the HTTP headers that it is sent with."""

    html: str
    headers: dict[str, str]


def render(service: Service, *, needs_token: bool) -> Page:
    """Render the page of a server.

    Args:
        service: the server's model and limits.
        needs_token: whether the page asks for a token.
    """
    css, js = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; media-src blob:; style-src '{_digest(css)}'; "
        f"script-src '{_digest(js)}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_show_controls,
    )
    html = environment.get_template("page.html").render(
        service=service,
        needs_token=needs_token,
        megabytes=f"{service.limits.max_bytes / 1e6:g}",
        minutes=f"{service.limits.max_duration / 60:.3g}",
        css=Markup(css),
        js=Markup(js),
    )
    return Page(html, {"Content-Security-Policy": policy, "Permissions-Policy": "microphone=(self), camera=()"})


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}"


def _show_controls(value: object) -> object:
    """Show the control characters of a text."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
