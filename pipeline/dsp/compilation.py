"""The first compilation on a machine, by one process at a time.

Numba keeps what it compiles in files, a vectorised function and its wrapper in one each. Two processes that compile
librosa's at the same time in a new environment can leave a wrapper beside a function that it does not fit, and every
process that calls it from then on ends by a segmentation fault (seen with librosa 0.11 and Numba 0.68).
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

#: Whose functions are compiled, and by what.
_LIBRARIES = ("librosa", "numba", "llvmlite", "numpy")


@cache
def _environment() -> list[str]:
    """What keeps the compiled functions of one environment from those of another; 4 ms to find out."""
    return [sys.prefix, *(version(name) for name in _LIBRARIES)]


@contextlib.contextmanager
def first_alone(names: Iterable[str]) -> Iterator[None]:
    """Around what may compile: processes wait for the first of them, unless it has been done before.

    Args:
        names: what the work depends on.
    """
    key = [*_environment(), *sorted(names)]
    done = platformdirs.user_cache_path("mgc") / f"compiled-{files.digest(chr(0).join(key).encode())}"
    lock = FileLock(f"{done}.lock")
    with contextlib.suppress(OSError):  # without a folder of one's own there is nothing to wait for
        done.parent.mkdir(parents=True, exist_ok=True)
        if not done.exists():
            lock.acquire()
        if done.exists():
            lock.release()
    try:
        yield
        if lock.is_locked:
            done.touch()
    finally:
        lock.release()
