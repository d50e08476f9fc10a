"""The data folder: which dataset, store or run a command means when none is named."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from mgc.pipeline.errors import DatasetError, MgcError, RunError, SpecError, StoreError
from mgc.pipeline.storage import files, urls
from mgc.pipeline.storage.remote import Place, RemotePath

_NOT_DATASETS = ("features", "runs", "demo")


class Workspace:
    """A data folder, `data` by default.

        fma_small/ gtzan/ ...                      datasets, never written to
        features/<dataset>/<feature>-<digest>/     stores
        runs/<time>-<model>/                       runs
        latest.json                                the store and the run that a command made or named last

    Args:
        root: the folder; need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def runs(self) -> Path:
        """Folder of the runs."""
        return self.root / "runs"

    def features(self, dataset: str) -> Path:
        """Folder of a dataset's stores.

        Raises:
            SpecError: the name is no plain name of a folder.
        """
        if dataset != Path(dataset).name or dataset.startswith("."):
            raise SpecError(f"--name {dataset!r}", "it must be the name of a folder, without slashes")
        return self.root / "features" / dataset

    def only_dataset(self) -> Path:
        """The one dataset in the folder; the demo where there is no other.

        Raises:
            DatasetError: there is none, or more than one.
        """
        found = []
        if self.root.is_dir():
            for path in sorted(self.root.iterdir()):
                hidden = path.name.startswith(".") or path.name.endswith("_metadata") or path.name in _NOT_DATASETS
                if path.is_dir() and not hidden:
                    found.append(path)
        demo = self.root / "demo" / "fma_demo"
        if not found and demo.is_dir():
            return demo
        if not found:
            raise DatasetError(f"no dataset in {self.root}", "name one with --dataset, or put it there (or `mgc demo`)")
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise DatasetError(f"{len(found)} datasets in {self.root}: {names}", f"name one: --dataset {found[0]}")
        return found[0]

    def latest_store(self) -> Place:
        """The store that a command made or named last.

        Raises:
            StoreError: there is none.
        """
        path = self._latest("store")
        if path is None:
            raise StoreError(f"no feature store in {self.root}", "make one with `mgc extract`, or name one")
        return path

    def latest_run(self) -> Path:
        """The run that a command made or named last.

        Raises:
            RunError: there is none.
        """
        path = self._latest("run")
        if path is None or isinstance(path, RemotePath):
            raise RunError(f"no run in {self.root}", "make one with `mgc train`, or name one")
        return path

    def remember(self, kind: str, path: Place) -> None:
        """Make `path` the latest `store` or `run`. A folder that cannot be written only forgets."""
        with contextlib.suppress(OSError, MgcError):
            self.root.mkdir(parents=True, exist_ok=True)
            name, root = path.resolve(), self.root.resolve()
            # Relative where it can be: a workspace may be moved or copied.
            if isinstance(name, Path) and name.is_relative_to(root):
                name = name.relative_to(root)
            files.write_json(self.root / "latest.json", self._read() | {kind: str(name)})

    def _latest(self, kind: str) -> Place | None:
        """The one remembered, else the newest one there."""
        remembered = self._read().get(kind)
        if remembered is not None and (url := urls.parse_url(remembered)):
            return url
        if remembered is not None and (self.root / remembered).is_dir():
            return self.root / remembered
        heads = self.root.glob("features/*/*/store.json" if kind == "store" else "runs/*/config.json")
        newest = max(heads, key=lambda path: path.stat().st_mtime, default=None)
        return newest.parent if newest is not None else None

    def _read(self) -> dict[str, str]:
        try:
            latest = json.loads((self.root / "latest.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return {k: v for k, v in latest.items() if isinstance(v, str)} if isinstance(latest, dict) else {}
