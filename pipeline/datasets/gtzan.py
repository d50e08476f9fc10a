"""GTZAN layout: `genre/genre.00000.wav` (or .au, .mp3, …), without artists, titles or splits."""

from __future__ import annotations

import re

from mgc.pipeline.datasets.catalogue import Catalogue, track_table
from mgc.pipeline.datasets.tracks import escape
from mgc.pipeline.datasets.walk import Walker
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.storage.remote import Place

LAYOUT = "genre/genre.00000.wav"

# The genre in the file name must be that of the folder.
_CLIP = re.compile(r"(?P<genre>[^/]+)/(?P<id>(?P=genre)\.[0-9]{5})\.[^./]+")


def find_root(folder: Place) -> Place | None:
    """Find the folder of the genre folders: `folder`, or a subfolder (`genres` in the published archive).

    Returns:
        The folder, or None if neither `folder` nor exactly one of its subfolders has GTZAN's layout.
    """
    if _is_gtzan(folder):
        return folder
    subfolders = [folder / name for name in Walker(folder).scan()[0] if _is_gtzan(folder / name)]
    return subfolders[0] if len(subfolders) == 1 else None


def read(root: Place) -> Catalogue:
    """Read a folder in GTZAN layout. If a clip exists in several formats, the first file by name counts.

    Raises:
        DatasetError: no file is named like a GTZAN clip.
    """
    walker = Walker(root)
    genres, walker.strays = walker.scan()
    rows: dict[str, tuple[str, str]] = {}
    duplicates = 0
    for path in (path for genre in genres for path in sorted(walker.audio_files(genre))):
        clip = _CLIP.fullmatch(path)
        if clip is None:
            walker.strays.append(path)
        elif (track_id := escape(clip["id"])) in rows:
            duplicates += 1
        else:
            rows[track_id] = escape(path), escape(clip["genre"])
    notes = walker.notes(LAYOUT)
    if not rows:
        raise DatasetError("; ".join([f"no clip named {LAYOUT} in {root}", *notes]), "try --format folder")
    if duplicates:
        notes += (f"further formats of the same clips, left out: {duplicates:,}",)
    paths, labels = zip(*rows.values(), strict=True)
    return Catalogue(track_table({"track_id": list(rows), "path": paths, "genre": labels}), notes, published="gtzan")


def _is_gtzan(folder: Place) -> bool:
    """True if a subfolder has audio, and each one that has holds a file that is named like a GTZAN clip."""
    walker = Walker(folder)
    has_audio = False
    for genre in walker.scan()[0]:
        paths = list(walker.audio_files(genre))
        if paths and not any(map(_CLIP.fullmatch, paths)):
            return False
        has_audio |= bool(paths)
    return has_audio
