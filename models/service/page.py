"""The page of a server: one HTML file that requests nothing but the server's answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from mgc.models.service.service import Service
from mgc.pipeline import pages

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
        f"default-src 'none'; connect-src 'self'; img-src data:; media-src blob:; style-src '{pages.digest(css)}'; "
        f"script-src '{pages.digest(js)}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    html = (
        pages.environment(_TEMPLATES)
        .get_template("page.html")
        .render(
            service=service,
            needs_token=needs_token,
            megabytes=f"{service.limits.max_bytes / 1e6:g}",
            minutes=f"{service.limits.max_duration / 60:.3g}",
            css=Markup(css),
            js=Markup(js),
        )
    )
    return Page(html, {"Content-Security-Policy": policy, "Permissions-Policy": "microphone=(self), camera=()"})
