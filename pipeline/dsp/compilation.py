"""A lock for the first compilation of librosa's functions on a machine.

Numba caches a vectorised function and its wrapper in separate files. If two processes compile the same function of
librosa at the same time in a new environment, the wrapper of one can be left beside the function of the other; every
process that calls it from then on ends with a segmentation fault (seen with librosa 0.11 and Numba 0.68).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import version

import platformdirs
from filelock import FileLock

from mgc.pipeline.storage import files

#: Packages whose versions decide whether a function is compiled again.
_PACKAGES = ("librosa", "numba", "llvmlite", "numpy")


@cache
def _environment() -> list[str]:
    """Return what identifies this environment's compiled functions: its folder and versions. Takes 4 ms."""
    return [sys.prefix, *(version(name) for name in _PACKAGES)]


@contextlib.contextmanager
def compilation_lock(names: Iterable[str]) -> Iterator[None]:
    """Hold a lock while functions may be compiled; a marker file records success, so later calls need no lock.

    Processes wait for the first one. If it fails or is killed, the next one holds the lock.

    Args:
        names: names of the features to be computed. Each set of names has its own lock and marker.
    """
    key = [*_environment(), *sorted(names)]
    marker = platformdirs.user_cache_path("mgc") / f"compiled-{files.digest(chr(0).join(key).encode())}"
    lock = FileLock(f"{marker}.lock")
    with contextlib.suppress(OSError):  # no writable cache folder: go on without a lock
        marker.parent.mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            lock.acquire()
        if marker.exists():
            lock.release()
    try:
        yield
        if lock.is_locked:
            marker.touch()
    finally:
        lock.release()
