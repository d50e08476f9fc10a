"""Makes decoding of some files deadly, in Dask workers that have this file as `DASK_DISTRIBUTED__WORKER__PRELOAD`.

A file whose name begins with `deadly` has the worker process that reads it killed, as the system does where memory runs
out; with `faulty`, it makes it read where it may not; with `endless`, it keeps the process busy for ever in C code that
holds the interpreter lock, so that not even Dask's own threads run any more.
"""

from __future__ import annotations

import ctypes
import os
import signal


def dask_setup(worker: object) -> None:
    from mgc.pipeline.audio.inspection import AudioFile
    from mgc.pipeline.extraction import worker

    inspect = worker.inspect

    def hazardous(path: bytes) -> AudioFile:
        name = os.path.basename(path)  # noqa: PTH119  paths are bytes here
        if name.startswith(b"deadly"):
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith(b"faulty"):
            ctypes.string_at(0)
        if name.startswith(b"endless"):
            ctypes.PyDLL(None).pause()
        return inspect(path)

    worker.inspect = hazardous
