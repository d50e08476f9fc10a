"""Plain folders: `genre/…/file`; the first folder level is the genre."""

from __future__ import annotations

from itertools import chain

from mgc.pipeline.datasets import blocks
from mgc.pipeline.datasets.catalogue import Catalogue, path_ids, track_table
from mgc.pipeline.datasets.tracks import escape
from mgc.pipeline.datasets.walk import Walker
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.storage.remote import Place

LAYOUT = "genre/…/file"


def read(root: Place, *, tagged: bool = False) -> Catalogue:
    """Read a folder of genre folders, whose audio files may lie at any depth.

    Args:
        root: the folder.
        tagged: the genres are in the files' tags: files that lie in no folder are tracks, too, and `genre` is null.

    Raises:
        DatasetError: no genre folder holds a file with an audio suffix.
    """
    walker = Walker(root)
    genres, files = walker.scan()
    walker.strays = [] if tagged else files
    below = chain.from_iterable(map(walker.audio_files, genres))
    paths = blocks.collect(map(escape, chain(files if tagged else (), below)))
    notes = walker.notes(LAYOUT)
    if not len(paths):
        raise DatasetError(
            "; ".join([f"no audio in genre folders in {root}", *notes]),
            "put the files into one folder per genre, or name a CSV list with columns path and genre",
        )
    columns = {"track_id": path_ids(paths), "path": paths}
    if not tagged:
        columns["genre"] = blocks.collect(path.split("/", 1)[0] for path in blocks.each(paths))
    return Catalogue(track_table(columns), notes)
