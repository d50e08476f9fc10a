"""Damage to files, as disks and networks do it."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path, position: int | None = None) -> None:
    """Change one bit of a file, in the byte at `position` (counted from the end if negative), else in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 4
    path.write_bytes(data)
