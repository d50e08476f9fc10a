"""Lease: a lock on an object store. An object names its holder, and expires unless the holder renews it.

Other locks do not fit: filelock's are files on a mounted drive, Dask's live in one scheduler, while two writers may
have two, and fsspec has none.
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
from mgc.pipeline.storage.servers import with_retries

#: Seconds until a lease expires that is not renewed. The clocks of two writers may differ by less than this.
EXPIRY_S = 180
#: Seconds between renewals.
RENEWAL_S = 30


class Lease:
    """An acquired lease; a thread renews it until `release`.

    A lease is created by a conditional PUT (`If-None-Match: *`), and renewed, or taken over once it has expired, by a
    PUT on condition that the object has not changed since it was read (`If-Match`): only one of several writers
    succeeds. On `gs`, both conditions are `ifGenerationMatch`, with 0 or the generation that was read.

    Args:
        path: the lock object.
        resource: name of the locked store, for messages.

    Raises:
        StoreError: another process holds the lease.
        OSError: the object cannot be written, or the server has no conditional PUT.
    """

    def __init__(self, path: RemotePath, resource: str) -> None:
        self._path, self._resource = path, resource
        self._token = uuid.uuid4().hex
        self._loss = ""  # reason for the loss of the lease, once it is lost
        self._released = threading.Event()
        self._valid_until = self._acquire()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def require_valid(self) -> None:
        """Raise `StoreError` if the lease was lost, as when this process was stopped or cut off for too long."""
        if self._loss or time.time() > self._valid_until:
            reason = self._loss or "nobody renewed it, and it expired"
            raise StoreError(
                f"{self._resource}: its lock was lost ({reason})", "run the same command again: it continues"
            )

    def release(self) -> None:
        """Stop renewing, and remove the lock object unless another process has taken it over."""
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if not self._loss and json.loads(self._path.read_bytes()).get("token") == self._token:
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
        """Write the lock object and return its expiry time.

        Raises:
            StoreError: another process holds the lease.
        """
        for _ in range(3):  # another process may release it, or take it over, between two requests
            expires = time.time() + EXPIRY_S
            try:
                self._path.create(self._body(expires))
                return expires
            except FileExistsError:
                pass
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                etag, lock = self._read()
                if lock.get("token") == self._token:  # the answer to the first attempt of `create` was lost
                    return float(lock["expires"])
                if time.time() < float(lock["expires"]):
                    raise StoreError(
                        f"{self._resource}: {lock['holder']} is writing to it",
                        f"wait for it to end; if it was killed, its lock expires at {lock['until']}",
                    )
                expires = time.time() + EXPIRY_S
                _replace(self._path, self._body(expires), etag)
                return expires
        raise StoreError(f"{self._resource}: other processes are writing to it", "wait for them to end")

    def _read(self) -> tuple[str, dict[str, Any]]:
        """Read the lock object: its ETag and its content.

        Two requests: if the object changes in between, a replacement on condition of the ETag fails.
        """
        etag = _etag(self._path)
        try:
            lock = json.loads(self._path.read_bytes())
            return etag, {"holder": str(lock["holder"]), "token": lock["token"],
                          "expires": float(lock["expires"]), "until": str(lock["until"])}  # fmt: skip
        except (ValueError, KeyError, TypeError):
            raise StoreError(
                f"{self._path}: not a lock that mgc wrote", "delete this object if no process is writing to the store"
            ) from None

    def _renew(self) -> None:
        """Renew the lease every `RENEWAL_S` seconds until it is released or lost."""
        while not self._released.wait(RENEWAL_S):
            expires = time.time() + EXPIRY_S
            try:
                etag, lock = self._read()
                if lock["token"] != self._token:
                    self._loss = f"{lock['holder']} holds it now"
                    return
                _replace(self._path, self._body(expires), etag)
                self._valid_until = expires
            except (FileNotFoundError, StoreError):
                self._loss = "somebody removed it"
                return
            except OSError:
                # The network may come back before the lease expires. A failed condition may be due to a request that
                # was sent twice: the next read shows who holds the lease.
                continue


@contextlib.contextmanager
def hold(path: RemotePath, resource: str) -> Iterator[Lease]:
    """Hold a lease until the context ends; arguments and exceptions as for `Lease`."""
    lease = Lease(path, resource)
    try:
        yield lease
    finally:
        lease.release()


def _etag(path: RemotePath) -> str:
    """The server's identifier for the object's current content: its ETag, on `gs` its generation."""
    info = with_retries(path.url, lambda system, name: system.info(name))
    return str(info.get("generation") or info.get("ETag") or info.get("etag") or "")


def _replace(path: RemotePath, data: bytes, etag: str) -> None:
    """Write an object on condition that its current ETag is `etag`.

    Raises:
        FileExistsError: the object has changed, or was removed.
    """
    if path.protocol not in _CONDITIONAL_PUTS:  # memory: one process only
        if _etag(path) != etag:
            raise FileExistsError(errno.EEXIST, "the object has changed", path.url)
        path.write_bytes(data)
        return

    def put(system: Any, name: str) -> None:
        try:
            _CONDITIONAL_PUTS[path.protocol](system, name, data, etag)
        except FileNotFoundError:
            raise FileExistsError(errno.EEXIST, "the object was removed", path.url) from None

    with_retries(path.url, put)


def _put_s3(system: Any, name: str, data: bytes, etag: str) -> None:
    system.pipe_file(name, data, IfMatch=etag)


def _put_gs(system: Any, name: str, data: bytes, generation: str) -> None:
    bucket, key, _ = system.split_path(name)
    url = f"{system.base.replace('/storage/', '/upload/storage/')}b/{bucket}/o"
    system.call("POST", url, uploadType="media", name=key, ifGenerationMatch=generation, data=data)


_CONDITIONAL_PUTS = {"s3": _put_s3, "gs": _put_gs}
