"""Local cache of shards from stores at URLs, so that only the first epoch downloads them."""

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
from mgc.pipeline.storage.concurrency import MAX_CONCURRENT_REQUESTS
from mgc.pipeline.storage.remote import RemotePath

#: Size limit of the cache in bytes. It lies in the system's temporary directory ($TMPDIR) until the process ends.
MAX_BYTES = 4_000_000_000
#: Number of most recently used shards that stay in the cache whatever their size: readers may have them open.
MIN_SHARDS = 8


class ShardCache:
    """Least-recently-used cache of shards on the local disk. Its methods may be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sizes: OrderedDict[Path, int] = OrderedDict()
        self._root: tempfile.TemporaryDirectory | None = None

    def get(self, folder: RemotePath, shard_files: dict[str, list]) -> Path:
        """Return a local directory with the files of a shard; download those that the cache does not hold.

        Files that the server does not have are missing from the directory, too: the reader reports them.

        Args:
            folder: URL of the store's `shards` folder.
            shard_files: `{file: [size, digest]}` of one shard. The sizes and digests are part of the cache key, so a
                shard that was written anew is downloaded anew.

        Raises:
            OSError: an object cannot be read.
        """
        with self._lock:
            if self._root is None:
                self._root = tempfile.TemporaryDirectory(prefix="mgc-shards-", ignore_cleanup_errors=True)
            copy = Path(self._root.name) / files.digest(json.dumps([folder.url, shard_files]).encode())
            if copy not in self._sizes:
                self._download(folder, shard_files, copy)
                self._sizes[copy] = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
            self._sizes.move_to_end(copy)
            while sum(self._sizes.values()) > MAX_BYTES and len(self._sizes) > MIN_SHARDS:
                shutil.rmtree(self._sizes.popitem(last=False)[0], ignore_errors=True)
            return copy

    def _download(self, folder: RemotePath, shard_files: dict[str, list], copy: Path) -> None:
        shutil.rmtree(copy, ignore_errors=True)  # left by a download that failed

        def download(name: str) -> None:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # the reader reports the missing file
                (folder / name).download(copy / name)

        with ThreadPoolExecutor(MAX_CONCURRENT_REQUESTS) as threads:
            list(threads.map(download, shard_files))


_CACHE = ShardCache()


def local_copy(folder: RemotePath, shard_files: dict[str, list]) -> Path:
    """Return a local directory with the files of a shard, from the cache of this process; see `ShardCache.get`.

    Raises:
        MgcError: the server cannot be reached, or denies access.
    """
    try:
        return _CACHE.get(folder, shard_files)
    except OSError as error:
        raise files.explain_server_error(error) from error
