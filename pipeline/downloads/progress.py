"""Progress of transfers in bytes, with the time that is left: tqdm on a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from mgc.pipeline import console
from mgc.pipeline.units import format_seconds, format_size

#: Seconds between two lines, at least and at most, where there is no terminal.
_SHORTEST, _LONGEST = 2.0, 60.0


class Progress:
    """Progress of one file.

    Args:
        label: name of the file, or of what is done with it.
        bar: the bar of tqdm; None prints lines on stderr.
    """

    def __init__(self, label: str, bar: Any = None) -> None:
        self._label, self._bar = label, bar
        self._total: int | None = None
        self._position = self._first = self._printed = 0
        self._began = self._last = time.monotonic()

    def begin(self, position: int, total: int | None) -> None:
        """Begin at a position, or go back to it.

        Args:
            position: bytes that are there already.
            total: length of the whole; None if it is unknown.
        """
        self._total, self._position, self._first, self._printed = total, position, position, position
        self._began = self._last = time.monotonic()
        if self._bar is not None:
            self._bar.reset(total)
            self._bar.initial = self._bar.n = position
            self._bar.refresh()

    def advance(self, n_bytes: int) -> None:
        """Count further bytes."""
        self._position += n_bytes
        if self._bar is not None:
            self._bar.update(n_bytes)
            return
        waited = time.monotonic() - self._last
        tenth = self._total is not None and (self._position - self._printed) * 10 >= self._total
        if waited >= _LONGEST or (tenth and waited >= _SHORTEST):
            self._print()

    def _print(self) -> None:
        self._printed, self._last = self._position, time.monotonic()
        text = f"{self._label}: {format_size(self._position)}"
        if self._total is not None:
            speed = (self._position - self._first) / max(self._last - self._began, 1e-9)
            text += f" of {format_size(self._total)}"
            if speed > 0:
                text += f", about {format_seconds((self._total - self._position) / speed)} left"
        console.echo(text, err=True)


@contextlib.contextmanager
def showing(label: str) -> Iterator[Progress]:
    """Show the progress of one file while the context lasts."""
    if not sys.stderr.isatty():
        yield Progress(label)
        return
    from tqdm import tqdm

    with tqdm(desc=label, unit="B", unit_scale=True) as bar:
        yield Progress(label, bar)
