"""Workspace: the data folder, and the dataset, store or run that a command uses if none is named."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from mgc.pipeline.errors import DatasetError, MgcError, RunError, SpecError, StoreError
from mgc.pipeline.storage import files, urls
from mgc.pipeline.storage.remote import Place, RemotePath

#: File that makes a folder a store or a run.
_HEADS = {"store": "store.json", "run": "config.json"}
#: Folders of a workspace that are no datasets. The demo's dataset is taken only if there is no other.
NOT_DATASETS = ("features", "runs", "demo", "datasets", "weights")

#: Folder below `datasets` that `mgc download` keeps archives in, and the end of a dataset's name until it is complete.
ARCHIVES = "archives"
UNFINISHED = ".unfinished"


class Workspace:
    """A data folder.

        fma_small/ gtzan/ ...                      datasets, never changed
        datasets/fma-small/ ...                    datasets that `mgc download` made, never changed
        weights/musicnn/ ...                       trained networks that `mgc download` fetched
        features/<dataset>/<feature>-<digest>/     stores
        runs/<time>-<model>/                       runs
        latest.json                                store and run that a command made last, and the run that it
                                                   began but has not finished

    Args:
        root: the folder, which need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def default(cls) -> Workspace:
        """Return the workspace of commands without `--data-dir`: `$MGC_DATA`, or else `data` in the working folder."""
        return cls(Path(os.environ.get("MGC_DATA") or "data"))

    @property
    def runs(self) -> Path:
        """Folder of all runs."""
        return self.root / "runs"

    @property
    def datasets(self) -> Path:
        """Folder of the datasets that `mgc download` makes."""
        return self.root / "datasets"

    @property
    def weights(self) -> Path:
        """Folder of the weights that `mgc download` fetches."""
        return self.root / "weights"

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
        datasets = self._downloaded()
        if self.root.is_dir():
            for path in sorted(self.root.iterdir()):
                hidden = path.name.startswith(".") or path.name.endswith("_metadata") or path.name in NOT_DATASETS
                if path.is_dir() and not hidden:
                    datasets.append(path)
        demo = self.root / "demo" / "fma_demo"
        if not datasets and demo.is_dir():
            return demo
        if not datasets:
            raise DatasetError(
                f"no dataset in {self.root}",
                "name one with --dataset, get one with `mgc download`, or run `mgc demo`",
            )
        if len(datasets) > 1:
            names = ", ".join(path.name for path in datasets)
            raise DatasetError(
                f"{len(datasets)} datasets in {self.root}: {names}", f"name one: --dataset {datasets[0]}"
            )
        return datasets[0]

    def _downloaded(self) -> list[Path]:
        """Complete datasets that `mgc download` made."""
        if not self.datasets.is_dir():
            return []
        return [
            path
            for path in sorted(self.datasets.iterdir())
            if path.is_dir() and path.name != ARCHIVES and not path.name.startswith(".") and path.suffix != UNFINISHED
        ]

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

    @contextlib.contextmanager
    def suggesting(self, path: Place | None, *kinds: str) -> Iterator[None]:
        """Name what the user may have meant in the error of a block that opens the store or run at `path`.

        Args:
            path: folder that the user named.
            kinds: `store`, `run` or both: what the command takes.
        """
        try:
            yield
        except (StoreError, RunError) as error:
            if not isinstance(path, Path):
                raise
            for kind, noun, wanted in (("store", "feature store", "a run"), ("run", "run", "a feature store")):
                if kind not in kinds and (path / _HEADS[kind]).exists():
                    remedy = f"name {wanted}; `mgc info {shlex.quote(str(path))}` shows what this one is"
                    raise type(error)(f"{path} is a {noun}, not {wanted}", remedy) from None
            if any((path / name).exists() for name in (*(_HEADS[kind] for kind in kinds), "shards")):
                raise  # what is there is damaged
            similar = [shlex.quote(str(other)) for other in self._similar(path, kinds)]
            if not similar:
                raise
            raise type(error)(error.problem, f"did you mean {' or '.join(similar)}?") from None

    def _similar(self, path: Path, kinds: Sequence[str], most: int = 3) -> list[Path]:
        """Stores and runs that are in or around a folder, or have a similar name, the most similar first."""
        places = {
            other.resolve().parent: other.parent
            for kind in kinds
            for folder, pattern in (
                (path, f"*/{_HEADS[kind]}"),
                (path.parent, f"{_HEADS[kind]}"),
                (path.parent, f"*/{_HEADS[kind]}"),
                (self.root, f"features/*/*/{_HEADS[kind]}" if kind == "store" else f"runs/*/{_HEADS[kind]}"),
            )
            for other in folder.glob(pattern)
        }
        similarity = {place: _similarity(path, place) for place in places.values()}
        found = sorted(similarity, key=lambda place: (similarity[place], _created(place)), reverse=True)
        least = 0.9 if found and similarity[found[0]] >= 0.9 else 0.5
        return [place for place in found if similarity[place] >= least][:most]

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

    def forget(self, path: Path) -> None:
        """Drop a store or run that was removed from `latest.json`; the newest of the others is the latest then."""
        gone, latest = path.resolve(), self._read()
        kept = {
            kind: name
            for kind, name in latest.items()
            if urls.is_url(name) or not (self.root / name).resolve().is_relative_to(gone)
        }
        if kept != latest:
            files.write_json(self.root / "latest.json", kept)

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


def _similarity(path: Path, place: Path) -> float:
    """How much the name of a store or run resembles the one that the user wrote, from 0 to 1."""
    if place == path.parent or place.parent == path:  # a folder of the store, or the folder of all stores
        return 1.0
    name, other = path.name.lower(), place.name.lower()
    return 0.9 if name in other else difflib.SequenceMatcher(None, name, other).ratio()


def _is_complete(kind: str, path: Path) -> bool:
    """Whether a `store` has been published, or the training of a `run` has ended."""
    return (path / ("published.json" if kind == "store" else "summary.json")).exists()


def _created(path: Path) -> float:
    """Time at which a store or run was created, in seconds."""
    heads = (path / name for name in _HEADS.values())
    return max((head.stat().st_mtime for head in heads if head.exists()), default=0.0)
