"""How files are fetched: from which server, and how long it is waited for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from mgc.pipeline.datasets.published import Archive
from mgc.pipeline.errors import UsageError

#: Seconds in which a connection has to be made, at most: without a network, the user should not wait.
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Settings:
    """How files are fetched.

    Attributes:
        note: prints a line for the user.
        mirror: address of a folder that holds the files, in place of the published addresses; None for these.
        timeout: seconds without a byte after which a connection counts as broken.
        retries: attempts after the first one that brought nothing new.
    """

    note: Callable[[str], None]
    mirror: str | None = None
    timeout: float = 30.0
    retries: int = 5

    def __post_init__(self) -> None:
        if self.mirror is not None and not _is_http(self.mirror):
            raise UsageError(f"--mirror {self.mirror}", "it must be an address such as https://host/folder")

    def urls(self, archive: Archive) -> list[str]:
        """The addresses of an archive, in the order in which they are tried."""
        if self.mirror is not None:
            return [f"{self.mirror.rstrip('/')}/{archive.name}"]
        return [archive.url, *archive.mirrors]

    @property
    def limits(self) -> tuple[float, float]:
        """Seconds to connect, and between two bytes."""
        return min(self.timeout, _CONNECT_SECONDS), self.timeout


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket or a port that is none
        return False


def public(url: str) -> str:
    """An address without the user's name and password in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
