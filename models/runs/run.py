"""A run: one training of one model, everything about it in one folder.

config.json         what was trained on what, and with which versions; written once
tracks.parquet      the tracks it used and their splits
history.jsonl       one line per epoch
curves.png          the same as a picture
events/             the same for TensorBoard, where that was asked for
not-finite.json     the slices whose loss was no number, which ended the training
best.pt, last.pt    weights of the best epoch; the whole state after the last step, which `--resume` continues from
model.skops         the fitted estimator, of a classical system
summary.json        how it ended; absent until then

Opening a run executes nothing that it contains: checkpoints hold tensors and plain values only.
"""

from __future__ import annotations

import io
import json
import os
import platform
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from mgc.models.runs.selection import Selection
from mgc.pipeline.errors import MgcError, RunError
from mgc.pipeline.features import FeatureSpec, from_dict
from mgc.pipeline.storage import files, parquet
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.storage.urls import parse_place
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.versions import versions as library_versions

FORMAT = 1
#: Libraries whose version can change the weights.
LIBRARIES = ("mgc", "torch", "numpy", "scikit-learn", "zarr", "zarrs")


def relative_store_path(store: Place, folder: Path) -> str | None:
    """The way from a folder of runs to a store, by which it is found where both have moved; None to a URL."""
    return None if isinstance(store, RemotePath) else os.path.relpath(store.resolve(), folder.resolve())


@dataclass(frozen=True)
class Source:
    """A store that a run reads, and how.

    Attributes:
        path: its folder or URL.
        spec: the feature it holds, or that the device computes of the samples in it.
        frames: frames of a slice that the model sees.
        manifest: digest of its manifest when the run began.
        sliced: how it was cut then.
        waveform: what it holds where the feature is computed; else None.
    """

    path: Place
    spec: FeatureSpec
    frames: int
    manifest: str
    sliced: Slicing
    waveform: FeatureSpec | None = None


@dataclass(frozen=True)
class Run:
    """An existing run.

    Attributes:
        path: its folder.
        config: what config.json holds.
    """

    path: Path
    config: dict[str, Any]

    @classmethod
    def create(cls, folder: Path, model: str, config: dict[str, Any], selection: Selection) -> Run:
        """A new run in a folder of its own, `<UTC time>-<model>`.

        Args:
            folder: where runs are kept; made where it does not exist.
            model: id of the system.
            config: its configuration; what describes program and machine is added.
            selection: its classes and tracks.

        Raises:
            MgcError: the folder cannot be written.
        """
        now = datetime.now(UTC)
        with files.translate_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            path = _unused(folder, f"{now:%Y%m%d-%H%M%S}-{model.replace('/', '-')}")
            versions = {"python": platform.python_version()} | library_versions(LIBRARIES)
            head = {"format": FORMAT, "model": model, "created": now.isoformat(timespec="seconds")}
            tail = {"versions": versions, "platform": platform.platform(), "command": sys.argv}
            parquet.write_table(path / "tracks.parquet", selection.tracks)
            # Last: with it the folder is a run.
            files.write_json(path / "config.json", head | config | {"classes": selection.classes} | tail)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Run:
        """The run in a folder.

        Raises:
            RunError: there is none, it is damaged, or this version of mgc cannot read it.
        """
        file = path / "config.json"
        try:
            config = json.loads(file.read_bytes())
            version = config["format"]
        except FileNotFoundError:
            raise RunError(f"{path}: no run", "make one with `mgc train`, or name another folder") from None
        except OSError as error:
            raise RunError(f"{file}: {error.strerror}", "check the path and its rights") from None
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{file}: damaged", "train a new run") from None
        if version != FORMAT:
            raise RunError(
                f"{path}: a run of format {version}, this mgc reads format {FORMAT}",
                "use the version of mgc that made it, or train a new run",
            )
        run = cls(path, config)
        try:
            _ = run.model, run.classes, run.slicing, run.sources
        except (MgcError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{file}: damaged ({error})", "train a new run") from None
        return run

    # -- what it was trained on -------------------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """Id of its system."""
        return self.config["model"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Genres in the order of the model's outputs."""
        return tuple(self.config["classes"])

    @property
    def slicing(self) -> Slicing:
        """How it cuts tracks."""
        return Slicing.from_dict(self.config["store"]["slicing"])

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """What it reads: one store for each input of its system."""
        first = self.config["store"] | {"frames": self.config["frames"]}
        return tuple(self._source(store) for store in (first, *self.config.get("further", [])))

    def _source(self, store: dict[str, Any]) -> Source:
        # Also where both have been moved or copied together.
        path = parse_place(store["path"])
        if store["from_runs"] is not None and (beside := self.path.parent / store["from_runs"]).is_dir():
            path = beside
        sliced = Slicing.from_dict(store.get("sliced") or store["slicing"])
        waveform = from_dict(store["waveform"]) if "waveform" in store else None
        return Source(path, from_dict(store["spec"]), int(store["frames"]), store.get("manifest", ""), sliced, waveform)

    @property
    def store_path(self) -> Place:
        """Folder or URL of the first store it was trained on."""
        return self.sources[0].path

    @property
    def spec(self) -> FeatureSpec:
        """The first feature it was trained on."""
        return self.sources[0].spec

    @property
    def frames(self) -> int:
        """Frames of a slice that the model sees of it."""
        return self.sources[0].frames

    @cached_property
    def selection(self) -> Selection:
        """Its classes and tracks.

        Raises:
            RunError: tracks.parquet is missing or damaged.
        """
        file = self.path / "tracks.parquet"
        try:
            return Selection(self.classes, parquet.read_table(file))
        except FileNotFoundError:
            raise RunError(f"{file}: missing", "train a new run") from None
        except OSError as error:
            raise RunError(f"{file}: damaged ({error.strerror})", "train a new run") from None

    # -- what came of it --------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether its training came to an end."""
        return (self.path / "summary.json").exists()

    @property
    def summary(self) -> dict[str, Any]:
        """How its training ended; empty while it has not."""
        return json.loads((self.path / "summary.json").read_bytes()) if self.finished else {}

    def record(self, name: str, value: dict[str, Any]) -> None:
        """Replace a JSON file of the run."""
        with files.translate_write_errors(self.path):
            files.write_json(self.path / name, value)

    def finish(self, summary: dict[str, Any]) -> None:
        """Record how the training ended."""
        self.record("summary.json", summary)

    @property
    def history(self) -> list[dict[str, Any]]:
        """One entry per finished epoch."""
        file = self.path / "history.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Replace the history."""
        lines = "".join(json.dumps(epoch) + "\n" for epoch in history)
        with files.translate_write_errors(self.path):
            files.write_bytes(self.path / "history.jsonl", lines.encode())

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Replace a checkpoint atomically.

        Args:
            name: `best.pt` or `last.pt`.
            state: tensors and plain values.

        Raises:
            MgcError: it cannot be written; the one before is kept.
        """
        import torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        try:
            files.write_bytes(self.path / name, buffer.getvalue())
        except OSError as error:
            problem = files.explain_write_error(error, self.path / name).problem
            goes_on = f"see to that, then `mgc train --resume --run {self.path}` goes on from the checkpoint before"
            raise MgcError(problem, goes_on) from error

    def load(self, name: str) -> dict[str, Any]:
        """A checkpoint, its tensors on the CPU.

        Raises:
            RunError: it is missing or damaged.
        """
        import torch

        file = self.path / name
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise RunError(f"{file}: missing", f"continue the run: `mgc train --resume --run {self.path}`") from None
        except Exception as error:  # whatever zip, pickle and torch raise for foreign bytes
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RunError(f"{file}: damaged ({first_line})", "train a new run") from None


def _unused(folder: Path, name: str) -> Path:
    """Make a new folder of this name, numbered where there is one already."""
    number = 1
    while True:
        path = folder / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path
