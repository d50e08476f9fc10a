"""The audio files that a user names: files, folders, playlists, and a list on standard input."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from mgc.pipeline.datasets.walk import Walker
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.storage.urls import is_url

#: Suffixes of playlists.
PLAYLISTS = (".m3u", ".m3u8")
#: Name that stands for standard input.
STDIN = "-"


@dataclass
class Inputs:
    """Audio files in the order in which they were named, each once.

    Attributes:
        paths: paths of the files as the user named or a playlist listed them; they need not exist.
        notes: one sentence each on what was left out, for the user.
    """

    paths: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def collect(arguments: Sequence[str], *, recursive: bool = False, stdin: IO[bytes] | None = None) -> Inputs:
    """List the audio files that the arguments of a command name.

    Args:
        arguments: files, folders, playlists (M3U, M3U8), or `-` for a list on standard input, one path a line.
        recursive: also list the files in folders below a folder.
        stdin: standard input, for `-`.

    Raises:
        DatasetError: a file or folder that is named does not exist or cannot be read, or holds no audio file. Entries
            of playlists and of standard input may be missing: they are listed, and each is judged by itself.
    """
    inputs = Inputs()
    found: dict[str, str] = {}
    for argument in arguments:
        if argument == STDIN:
            lines = stdin.read().splitlines() if stdin is not None else []
            entries: Iterable[str] = (os.fsdecode(line) for line in lines if line.strip())
        elif argument.lower().endswith(PLAYLISTS) and not Path(argument).is_dir():
            entries = _playlist(argument, inputs)
        elif Path(argument).is_dir():
            entries = _folder(argument, recursive, inputs)
        elif os.path.lexists(argument):
            entries = [argument]
        else:
            raise DatasetError(f"{argument}: no such file or folder", "check the path")
        for entry in entries:
            found.setdefault(os.path.abspath(entry), entry)  # noqa: PTH100  # a link is a file of its own
    inputs.paths = list(found.values())
    if not inputs.paths:
        raise DatasetError(f"{', '.join(arguments)}: no audio file is named there", "name files, folders or playlists")
    return inputs


def _folder(folder: str, recursive: bool, inputs: Inputs) -> list[str]:
    """List the audio files in a folder by their names, sorted."""
    walker = Walker(Path(folder))
    folders, names = walker.scan()
    paths = list(walker.audio_files("")) if recursive else names
    if not paths:
        below = f"; {len(folders):,} folders in it were not searched" if folders and not recursive else ""
        remedy = "add --recursive" if below else "name files, or a folder of audio"
        raise DatasetError(f"{folder}: no audio file in it{below}", remedy)
    inputs.notes += walker.notes("")
    return [os.path.join(folder, path) for path in paths]  # noqa: PTH118  # `./a` stays what the user typed


def _playlist(path: str, inputs: Inputs) -> list[str]:
    """List the entries of an M3U playlist: paths relative to its folder, and `file:` URLs.

    Raises:
        DatasetError: the file cannot be read.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}", "check the path and its permissions") from None
    entries, foreign = [], 0
    for entry in _lines(data):
        if entry.startswith("file:"):
            entry = unquote(urlsplit(entry).path)
        elif is_url(entry):
            foreign += 1
            continue
        entries.append(os.path.join(os.path.dirname(path), entry))  # noqa: PTH118, PTH120
    if foreign:
        inputs.notes.append(f"{path}: {foreign} entries are URLs, left out")
    return entries


def _lines(data: bytes) -> Iterator[str]:
    """Yield the entries of a playlist, which is in UTF-8 or, as older programs wrote it, in Latin-1."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.strip()
