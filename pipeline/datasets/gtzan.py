"""GTZAN layout: `genre/genre.00000.wav` (or .au, .mp3, …), without artists, titles or splits."""

from __future__ import annotations

import re

from mgc.pipeline.datasets.catalogue import Catalogue, track_table
from mgc.pipeline.datasets.tracks import escape
from mgc.pipeline.datasets.walk import Walker
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.storage.remote import Place

LAYOUT = "genre/genre.00000.wav"

# The genre in the name must be that of the folder.
_CLIP = re.compile(r"(?P<genre>[^/]+)/(?P<id>(?P=genre)\.[0-9]{5})\.[^./]+")


def find_root(folder: Place) -> Place | None:
    """The folder in GTZAN layout: this one, else its only subfolder that is (`genres` in the archive), else None."""
    if _is_gtzan(folder):
        return folder
    inner = [folder / name for name in Walker(folder).scan()[0] if _is_gtzan(folder / name)]
    return inner[0] if len(inner) == 1 else None


def read(root: Place) -> Catalogue:
    """The tracks of a folder in GTZAN layout; of one clip in several formats, the first by name.

    Raises:
        DatasetError: no file is named the GTZAN way.
    """
    walker = Walker(root)
    genres, walker.strays = walker.scan()
    rows: dict[str, tuple[str, str]] = {}
    copies = 0
    for path in (path for genre in genres for path in sorted(walker.below(genre))):
        clip = _CLIP.fullmatch(path)
        if clip is None:
            walker.strays.append(path)
        elif (track_id := escape(clip["id"])) in rows:
            copies += 1
        else:
            rows[track_id] = escape(path), escape(clip["genre"])
    notes = walker.notes(LAYOUT)
    if not rows:
        raise DatasetError("; ".join([f"no clip named {LAYOUT} in {root}", *notes]), "try --format folder")
    if copies:
        notes += (f"further formats of the same clips, left out: {copies:,}",)
    paths, labels = zip(*rows.values(), strict=True)
    return Catalogue(track_table({"track_id": list(rows), "path": paths, "genre": labels}), notes, published="gtzan")


def _is_gtzan(folder: Place) -> bool:
    """Whether each subfolder that holds audio holds some that is named the GTZAN way, and there is such a one."""
    walker = Walker(folder)
    found = False
    for genre in walker.scan()[0]:
        paths = list(walker.below(genre))
        if paths and not any(map(_CLIP.fullmatch, paths)):
            return False
        found |= bool(paths)
    return found
