"""Dask preload that delays the second start of a worker by 20 s, when Dask has already given it up.

`$TARDY` is a folder; each start of a worker creates a file in it, named by its process id.
"""

from __future__ import annotations

import os
import time
from pathlib import Path


def dask_setup(worker: object) -> None:
    """Count the start of a worker, and delay it if it is the second; Dask calls this function."""
    starts = Path(os.environ["TARDY"])
    (starts / str(os.getpid())).touch()
    if len(list(starts.iterdir())) == 2:
        time.sleep(20)
