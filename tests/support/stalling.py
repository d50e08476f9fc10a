"""Holds a process of a real run at a chosen function call, so that a test can kill it exactly there.

    python stalling.py extract ...                            the command line, held in the client
    DASK_DISTRIBUTED__WORKER__PRELOAD=stalling.py mgc ...     held in a Dask worker (its nanny imports this file)

`$STALL` is a JSON object:

process   `client` or `worker`
at        the function, as `module:name`
call      number of the call in that process, from 1
after     true holds the process after the function has returned, false before it is called
flag      path of a file that is created when the process is held; it continues once `<flag>.go` exists

Run as a program, batches are small, so that a few clips fill many shards.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

BATCH_TRACKS = 2


def install(process: str) -> None:
    """Make the function in `$STALL` hold at the chosen call, if `$STALL` is for this kind of process."""
    stall = json.loads(os.environ.get("STALL", "{}"))
    if stall.get("process") != process:
        return
    module, name = stall["at"].split(":")
    owner = importlib.import_module(module)
    original = getattr(owner, name)
    calls = itertools.count(1)

    def stalling(*arguments: Any, **options: Any) -> Any:
        is_chosen_call = next(calls) == stall["call"]
        if is_chosen_call and not stall["after"]:
            _hold(stall["flag"])
        result = original(*arguments, **options)
        if is_chosen_call:
            _hold(stall["flag"])
        return result

    setattr(owner, name, stalling)


def _hold(flag: str) -> None:
    """Create the flag file and wait until `<flag>.go` exists."""
    Path(flag).touch()
    while not Path(f"{flag}.go").exists():
        time.sleep(0.05)


def dask_setup(worker: object) -> None:
    """Install the stall in a worker; Dask calls this function."""
    install("worker")


def main() -> None:
    """Run the command line with small batches, held where `$STALL` says."""
    from mgc import cli
    from mgc.pipeline.extraction import batches

    batches.BATCH_TRACKS = BATCH_TRACKS
    install("client")
    cli.main()


if __name__ == "__main__":
    main()
