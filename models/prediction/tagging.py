"""Genres in the tags of audio files (ID3, Vorbis comments, MP4, APE), written by mutagen; the sound is not touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from mgc.pipeline.datasets.tags import fold
from mgc.pipeline.storage import files

#: Field that keeps the genres that stood in the tags before the first change.
PREVIOUS = "MGC_PREVIOUS_GENRE"


class NotTaggable(Exception):
    """A file whose format holds no tags that can be written."""


def write_genre(path: Path, genre: str, *, dry_run: bool = False) -> list[str] | None:
    """Write a genre into the tags of a file; the genres that it had are kept in the field `PREVIOUS`.

    A copy of the file is tagged and then takes its place, so that a kill leaves the file as it was. A link is followed.

    Args:
        path: the file.
        genre: the genre.
        dry_run: write nothing.

    Returns:
        The genres that it had; None if it already has this one alone, and nothing is written.

    Raises:
        NotTaggable: the file is of a format without tags, or damaged.
        MgcError: the folder cannot be written.
    """
    path = path.resolve()
    before = _genres(_open(path))
    if [fold(name) for name in before] == [fold(genre)]:
        return None
    if dry_run:
        return before
    with files.translate_write_errors(path):
        copy = files.temporary_path(path)
        try:
            shutil.copy2(path, copy)
            _set_genre(_open(copy), genre, before)
            with copy.open("rb") as file:
                os.fsync(file.fileno())
            files.replace_file(copy, path)
        finally:
            copy.unlink(missing_ok=True)
    return before


def _open(path: Path) -> Any:
    """Open the tags of a file; those of one without tags are empty."""
    import mutagen

    try:
        file = mutagen.File(path)
        if file is not None and file.tags is None:
            file.add_tags()
    except Exception as error:  # mutagen raises many kinds of errors on damaged files
        raise NotTaggable(f"its tags cannot be read ({type(error).__name__})") from error
    if file is None or _kind(file.tags) is None:
        raise NotTaggable("its format holds no tags that mgc writes")
    return file


def _kind(tags: Any) -> str | None:
    """The kind of a file's tags: `id3`, `vorbis`, `mp4` or `ape`; None for others."""
    from mutagen._vorbis import VComment
    from mutagen.apev2 import APEv2
    from mutagen.id3 import ID3
    from mutagen.mp4 import MP4Tags

    kinds = {"id3": ID3, "vorbis": VComment, "mp4": MP4Tags, "ape": APEv2}
    return next((name for name, kind in kinds.items() if isinstance(tags, kind)), None)


def _genres(file: Any) -> list[str]:
    """The genres in the tags of a file."""
    tags = file.tags
    match _kind(tags):
        case "id3":
            return [genre for frame in tags.getall("TCON") for genre in frame.genres]
        case "mp4":
            return list(tags.get("\xa9gen", []))
        case _:
            return [str(genre) for genre in tags.get("genre", [])]


def _set_genre(file: Any, genre: str, before: list[str]) -> None:
    """Replace the genre in the tags of a file, and keep those before unless an earlier change has kept some."""
    from mutagen.id3 import TCON, TXXX
    from mutagen.mp4 import MP4FreeForm

    tags = file.tags
    match _kind(tags):
        case "id3":
            tags.setall("TCON", [TCON(encoding=3, text=[genre])])
            if before and not tags.getall(f"TXXX:{PREVIOUS}"):
                tags.add(TXXX(encoding=3, desc=PREVIOUS, text=before))
            if tags.version[:2] == (2, 3):  # players that know no ID3v2.4 go on to read it
                tags.update_to_v23()
                file.save(v2_version=3)
                return
        case "mp4":
            tags["\xa9gen"] = [genre]
            key = f"----:mgc:{PREVIOUS}"
            if before and key not in tags:
                tags[key] = [MP4FreeForm(name.encode()) for name in before]
        case _:
            tags["genre"] = [genre]
            if before and PREVIOUS not in tags:
                tags[PREVIOUS] = before
    file.save()
