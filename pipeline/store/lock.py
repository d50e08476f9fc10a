"""The write lock of a store: one process at a time writes to it, any number may read it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator

from mgc.pipeline.errors import StoreError
from mgc.pipeline.storage.remote import Place, RemotePath


@contextlib.contextmanager
def write_lock(path: Place) -> Iterator[Callable[[], None]]:
    """Lock a store against other writers while the context lasts.

    For a local store the operating system releases the lock when the process ends, even if it is killed. For a store at
    a URL the lock is a `lease`: it stays for a while after the process is killed, and can be lost.

    Args:
        path: folder or URL of the store.

    Yields:
        Function without arguments that raises `StoreError` if the lock has been lost.

    Raises:
        StoreError: another process holds the lock.
    """
    if isinstance(path, RemotePath):
        from mgc.pipeline.storage import lease

        with lease.hold(path / "lock.json", str(path)) as remote_lock:
            yield remote_lock.require_valid
        return
    import filelock

    holder_file = path / ".holder"
    lock = filelock.FileLock(path / ".lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        holder = holder_file.read_text(errors="replace") if holder_file.exists() else "another process"
        raise StoreError(f"{path}: {holder} is writing to it", "wait for it to end") from None
    try:
        holder_file.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield lambda: None
    finally:
        with contextlib.suppress(OSError):
            holder_file.unlink(missing_ok=True)
        lock.release()
