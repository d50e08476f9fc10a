"""One writer at a time on an object store: an object that names its holder, and expires unless the holder renews it.

Neither filelock (its locks are files on a mounted drive), nor Dask (they live in a scheduler, and two writers may have
two), nor fsspec has such a lock.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from mgc.pipeline.errors import StoreError
from mgc.pipeline.storage.remote import RemotePath
from mgc.pipeline.storage.servers import attempt

#: Seconds until a lock expires that is not renewed, and between renewals. Clocks may differ by less than the first.
EXPIRY_S = 180
RENEWAL_S = 30


class Lease:
    """A lock object, held: its holder renews it from a thread until `free`.

    Making it is a conditional PUT (`If-None-Match: *`); renewing it, and taking over one that has expired, a PUT on
    condition that the object is still the one that was read (`If-Match`). Of several writers one succeeds. On `gs` both
    conditions are `ifGenerationMatch`, with 0 or the generation that was read.

    Args:
        path: the object.
        what: what it guards, for messages.

    Raises:
        StoreError: another process holds it.
        OSError: the store cannot be written, or knows no conditional PUT.
    """

    def __init__(self, path: RemotePath, what: str) -> None:
        self._path, self._what = path, what
        self._token = uuid.uuid4().hex
        self._lost = ""
        self._freed = threading.Event()
        self._valid_until = self._acquire()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Raise `StoreError` where the lock was lost: this process was stopped, or cut off, for too long."""
        if self._lost or time.time() > self._valid_until:
            who = self._lost or "nobody renewed it, and it expired"
            raise StoreError(f"{self._what}: its lock was lost ({who})", "run the same command again: it continues")

    def free(self) -> None:
        """Remove the object, if it is still ours."""
        self._freed.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if not self._lost and json.loads(self._path.read_bytes()).get("token") == self._token:
                self._path.unlink(missing_ok=True)

    def _body(self, expires: float) -> bytes:
        body = {
            "holder": f"process {os.getpid()} on {socket.gethostname()}",
            "token": self._token,
            "expires": expires,
            "until": datetime.fromtimestamp(expires, UTC).isoformat(timespec="seconds"),
        }
        return (json.dumps(body, indent=2) + "\n").encode()

    def _acquire(self) -> float:
        for _ in range(3):  # it may be freed, or taken over, between two requests
            expires = time.time() + EXPIRY_S
            try:
                self._path.create(self._body(expires))
                return expires
            except FileExistsError:
                pass
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                etag, held = self._read()
                if held.get("token") == self._token:  # an answer was lost, and the request made again
                    return float(held["expires"])
                if time.time() < float(held["expires"]):
                    raise StoreError(
                        f"{self._what}: {held['holder']} is writing to it",
                        f"wait for it to end; what was killed holds its lock until {held['until']}",
                    )
                expires = time.time() + EXPIRY_S
                _replace(self._path, self._body(expires), etag)
                return expires
        raise StoreError(f"{self._what}: other processes are writing to it", "wait for them to end")

    def _read(self) -> tuple[str, dict[str, Any]]:
        """The object's ETag, and what it says: what was written between the two requests fails the condition later."""
        etag = _etag(self._path)
        try:
            held = json.loads(self._path.read_bytes())
            return etag, {"holder": str(held["holder"]), "token": held["token"],
                          "expires": float(held["expires"]), "until": str(held["until"])}  # fmt: skip
        except (ValueError, KeyError, TypeError):
            raise StoreError(f"{self._path}: no lock of mgc's", "delete this object if nobody is writing") from None

    def _renew(self) -> None:
        while not self._freed.wait(RENEWAL_S):
            expires = time.time() + EXPIRY_S
            try:
                etag, held = self._read()
                if held["token"] != self._token:
                    self._lost = f"{held['holder']} holds it now"
                    return
                _replace(self._path, self._body(expires), etag)
                self._valid_until = expires
            except (FileNotFoundError, StoreError):
                self._lost = "somebody removed it"
                return
            except OSError:
                # The network may come back before it expires. And where the condition failed, perhaps it did so for a
                # request that was made twice: the next reading tells whose lock it is.
                continue


@contextlib.contextmanager
def held(path: RemotePath, what: str) -> Iterator[Lease]:
    """A lock on `what` until the context ends."""
    lease = Lease(path, what)
    try:
        yield lease
    finally:
        lease.free()


def _etag(path: RemotePath) -> str:
    """What the server calls this state of the object: its ETag, on `gs` its generation."""
    info = attempt(path.url, lambda system, name: system.info(name))
    return str(info.get("generation") or info.get("ETag") or info.get("etag") or "")


def _replace(path: RemotePath, data: bytes, etag: str) -> None:
    """Put an object in place of the one in a state.

    Raises:
        FileExistsError: it is another one by now, or none.
    """
    if path.protocol not in _PUTS:  # in memory, of one process
        if _etag(path) != etag:
            raise FileExistsError(errno.EEXIST, "another object by now", path.url)
        path.write_bytes(data)
        return

    def put(system: Any, name: str) -> None:
        try:
            _PUTS[path.protocol](system, name, data, etag)
        except FileNotFoundError:
            raise FileExistsError(errno.EEXIST, "none by now", path.url) from None

    attempt(path.url, put)


def _put_s3(system: Any, name: str, data: bytes, etag: str) -> None:
    system.pipe_file(name, data, IfMatch=etag)


def _put_gs(system: Any, name: str, data: bytes, generation: str) -> None:
    bucket, key, _ = system.split_path(name)
    url = f"{system.base.replace('/storage/', '/upload/storage/')}b/{bucket}/o"
    system.call("POST", url, uploadType="media", name=key, ifGenerationMatch=generation, data=data)


_PUTS = {"s3": _put_s3, "gs": _put_gs}
