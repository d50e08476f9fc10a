"""Where downloads are kept in the data folder, and the record that says that a dataset is complete."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgc.pipeline.datasets.published import Archive, PublishedDataset
from mgc.pipeline.downloads.unpacking import Unpacked
from mgc.pipeline.errors import DatasetError, MgcError
from mgc.pipeline.storage import files
from mgc.pipeline.workspace import ARCHIVES, UNFINISHED

#: File in the folder of a dataset that lists all files that were unpacked, with sizes and CRC-32.
RECORD = ".download.json"


@dataclass(frozen=True)
class Places:
    """Folders of a dataset's download.

        datasets/fma-small/               the dataset, complete
        datasets/fma-small.unfinished/    what is unpacked of it until then
        datasets/archives/                archives, and beginnings of archives (`.part`)

    Attributes:
        root: the folder `datasets` of the workspace; for weights, which have no archives, `weights`.
        name: name of the dataset or weights, as in `mgc download`.
    """

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        """Folder of the dataset."""
        return self.root / self.name

    @property
    def unfinished(self) -> Path:
        """Folder of the dataset until it is complete."""
        return self.root / f"{self.name}{UNFINISHED}"

    def archive(self, archive: Archive) -> Path:
        """Path of an archive."""
        return self.root / ARCHIVES / archive.name

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other downloads into the same workspace out; a process that is killed frees the lock.

        Raises:
            MgcError: there is another one, or the folder cannot be written.
        """
        import filelock

        with files.translate_write_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.root / ".lock")
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                problem = f"{self.root}: another `mgc download` is at work there"
                raise MgcError(problem, "wait for it to end, or choose another --data-dir") from None
        try:
            yield
        finally:
            lock.release()


def write_record(folder: Path, dataset: PublishedDataset, unpacked: Mapping[str, Unpacked]) -> None:
    """Record in the folder of a dataset which files it has, and from which archives."""
    rows = {path: [file.size, file.crc] for path, file in unpacked.items()}
    value = {"dataset": dataset.name, "archives": _identity(dataset), "files": rows}
    files.write_json_with_digest(folder / RECORD, value)


def read_record(folder: Path, dataset: PublishedDataset | None = None) -> dict[str, Unpacked] | None:
    """Read the record of a folder.

    Args:
        folder: folder of a dataset.
        dataset: the dataset that it must be; None for any.

    Returns:
        The files by path; None if the folder has no record, or that of another dataset or version.

    Raises:
        DatasetError: the record is damaged.
    """
    try:
        value: dict[str, Any] = files.read_json_with_digest(folder / RECORD)
        rows = {path: Unpacked(*row) for path, row in value["files"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, KeyError, TypeError, AttributeError) as error:
        problem = f"{folder / RECORD} is damaged or cannot be read"
        raise DatasetError(problem, "move the folder away and download again") from error
    return rows if dataset is None or value.get("archives") == _identity(dataset) else None


def _identity(dataset: PublishedDataset) -> list[list[str | None]]:
    """What tells one version of a dataset from another: names and checksums of its archives."""
    return [[archive.name, archive.sha256 or archive.sha1] for archive in dataset.archives]
