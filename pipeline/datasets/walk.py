"""Folder listings for dataset layouts: no file is opened, no link to a folder followed, and skipped files are counted.

`os.walk` is no faster (0.2 s for 107,000 files) and lists a link to a folder among the folders, even one named like a
clip; `Path.rglob` takes ten times as long.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mgc.pipeline.datasets.catalogue import format_names, is_audio_name
from mgc.pipeline.datasets.tracks import escape
from mgc.pipeline.storage.remote import Place, RemotePath


class Walker:
    """List the folders of a dataset, and collect what it skips for `notes`.

    Paths are `/`-separated and relative to the root; "" is the root itself. Files are judged by their names alone: a
    named pipe, a dangling link or a folder with an audio suffix counts as an audio file. It becomes a track that
    extraction drops with a reason, instead of vanishing.

    Args:
        root: local folder, or URL.

    Attributes:
        root: the root as text.
        strays: audio files that do not fit the layout; the layout's `read` function fills it.
    """

    def __init__(self, root: Place) -> None:
        self.root = str(root)
        self.strays: list[str] = []
        self._remote = root if isinstance(root, RemotePath) else None
        self._links: list[str] = []
        self._hidden: list[str] = []
        self._unreadable: list[str] = []

    def scan(self, folder: str = "") -> tuple[list[str], list[str]]:
        """List one folder.

        Returns:
            Paths of its subfolders, and paths of its audio files, both sorted.
        """
        folders: list[str] = []
        files: list[str] = []
        prefix = f"{folder}/" if folder else ""
        if self._remote is not None:
            for name, is_folder in (self._remote / folder if folder else self._remote).scan():
                if is_folder or is_audio_name(name):
                    (self._hidden if name.startswith(".") else folders if is_folder else files).append(prefix + name)
            return sorted(folders), sorted(files)
        try:
            with os.scandir(f"{self.root}/{folder}") as entries:
                for entry in entries:
                    path = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        (self._hidden if entry.name.startswith(".") else folders).append(path)
                    elif is_audio_name(entry.name):
                        (self._hidden if entry.name.startswith(".") else files).append(path)
                    elif entry.is_symlink() and Path(entry.path).is_dir():
                        self._links.append(path)
        except OSError:
            self._unreadable.append(folder)
        return sorted(folders), sorted(files)

    def audio_files(self, folder: str) -> Iterator[str]:
        """Yield the paths of all audio files below a folder, at any depth.

        A folder with an audio suffix counts as a file unless there is audio in it: then it is an album with an odd
        name.
        """
        folders, files = self.scan(folder)
        yield from files
        for subfolder in folders:
            paths = self.audio_files(subfolder)
            if (first := next(paths, None)) is not None:
                yield first
                yield from paths
            elif is_audio_name(subfolder):
                yield subfolder

    def notes(self, layout: str) -> tuple[str, ...]:
        """One sentence on each kind of skipped file.

        Args:
            layout: pattern of the layout's paths, such as `genre/…/file`, for the note on strays.
        """
        kinds = (
            (f"audio files outside {layout}, left out", self.strays),
            ("links to folders, not followed", self._links),
            ("folders that cannot be read, left out", self._unreadable),
            ("hidden files and folders, left out", self._hidden),
        )
        return tuple(
            f"{kind}: {len(paths):,} ({format_names(sorted(map(escape, paths)))})" for kind, paths in kinds if paths
        )
