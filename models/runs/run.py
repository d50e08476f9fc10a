"""A run: one training of one system, in one folder.

config.json         system, stores, settings and library versions; written once
tracks.parquet      the tracks of the run and their splits
history.jsonl       losses and accuracies, one line per epoch
curves.png          the history as a picture
events/             the history for TensorBoard (with --tensorboard)
not-finite.json     the slices of a batch whose loss was not a finite number, which ended the training
best.pt             weights of the best epoch
last.pt             the whole state after the last step, from which `--resume` continues; a finished run drops it
                    (unless it was trained with --keep-last)
model.skops         the fitted estimator (classical systems)
refit.pt            weights of the last epoch on training and validation tracks (with --refit); they are the ones in use
refit-last.pt       what last.pt is to best.pt
refit.skops         the estimator fitted on training and validation tracks (with --refit, classical systems)
typical.npz         distances of music from the training tracks
summary.json        result of the training; absent while it is unfinished
sealed.json         sizes and digests of the other files (`seal`); they are checked when they are read

Opening a run executes no code from it: checkpoints hold only tensors and plain values.
"""

from __future__ import annotations

import io
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from mgc.models.runs import seal
from mgc.models.runs.selection import Selection
from mgc.pipeline.errors import MgcError, RunError
from mgc.pipeline.features import FeatureSpec, from_dict
from mgc.pipeline.storage import files, parquet
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.storage.urls import parse_place
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.versions import versions as library_versions

FORMAT = 1
#: Libraries whose versions are recorded, as they can change the weights.
LIBRARIES = ("mgc", "torch", "numpy", "scikit-learn", "zarr", "zarrs")


def relative_store_path(store: Place, folder: Path) -> str | None:
    """Path of a store relative to a folder of runs, to find it if both have moved together; None for a URL."""
    return None if isinstance(store, RemotePath) else os.path.relpath(store.resolve(), folder.resolve())


@dataclass(frozen=True)
class Source:
    """A store that a run reads.

    Attributes:
        path: folder or URL of the store.
        spec: feature that the system reads: the store's, or the one that the device computes from the store's samples.
        frames: frames of a slice that the system sees.
        manifest_digest: digest of the store's manifest when the run began.
        store_slicing: slicing of the store when the run began.
        waveform: feature of the store if the device computes `spec` from it; else None.
    """

    path: Place
    spec: FeatureSpec
    frames: int
    manifest_digest: str
    store_slicing: Slicing
    waveform: FeatureSpec | None = None


@dataclass(frozen=True)
class Run:
    """An existing run.

    Attributes:
        path: folder of the run.
        config: contents of config.json.
    """

    path: Path
    config: dict[str, Any]

    @classmethod
    def create(cls, folder: Path, model: str, config: dict[str, Any], selection: Selection) -> Run:
        """Create a run in a new folder, `<UTC time>-<model>`.

        Args:
            folder: folder of all runs; created if it does not exist.
            model: id of the system.
            config: configuration of the run; versions, platform and command line are added to it.
            selection: classes and tracks of the run.

        Raises:
            MgcError: the folder cannot be written.
        """
        now = datetime.now(UTC)
        with files.translate_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            path = _create_folder(folder, f"{now:%Y%m%d-%H%M%S}-{model.replace('/', '-')}")
            versions = {"python": platform.python_version()} | library_versions(LIBRARIES)
            head = {"format": FORMAT, "model": model, "created": now.isoformat(timespec="seconds")}
            tail = {"versions": versions, "platform": platform.platform(), "command": sys.argv}
            whole = head | config | {"classes": selection.classes} | tail | {"sealed": True}
            contents = {
                "tracks.parquet": parquet.table_bytes(selection.tracks),
                "config.json": files.encode_json(whole),  # comes last: it makes the folder a run
            }
            seal.create(path, contents)
            for name, data in contents.items():
                files.write_bytes(path / name, data)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open the run in a folder.

        Raises:
            RunError: the folder holds no run, a damaged one, or one that this version of mgc cannot read.
        """
        file = path / "config.json"
        try:
            config = json.loads(seal.read_file(path, "config.json"))
            version = config["format"]
        except FileNotFoundError:
            if (path / seal.NAME).exists():
                raise RunError(f"{file}: missing", seal.NEEDED) from None
            raise RunError(f"{path}: no run", "make one with `mgc train`, or name another folder") from None
        except OSError as error:
            raise RunError(f"{file}: {error.strerror}", "check the path and its permissions") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise RunError(f"{file}: damaged", seal.NEEDED) from None
        if version != FORMAT:
            raise RunError(
                f"{path}: a run of format {version}, this mgc reads format {FORMAT}",
                "use the version of mgc that made it, or train a new run",
            )
        run = cls(path, config)
        try:
            _ = run.model, run.classes, run.slicing, run.sources
        except (MgcError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{file}: damaged ({error})", seal.NEEDED) from None
        return run

    # -- configuration ----------------------------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """Id of the system."""
        return self.config["model"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Genres in the order of the model's outputs."""
        return tuple(self.config["classes"])

    @property
    def slicing(self) -> Slicing:
        """Slicing of the tracks."""
        return Slicing.from_dict(self.config["store"]["slicing"])

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The stores that the run reads, one for each input of the system."""
        first = self.config["store"] | {"frames": self.config["frames"]}
        return tuple(self._source(store) for store in (first, *self.config.get("further", [])))

    def _source(self, store: dict[str, Any]) -> Source:
        path = parse_place(store["path"])
        # The store beside the run comes first: both may have been moved or copied together.
        if store["from_runs"] is not None and (beside := self.path.parent / store["from_runs"]).is_dir():
            path = beside
        return Source(
            path=path,
            spec=from_dict(store["spec"]),
            frames=int(store["frames"]),
            manifest_digest=store.get("manifest", ""),
            store_slicing=Slicing.from_dict(store.get("sliced") or store["slicing"]),
            waveform=from_dict(store["waveform"]) if "waveform" in store else None,
        )

    @property
    def store_path(self) -> Place:
        """Folder or URL of the first store."""
        return self.sources[0].path

    @property
    def spec(self) -> FeatureSpec:
        """Feature of the first store, as the system reads it."""
        return self.sources[0].spec

    @property
    def frames(self) -> int:
        """Frames of a slice of the first store that the system sees."""
        return self.sources[0].frames

    @cached_property
    def selection(self) -> Selection:
        """Classes and tracks of the run.

        Raises:
            RunError: tracks.parquet is missing or damaged.
        """
        file = self.path / "tracks.parquet"
        try:
            tracks = parquet.read_table_bytes(seal.read_file(self.path, file.name), file)
            return Selection(self.classes, tracks, self.config.get("split_seed"))
        except FileNotFoundError:
            raise RunError(f"{file}: missing", seal.NEEDED) from None
        except OSError as error:
            raise RunError(f"{file}: damaged ({error.strerror})", seal.NEEDED) from None

    # -- results ----------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether the training has ended."""
        return (self.path / "summary.json").exists()

    @property
    def summary(self) -> dict[str, Any]:
        """Result of the training (summary.json); empty while it is unfinished.

        Raises:
            RunError: the file is damaged.
        """
        if not self.finished:
            return {}
        data = seal.read_file(self.path, "summary.json")
        try:
            summary = json.loads(data)
        except (ValueError, RecursionError):
            summary = None
        if not isinstance(summary, dict):
            raise seal.damage_error(self.path / "summary.json", "no JSON object")
        return summary

    def model_file(self, split: str | None = None) -> str:
        """Name of the file of the model that a split is scored with.

        A run with a refit has two models. The first one learnt from the training split alone and scores training and
        validation split; the other one learnt from both, and does everything else.

        Args:
            split: split of the run's own tracks; None for any other tracks.
        """
        is_refitted = self.config.get("refit") and split not in ("training", "validation")
        if self.config.get("kind") == "classical":
            return "refit.skops" if is_refitted else "model.skops"
        return "refit.pt" if is_refitted else "best.pt"

    def read(self, name: str) -> bytes:
        """Read a file of the run, and check it.

        Raises:
            RunError: the file is missing, unreadable or damaged.
        """
        try:
            return seal.read_file(self.path, name)
        except FileNotFoundError:
            raise RunError(f"{self.path / name}: missing", "train a new run") from None
        except OSError as error:
            raise RunError(f"{self.path / name}: {error.strerror}", "check the path and its permissions") from None

    def write_files(self, contents: Mapping[str, bytes]) -> None:
        """Write files of the run, or replace them, one after the other; and seal them.

        Args:
            contents: bytes of each file, by name.

        Raises:
            MgcError: a file cannot be written.
        """
        with files.translate_write_errors(self.path):
            seal.write_files(self.path, contents)

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file of the run, or replace it."""
        self.write_files({name: files.encode_json(value)})

    def finish(self, summary: dict[str, Any]) -> None:
        """Record the result of the training; the run is finished then."""
        self.write_json("summary.json", summary)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Losses and accuracies, one entry per finished epoch.

        Raises:
            RunError: the file is damaged.
        """
        file = self.path / "history.jsonl"
        try:
            return [json.loads(line) for line in seal.read_file(self.path, file.name).splitlines()]
        except FileNotFoundError:
            return []
        except (ValueError, RecursionError):
            raise seal.damage_error(file, "no JSON lines") from None

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Replace the history."""
        lines = "".join(json.dumps(epoch) + "\n" for epoch in history)
        self.write_files({"history.jsonl": lines.encode()})

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Replace a checkpoint atomically.

        Args:
            name: name of the file, such as `best.pt`.
            state: tensors and plain values.

        Raises:
            MgcError: the checkpoint cannot be written; the previous one is kept.
        """
        import torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        try:
            seal.write_files(self.path, {name: buffer.getvalue()})
        except OSError as error:
            problem = files.explain_write_error(error, self.path / name).problem
            remedy = f"solve this; `mgc train --resume --run {self.path}` goes on from the checkpoint before"
            raise MgcError(problem, remedy) from error

    def load(self, name: str) -> dict[str, Any]:
        """Load a checkpoint, with its tensors on the CPU.

        Args:
            name: name of the file, such as `best.pt`.

        Raises:
            RunError: the checkpoint is missing or damaged.
        """
        import torch

        file = self.path / name
        try:
            data = seal.read_file(self.path, name)
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            remedy = f"continue the run: `mgc train --resume --run {self.path}`"
            raise RunError(f"{file}: missing", seal.RESTORE if self.finished else remedy) from None
        except RunError:
            raise
        except Exception as error:  # whatever zip, pickle and torch raise for foreign bytes
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RunError(f"{file}: damaged ({first_line})", "train a new run") from None


def _create_folder(parent: Path, name: str) -> Path:
    """Create a folder with this name in `parent`; add a number to the name if it exists."""
    number = 1
    while True:
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path
