"""Rebuilding a store (`mgc extract --rebuild`): empty it, but keep a copy of its manifest beside it until it is full.

The copy, `<name>.old`, is a sibling of the store, so the tracks keep their splits, also if the process is killed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mgc.pipeline.storage import files
from mgc.pipeline.storage.concurrency import run_requests
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.store.store import Store


def empty_store(store: Store) -> None:
    """Copy a store without its frames to `<name>.old`, unless that exists, and delete its shards and manifest.

    Args:
        store: the store, locked by the caller.
    """
    old, temporary = _copy_paths(store)
    if isinstance(store.path, RemotePath):
        _copy_objects(store.path, old)
        files.remove(store.path / "shards")
    else:
        if not old.exists():
            shutil.rmtree(str(temporary), ignore_errors=True)
            shutil.copytree(store.path, str(temporary), ignore=shutil.ignore_patterns("*.zarr", ".*"))
            Path(str(temporary)).rename(str(old))
        shutil.rmtree(store.path / "shards")
        (store.path / "shards").mkdir()
    indices = store.path.glob("slices*.parquet")
    for path in (*indices, *(store.path / name for name in ("tracks.parquet", "published.json", "plan.parquet"))):
        path.unlink(missing_ok=True)


def remove_copies(store: Store) -> None:
    """Delete the copy that `empty_store` made, and what a killed process left of one."""
    for folder in _copy_paths(store):
        files.remove(folder)


def _copy_paths(store: Store) -> tuple[Place, Place]:
    """Return the path of a store's copy, and the temporary path under which a local copy is written first."""
    old = store.path.with_name(f"{store.path.name}.old")
    return old, old.with_name(f"{files.TEMPORARY_PREFIX}{old.name}")


def _copy_objects(store: RemotePath, old: Place) -> None:
    """Copy the objects of a store except its frames. The head comes last: without it the copy is not a store."""
    if (old / "store.json").exists():
        return
    names = [name for name in store.list_objects() if ".zarr/" not in name and name not in ("lock.json", "store.json")]

    def copy(name: str) -> None:
        files.write_bytes(old / name, (store / name).read_bytes())

    run_requests(copy, names, store)
    copy("store.json")
