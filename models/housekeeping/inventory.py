"""Inventory of a workspace: its datasets, weights, stores and runs, with sizes, results, and what needs what.

Only small files and the directory are read: no torch, no frames. What is damaged is listed as far as it can be read.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mgc.pipeline.errors import MgcError
from mgc.pipeline.workspace import NOT_DATASETS, UNFINISHED, Workspace

Kind = Literal["dataset", "weights", "store", "run", "remains"]
#: Beginning of the name of a folder that is being removed.
REMAINS_PREFIX = ".removing-"


@dataclass(frozen=True)
class Item:
    """A dataset, downloaded weights, a store or a run; or the remains of one whose removal was interrupted.

    Attributes:
        kind: what it is.
        path: its folder, below the workspace.
        name: the path relative to the workspace, with slashes.
        bytes: size of its files; links count nothing, and are not followed.
        files: number of its files.
        changed: time of the last change of a file, in seconds since 1970.
        tracks: number of audio files of a dataset, of tracks in use of a store, or of tracks of a run; None if unknown.
        finished: whether the download of weights, the extraction or the training has ended; True for datasets.
        latest: whether commands use this store or run if none is named.
        is_link: whether the folder, or one above it in the workspace, is a symbolic link.
        details: `feature` and `dataset` of a store; `model`, `created`, `accuracy` by track and `leaky` of a run.
        needs: resolved paths of the dataset of a store, and of the stores and member runs of a run.
    """

    kind: Kind
    path: Path
    name: str
    bytes: int
    files: int
    changed: float
    tracks: int | None
    finished: bool
    latest: bool
    is_link: bool
    details: dict[str, Any] = field(default_factory=dict)
    needs: tuple[Path, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the item as values for JSON."""
        names = ("kind", "name", "bytes", "files", "tracks", "finished", "latest")
        link = {"link": True} if self.is_link else {}
        return {name: getattr(self, name) for name in names} | {"path": str(self.path)} | self.details | link


def take(workspace: Workspace) -> list[Item]:
    """List what is in a workspace: datasets, weights, stores, runs and remains, each by name.

    Raises:
        MgcError: the workspace is no folder, or cannot be read.
    """
    root = workspace.root
    if root.exists() and not root.is_dir():
        raise MgcError(f"{root} is no folder", "name the workspace with --data-dir")
    try:
        return [
            *(_dataset(root, path) for path in _datasets(root)),
            *(
                _item("weights", root, path, finished=path.suffix != UNFINISHED)
                for path in _folders(workspace.weights)
                if not path.name.startswith(".")
            ),
            *_stores(workspace),
            *_runs(workspace),
            *(_item("remains", root, path, finished=False) for path in _remains(root)),
        ]
    except OSError as error:
        raise MgcError(f"{error.filename}: {error.strerror}", "check the folder and its permissions") from None


def dependents(item: Item, items: list[Item]) -> list[Item]:
    """Return the items that need an item: stores of a dataset, runs of a store, ensembles of a run."""
    path = item.path.resolve()
    return [
        other
        for other in items
        if other is not item and any(need == path or need.is_relative_to(path) for need in other.needs)
    ]


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder by name; none if it is missing."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _datasets(root: Path) -> Iterator[Path]:
    for path in _folders(root):
        if not path.name.startswith(".") and path.name not in NOT_DATASETS:
            yield path
    yield from (path for path in _folders(Workspace(root).datasets) if not path.name.startswith("."))
    if (root / "demo").is_dir():
        yield root / "demo"


def _remains(root: Path) -> Iterator[Path]:
    """Folders that an interrupted removal left."""
    for folder in (root, root / "runs", root / "weights", root / "features", *_folders(root / "features")):
        yield from (path for path in _folders(folder) if path.name.startswith(REMAINS_PREFIX))


def _dataset(root: Path, path: Path) -> Item:
    from mgc.pipeline.datasets.catalogue import is_audio_name

    item = _item("dataset", root, path, counted=is_audio_name)
    return dataclasses.replace(item, tracks=None) if item.is_link or path.name.endswith("_metadata") else item


def _stores(workspace: Workspace) -> Iterator[Item]:
    latest = _latest(workspace, "store")
    for dataset in _folders(workspace.root / "features"):
        for path in _folders(dataset):
            if path.name.startswith("."):
                continue
            head = _read_json(path / "store.json")
            if not head and not (path / "shards").is_dir():
                continue
            source, spec = _object(head.get("dataset")), _object(head.get("spec"))
            yield _item(
                "store",
                workspace.root,
                path,
                tracks=_tracks_in_use(path / "tracks.parquet"),
                finished=(path / "published.json").exists() and not (path / "plan.parquet").exists(),
                latest=latest,
                details={"feature": spec.get("feature"), "dataset": source.get("name")},
                needs=tuple(_local(Path(), source.get("root"))),
            )


def _runs(workspace: Workspace) -> Iterator[Item]:
    latest = _latest(workspace, "run")
    for path in _folders(workspace.runs):
        config = _read_json(path / "config.json")
        if path.name.startswith(".") or not (config or (path / "sealed.json").exists()):
            continue
        metrics = _read_json(path / "metrics.json")
        yield _item(
            "run",
            workspace.root,
            path,
            tracks=_rows(path / "tracks.parquet"),
            finished=(path / "summary.json").exists(),
            latest=latest,
            details={
                "model": config.get("model"),
                "created": config.get("created"),
                "accuracy": _object(metrics.get("by_track")).get("accuracy"),
                "leaky": bool(metrics.get("leaky") or config.get("leaky")),
            },
            needs=tuple(_needs(path, config)),
        )


def _needs(run: Path, config: dict[str, Any]) -> Iterator[Path]:
    """Yield the resolved folders of the stores of a run, where they are now, and of the members of an ensemble."""
    further = config.get("further") if isinstance(config.get("further"), list) else []
    for store in (config.get("store"), *(further or ())):
        if not isinstance(store, dict):
            continue
        beside = store.get("from_runs")
        if isinstance(beside, str) and (run.parent / beside).is_dir():
            yield (run.parent / beside).resolve()
        else:
            yield from _local(Path(), store.get("path"))
    members = config.get("members")
    for member in members if isinstance(members, list) else ():
        yield from _local(run.resolve(), _object(member).get("run"))


def _local(folder: Path, path: Any) -> Iterator[Path]:
    """Yield a recorded path, resolved; nothing for a URL, and for what cannot be a path in a damaged file."""
    if isinstance(path, str) and "://" not in path and "\0" not in path:
        yield (folder / path).resolve()


def _object(value: Any) -> dict[str, Any]:
    """A value that should be a JSON object; an empty one if it is not."""
    return value if isinstance(value, dict) else {}


def _item(
    kind: Kind,
    root: Path,
    path: Path,
    *,
    tracks: int | None = None,
    finished: bool = True,
    latest: Path | None = None,
    details: dict[str, Any] | None = None,
    needs: tuple[Path, ...] = (),
    counted: Callable[[str], bool] | None = None,
) -> Item:
    """Create an item; with `counted`, its tracks are the files whose names this function accepts."""
    relative = path.relative_to(root)
    is_link = any((root / part).is_symlink() for part in (relative, *relative.parents[:-1]))
    walked = [] if is_link else list(_walk(path))
    status = [status for _, status in walked]
    return Item(
        kind,
        path,
        relative.as_posix(),
        bytes=sum(one.st_size for one in status),
        files=len(status),
        changed=max((one.st_mtime for one in status), default=path.stat().st_mtime),
        tracks=tracks if counted is None else sum(counted(name) for name, _ in walked),
        finished=finished,
        latest=latest is not None and path.resolve() == latest,
        is_link=is_link,
        details=details or {},
        needs=needs,
    )


def _walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and status of each file below a folder; links are neither counted nor followed."""
    pending = [os.fspath(folder)]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:  # unreadable, or removed meanwhile
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                try:
                    yield entry.name, entry.stat(follow_symlinks=False)
                except OSError:
                    continue


def _latest(workspace: Workspace, kind: Literal["store", "run"]) -> Path | None:
    """The resolved folder of the store or run that commands use; None if there is none, or if it is at a URL."""
    try:
        path = workspace.latest_store() if kind == "store" else workspace.latest_run()
    except MgcError:
        return None
    return path.resolve() if isinstance(path, Path) else None


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if it is missing or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return _object(value)


def _rows(path: Path) -> int | None:
    """Number of rows of a Parquet file; None if it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException):
        return None


def _tracks_in_use(path: Path) -> int | None:
    """Number of the tracks in use of a manifest; None if it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        status = pq.ParquetFile(path).read(columns=["status"], use_threads=False)["status"]
    except (OSError, KeyError, pa.ArrowException):
        return None
    return sum(row["counts"] for row in status.value_counts().to_pylist() if row["values"] == "ok")
