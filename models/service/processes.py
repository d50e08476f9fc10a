"""What each decoding process of a server does when it starts, also one that replaces a process that died."""

from __future__ import annotations

import signal

from distributed import Worker, WorkerPlugin

from mgc.pipeline.extraction.cluster import silence_stderr


class ProcessSetup(WorkerPlugin):
    """Dask plugin: the process writes no notes of C libraries, and Ctrl-C in the server's terminal does not end it.

    So running requests are finished. The process ends when the server does.
    """

    name = "mgc-serve"

    def setup(self, worker: Worker) -> None:
        """Set up the process; Dask calls this in its main thread."""
        silence_stderr()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
