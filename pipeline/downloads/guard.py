"""What is refused in an archive: names that lead elsewhere, and more bytes than it can honestly hold."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mgc.pipeline.errors import DatasetError
from mgc.pipeline.escaping import visible
from mgc.pipeline.units import format_size

#: Unpacked bytes per byte of an archive. Audio has about 1; tables of text, well compressed, 5 to 20.
MAX_RATIO = 100
#: Bytes that any archive may hold: those of small ones that are compressed well.
_ALWAYS = 1 << 20
MAX_MEMBERS = 1_000_000
_MAX_NAME, _MAX_DEPTH = 255, 32

_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def safe_path(name: str) -> str:
    """Return the path of a member of an archive, relative to the folder that the archive is unpacked into.

    Args:
        name: name of the member, as the archive has it.

    Returns:
        Names joined by `/`, without `.` and empty ones.

    Raises:
        DatasetError: it could lead to a place outside the folder, on some system, or is no name of a file.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or "\\" in name or ":" in (parts[0] if parts else "") or _DRIVE.match(name):
        raise _refusal(name, "it is not relative to the archive")
    if ".." in parts:
        raise _refusal(name, "it climbs out of the folder")
    if not parts or _CONTROL.search(name):
        raise _refusal(name, "it is no name of a file")
    if len(parts) > _MAX_DEPTH or any(len(part.encode("utf-8", "surrogateescape")) > _MAX_NAME for part in parts):
        raise _refusal(name[:80], "it is too long")
    return "/".join(parts)


def _refusal(name: str, why: str) -> DatasetError:
    return DatasetError(f"the archive holds {visible(repr(name))}: {why}", "nothing of it was used; do not unpack it")


class Budget:
    """What an archive may still hold: in bytes, and names that do not collide.

    Args:
        archive_bytes: length of the archive.
        free_bytes: free space of the disk that it is unpacked to.
        known: paths that other archives have filled.
    """

    def __init__(self, archive_bytes: int, free_bytes: int, known: Iterable[str] = ()) -> None:
        self._limit = _ALWAYS + MAX_RATIO * archive_bytes
        self._archive_bytes, self._free = archive_bytes, free_bytes
        self._declared = self._missing = 0
        self._files = set(known)
        self._folders = {folder for path in self._files for folder in _folders(path)}

    def admit(self, path: str, size: int, *, present: int = 0) -> None:
        """Count a file of the archive.

        Args:
            path: its safe path.
            size: its declared size in bytes.
            present: bytes of it that are on the disk already.

        Raises:
            DatasetError: it is one too many, it collides with another, or the disk has no room for it.
        """
        folders = _folders(path)
        if path in self._files or path in self._folders or any(folder in self._files for folder in folders):
            raise _refusal(path, "another file has this path")
        self._files.add(path)
        self._folders.update(folders)
        self._declared += size
        self._missing += size - min(present, size)
        if self._declared > self._limit or len(self._files) > MAX_MEMBERS:
            raise DatasetError(
                f"the archive of {format_size(self._archive_bytes)} declares more than {format_size(self._limit)} or "
                f"{MAX_MEMBERS:,} files",
                "that is a bomb, not a dataset: nothing of it was used",
            )
        if self._missing > self._free:
            raise no_room(self._missing, self._free)


def no_room(needed: int, free: int) -> DatasetError:
    """The error of a disk that is too small.

    Args:
        needed: bytes that have to be written.
        free: bytes that are free.
    """
    problem = f"not enough space on the disk: {format_size(needed)} needed, {format_size(free)} free"
    return DatasetError(problem, "free some, or choose another disk with --data-dir")


def _folders(path: str) -> list[str]:
    """All folders above a path: `a` and `a/b` for `a/b/c`."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: number + 1]) for number in range(len(parts))]
