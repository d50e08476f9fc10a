"""Copies of shards that lie at a URL, for readers on this machine: shards are read whole, and in every epoch again."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mgc.pipeline.storage import files
from mgc.pipeline.storage.remote import AT_ONCE, RemotePath

#: Bytes of copies that are kept, in the system's folder for temporary files ($TMPDIR), until the process ends.
KEPT_BYTES = 4_000_000_000
#: Copies that are kept however large they are: they may be in use.
IN_USE = 8


class Copies:
    """The shards that were read last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sizes: OrderedDict[Path, int] = OrderedDict()
        self._root: tempfile.TemporaryDirectory | None = None

    def get(self, folder: RemotePath, shard_files: dict[str, list]) -> Path:
        """A folder with copies of some objects below `folder`, as far as they are there.

        Args:
            folder: of the shards.
            shard_files: `{file: [size, digest]}` of one shard; others by the same names get another copy.

        Raises:
            OSError: an object cannot be read.
        """
        with self._lock:
            if self._root is None:
                self._root = tempfile.TemporaryDirectory(prefix="mgc-shards-", ignore_cleanup_errors=True)
            copy = Path(self._root.name) / files.digest(json.dumps([folder.url, shard_files]).encode())
            if copy not in self._sizes:
                self._fetch(folder, shard_files, copy)
                self._sizes[copy] = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
            self._sizes.move_to_end(copy)
            while sum(self._sizes.values()) > KEPT_BYTES and len(self._sizes) > IN_USE:
                shutil.rmtree(self._sizes.popitem(last=False)[0], ignore_errors=True)
            return copy

    def _fetch(self, folder: RemotePath, shard_files: dict[str, list], copy: Path) -> None:
        shutil.rmtree(copy, ignore_errors=True)  # of a call that failed

        def fetch(name: str) -> None:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # the reader says so
                (folder / name).fetch(copy / name)

        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(fetch, shard_files))


COPIES = Copies()
