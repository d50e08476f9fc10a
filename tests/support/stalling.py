"""Holds a real run at a chosen call, so that a test can kill it exactly there.

    python stalling.py extract ...                            the command line, held in the client
    DASK_DISTRIBUTED__WORKER__PRELOAD=stalling.py mgc ...     held in a Dask worker (its nanny imports this file)

`$STALL` is a JSON object: `process`, client or worker; `at`, a function as `module:name`; `call`, which of its calls in
the process; `after`, whether the function has returned; `flag`, a file that appears when the moment has come. It goes
on once there is a file of that name with `.go` behind it. As program, deals are small, so that a few clips make many
shards.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

DEAL_TRACKS = 2


def install(process: str) -> None:
    stall = json.loads(os.environ.get("STALL", "{}"))
    if stall.get("process") != process:
        return
    module, name = stall["at"].split(":")
    owner = importlib.import_module(module)
    original = getattr(owner, name)
    calls = itertools.count(1)

    def held(*arguments: Any, **options: Any) -> Any:
        due = next(calls) == stall["call"]
        if due and not stall["after"]:
            _hold(stall["flag"])
        result = original(*arguments, **options)
        if due:
            _hold(stall["flag"])
        return result

    setattr(owner, name, held)


def _hold(flag: str) -> None:
    Path(flag).touch()
    while not Path(f"{flag}.go").exists():
        time.sleep(0.05)


def dask_setup(worker: object) -> None:
    install("worker")


def main() -> None:
    from mgc import cli
    from mgc.pipeline.extraction import planning

    planning.DEAL_TRACKS = DEAL_TRACKS
    install("client")
    cli.main()


if __name__ == "__main__":
    main()
