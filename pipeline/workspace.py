"""Workspace: the data folder, and the dataset, store or run that a command uses if none is named."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from mgc.pipeline.errors import DatasetError, MgcError, RunError, SpecError, StoreError
from mgc.pipeline.storage import files, urls
from mgc.pipeline.storage.remote import Place, RemotePath

_NOT_DATASETS = ("features", "runs", "demo")


class Workspace:
    """A data folder.

        fma_small/ gtzan/ ...                      datasets, never changed
        features/<dataset>/<feature>-<digest>/     stores
        runs/<time>-<model>/                       runs
        latest.json                                store and run that a command made last, and the run that it
                                                   began but has not finished

    Args:
        root: the folder, which need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def runs(self) -> Path:
        """Folder of all runs."""
        return self.root / "runs"

    def features(self, dataset: str) -> Path:
        """Folder of a dataset's stores.

        Raises:
            SpecError: `dataset` cannot be the name of a folder.
        """
        if dataset != Path(dataset).name or dataset.startswith("."):
            raise SpecError(f"--name {dataset!r}", "it must be the name of a folder, without slashes")
        return self.root / "features" / dataset

    def only_dataset(self) -> Path:
        """Find the only dataset in the workspace, or the demo if there is no other.

        Raises:
            DatasetError: there is no dataset, or more than one.
        """
        datasets = []
        if self.root.is_dir():
            for path in sorted(self.root.iterdir()):
                hidden = path.name.startswith(".") or path.name.endswith("_metadata") or path.name in _NOT_DATASETS
                if path.is_dir() and not hidden:
                    datasets.append(path)
        demo = self.root / "demo" / "fma_demo"
        if not datasets and demo.is_dir():
            return demo
        if not datasets:
            raise DatasetError(
                f"no dataset in {self.root}", "name one with --dataset, put one there, or run `mgc demo`"
            )
        if len(datasets) > 1:
            names = ", ".join(path.name for path in datasets)
            raise DatasetError(
                f"{len(datasets)} datasets in {self.root}: {names}", f"name one: --dataset {datasets[0]}"
            )
        return datasets[0]

    def latest_store(self) -> Place:
        """The store that a command made last; if that is unknown or gone, the newest one.

        Raises:
            StoreError: there is no store.
        """
        path = self._latest("store")
        if path is None:
            raise StoreError(f"no feature store in {self.root}", "make one with `mgc extract`, or name one")
        return path

    def latest_run(self) -> Path:
        """The run that a command made last; if that is unknown, gone or unfinished, the newest one.

        Raises:
            RunError: there is no run.
        """
        path = self._latest("run")
        if path is None or isinstance(path, RemotePath):
            raise RunError(f"no run in {self.root}", "make one with `mgc train`, or name one")
        return path

    def interrupted_run(self) -> Path | None:
        """The run that a command began last and did not finish, if its folder still exists."""
        latest = self._read()
        # Earlier versions recorded a run as the latest one when it began.
        for kind, name in ((kind, latest.get(kind)) for kind in ("training", "run")):
            if name is None or not (self.root / name).is_dir():
                continue
            if kind == "training" or not _is_complete("run", self.root / name):
                return self.root / name
        return None

    def remember(self, kind: str, path: Place) -> None:
        """Record a store or run in `latest.json`; ignore a workspace that cannot be written.

        Args:
            kind: `store` or `run` for what a command has made, `training` for a run that it begins. A finished run
                ends the record of the one that was begun.
            path: its folder or URL.
        """
        with contextlib.suppress(OSError, MgcError):
            self.root.mkdir(parents=True, exist_ok=True)
            name, root = path.resolve(), self.root.resolve()
            # Relative if it is inside the workspace, which may be moved or copied.
            if isinstance(name, Path) and name.is_relative_to(root):
                name = name.relative_to(root)
            latest = self._read() | {kind: str(name)}
            if kind == "run":
                latest.pop("training", None)
            files.write_json(self.root / "latest.json", latest)

    @contextlib.contextmanager
    def restoring_latest(self) -> Iterator[None]:
        """Restore the latest store and run of before if the block fails or is interrupted.

        A run that the block began is still recorded, for `mgc train --resume`.
        """
        before = self._read()
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError, MgcError):
                before |= {kind: name for kind, name in self._read().items() if kind == "training"}
                if before:
                    files.write_json(self.root / "latest.json", before)
                else:
                    (self.root / "latest.json").unlink(missing_ok=True)
            raise

    def _latest(self, kind: str) -> Place | None:
        """The latest `store` or `run`: as recorded, else the newest one; None if there is none."""
        name = self._read().get(kind)
        if name is not None and (url := urls.parse_url(name)):
            return url
        heads = self.root.glob("features/*/*/store.json" if kind == "store" else "runs/*/config.json")
        folders = [head.parent for head in heads]
        recorded = self.root / name if name is not None else None
        if recorded is not None and recorded.is_dir():
            if kind == "store" or _is_complete(kind, recorded):
                return recorded
            folders.append(recorded)
        # What was interrupted or failed only if there is no other.
        return max(folders, key=lambda path: (_is_complete(kind, path), path == recorded, _created(path)), default=None)

    def _read(self) -> dict[str, str]:
        """Read `latest.json`; empty if it is missing or damaged."""
        try:
            latest = json.loads((self.root / "latest.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return {k: v for k, v in latest.items() if isinstance(v, str)} if isinstance(latest, dict) else {}


def _is_complete(kind: str, path: Path) -> bool:
    """Whether a `store` has been published, or the training of a `run` has ended."""
    return (path / ("published.json" if kind == "store" else "summary.json")).exists()


def _created(path: Path) -> float:
    """Time at which a store or run was created, in seconds."""
    heads = (path / name for name in ("store.json", "config.json"))
    return max((head.stat().st_mtime for head in heads if head.exists()), default=0.0)
