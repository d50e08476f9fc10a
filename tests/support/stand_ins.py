"""Folders that look like published datasets and libraries, made of other music."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from mutagen.id3 import ID3, TALB, TCON, TIT2, TPE1

from mgc.pipeline.datasets import open_dataset
from mgc.pipeline.datasets.clips import split_list
from mgc.pipeline.datasets.published import published_dataset

GTZAN_GENRES = published_dataset("gtzan").genres


def gtzan_clips(genre: str, counts: Mapping[str | None, int]) -> list[str]:
    """The first names of a genre's clips, as many of each split of the filtered list; None stands for omitted ones."""
    listed = {f"{genre}.{n:05}": split_list("gtzan-filtered").get(f"{genre}.{n:05}") for n in range(100)}
    named = {split: [clip for clip, its_split in listed.items() if its_split == split] for split in counts}
    return [clip for split, count in counts.items() for clip in named[split][:count]]


def write_gtzan(
    folder: Path, music: Sequence[Path], counts: Mapping[str | None, int], *, seconds: float = 6, suffix: str = "wav"
) -> Path:
    """Write GTZAN's layout, `genre/genre.00000.wav`: what is played under a name is not GTZAN's.

    Args:
        folder: where the folders of the genres go.
        music: files; those that follow each other go into one genre. If they are too few, they follow backwards.
        counts: as of `gtzan_clips`.
        seconds: length of each clip; a file that is shorter is followed by itself, backwards.
        suffix: of the files, `wav` or `au`.
    """
    names = [clip for genre in GTZAN_GENRES for clip in gtzan_clips(genre, counts)]
    for number, clip in enumerate(names):
        samples, rate = soundfile.read(music[number % len(music)], always_2d=True)
        if number // len(music) % 2:
            samples = samples[::-1]  # no two files are equal
        mono = samples.mean(axis=1)
        if len(mono) < seconds * rate:
            mono = np.concatenate([mono, mono[::-1]])
        mono = mono[: round(seconds * rate)]
        path = folder / clip.split(".")[0] / f"{clip}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, mono[::2], rate // 2)
    return folder


def tag_library(audio: Path, folder: Path) -> Path:
    """Copy the files of a dataset in FMA's layout as `Artist/Album/Title.mp3`, with their genres in tags."""
    dataset = open_dataset(audio)
    for number, row in enumerate(dataset.tracks.to_pylist()):
        source = Path(str(dataset.root)) / row["path"]
        if not source.is_file():
            continue
        names = (f"Artist {row['artist_id']}", "Album", f"Title {number}")
        path = folder / names[0] / names[1] / f"{names[2]}.mp3"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)
        tags = ID3()
        for frame, text in zip((TPE1, TALB, TIT2, TCON), (*names, row["genre"]), strict=True):
            tags.add(frame(encoding=3, text=text))
        tags.save(path)
    return folder
