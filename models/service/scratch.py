"""The folder of what a server keeps while it answers: files that were sent, and their frames."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = "mgc-serve-"
_LOCK = ".lock"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create a folder that only this user can read, and remove it with all that is in it.

    A server that is killed by SIGKILL cannot remove its folder; the next one does so.
    """
    parent = Path(tempfile.gettempdir())
    _remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    lock = FileLock(folder / _LOCK)
    try:
        with lock:
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of servers that no longer run: nobody holds their locks."""
    for folder in parent.glob(f"{_PREFIX}*"):
        lock = folder / _LOCK
        with contextlib.suppress(Timeout, OSError):
            if lock.is_file():
                with FileLock(lock, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
