"""Files that are being fetched, and their checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mgc.pipeline.datasets.published import Archive
from mgc.pipeline.downloads.progress import showing
from mgc.pipeline.storage import files


class Part:
    """The beginning of a file that is being fetched, `NAME.part`, and beside it what the server said about the file.

    Args:
        path: path of the finished file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.part")
        self._state = path.with_name(f"{path.name}.part.json")

    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self, url: str) -> str | None:
        """The ETag or date by which the server at `url` knows the version of the file; None if it is not known."""
        try:
            state = json.loads(self._state.read_bytes())
            return state["validator"] if state["url"] == url else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def record(self, url: str, validator: str | None) -> None:
        """Record the version of the file that is being fetched."""
        files.write_json(self._state, {"url": url, "validator": validator})

    def remove(self) -> None:
        """Remove the file and its record."""
        self.path.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

    def finish(self, path: Path) -> None:
        """Give the finished file its name."""
        files.replace_file(self.path, path)
        self._state.unlink(missing_ok=True)


def verify(archive: Archive, path: Path) -> str | None:
    """Compare a file with the published size and checksums.

    Returns:
        Description of the first difference with both values; None if there is none.
    """
    size = path.stat().st_size if path.exists() else 0
    if archive.size is not None and size != archive.size:
        return f"it has {size:,} bytes, {archive.size:,} were published"
    for name, published in (("sha256", archive.sha256), ("sha1", archive.sha1)):
        if published is None:
            continue
        actual = file_checksum(path, name)
        if actual != published.lower():
            return f"its {name[:3].upper()}-{name[3:]} is {actual}, the published one {published.lower()}"
    return None


def file_checksum(path: Path, name: str) -> str:
    """Checksum of a file in hexadecimal, with its progress.

    Args:
        path: the file.
        name: `sha1` or `sha256`.
    """
    state = hashlib.new(name)
    with path.open("rb") as file, showing(f"verify {path.name.removesuffix('.part')}") as progress:
        progress.begin(0, path.stat().st_size)
        while block := file.read(1 << 20):
            state.update(block)
            progress.advance(len(block))
    return state.hexdigest()
