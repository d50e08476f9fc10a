"""Small real stores of synthetic features; each genre is loud in other bands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mgc.pipeline.datasets.published import published_dataset
from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA
from mgc.pipeline.features import Chroma, FeatureSpec, Mel, PowerSpectrum, Waveform
from mgc.pipeline.features.variants import Variant
from mgc.pipeline.storage import files
from mgc.pipeline.store.manifest import publish, write_fragment
from mgc.pipeline.store.shard import ShardWriter
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

GENRES = ("Folk", "Rock", "Ambient")
TRACKS = {"training": 18, "validation": 6, "test": 6}
TINY = Mel(n_mels=8, n_fft=512)
#: First track id of each split in FMA's layout.
_FIRST_IDS = {"training": 1000, "validation": 2000, "test": 3000}


@dataclass(frozen=True)
class Content:
    """Labels and lengths of the tracks of a store.

    Attributes:
        genres: genres, assigned to the tracks of a split in turn.
        seconds: lengths in seconds, assigned in turn.
        first_ids: first track id of each split in FMA's layout; None for ids such as `training-000`.
        relabel, colour: see `make_store`.
    """

    genres: Sequence[str]
    seconds: Sequence[float]
    first_ids: Mapping[str, int] | None
    relabel: Callable[[dict[str, Any]], dict[str, Any]]
    colour: Callable[[dict[str, Any]], np.ndarray | float]


def make_store(
    path: Path,
    spec: FeatureSpec = TINY,
    slicing: Slicing | None = None,
    *,
    tracks: Mapping[str, int] = TRACKS,
    genres: Sequence[str] = GENRES,
    seconds: Sequence[float] = (9.0,),
    tracks_per_shard: int = 4,
    root: Path | None = None,
    variants: tuple[Variant, ...] = (),
    fma: Path | None = None,
    relabel: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: {},
    colour: Callable[[dict[str, Any]], np.ndarray | float] = lambda row: 0.0,
) -> Store:
    """Create a store; artists have two tracks each.

    The frames of a track depend only on its split and number, not on dtype, slicing or shards.

    Args:
        path: folder of the store.
        spec: feature of the store.
        slicing: slicing of the store; None for slices of 2 s.
        tracks: number of tracks in each split.
        genres: genres, assigned in turn.
        seconds: lengths of the tracks in seconds, assigned in turn.
        tracks_per_shard: maximum number of tracks in a shard; a shard holds tracks of one split.
        root: root folder of the dataset; stores with the same root hold the same dataset. None for `path`.
        variants: augmentation variants of all tracks, test tracks included, as if each had been a training track.
        fma: folder to write a dataset to that has the layout and genres of FMA-small but no audio; its tracks are those
            of the store. None for ids such as `training-000`.
        relabel: values of a track's manifest row that differ from the usual ones, such as another genre or artist.
        colour: dB that are added to the levels of a track, of each band, by its manifest row.
    """
    dataset: dict[str, object] = {"name": "synthetic", "root": str(root or path), "genres": list(genres)}
    if fma is not None:
        genres = published_dataset("fma_small").genres
        dataset = _fma_small(fma, tracks, genres)
    store = Store.create(path, spec, dataset, variants)
    content, shard = Content(genres, seconds, _FIRST_IDS if fma else None, relabel, colour), 0
    for split, count in tracks.items():
        for first in range(0, count, tracks_per_shard):
            numbers = range(first, min(first + tracks_per_shard, count))
            _write_shard(store, shard, split, numbers, content)
            shard += 1
    publish(store, slicing or Slicing(seconds=2.0))
    return Store.open(path)


def frames_of(store: Store, track_id: str) -> np.ndarray:
    """Frames of a track, float32 `(n, bins)`, decoded without a stream."""
    row = next(row for row in store.tracks.to_pylist() if row["track_id"] == track_id)
    stored = store.read(row["shard"])[row["first_frame"] : row["first_frame"] + row["n_frames"]]
    return store.spec.decode(stored)


def _fma_small(folder: Path, tracks: Mapping[str, int], genres: Sequence[str]) -> dict[str, object]:
    """Write a dataset without audio in the layout of FMA-small; return the description that a store records of it."""
    (folder / "fma_metadata").mkdir(parents=True, exist_ok=True)
    rows = [["", "set", "set", "track"], ["", "split", "subset", "genre_top"], ["track_id", "", "", ""]]
    for split, count in tracks.items():
        rows += [
            [f"{_FIRST_IDS[split] + number}", split, "small", genres[number % len(genres)]] for number in range(count)
        ]
    (folder / "fma_metadata" / "tracks.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    root = folder / "fma_small"
    for id, *_ in rows[3:]:
        clip = root / f"{int(id):06d}"[:3] / f"{int(id):06d}.mp3"
        clip.parent.mkdir(parents=True, exist_ok=True)
        clip.touch()
    return {"name": "fma_small", "root": str(root), "source": str(root), "format": "fma", "genres": list(genres)}


def _write_shard(store: Store, shard: int, split: str, numbers: range, content: Content) -> None:
    """Write a shard and its fragment, with the tracks of these numbers in a split."""
    genres, seconds, first_ids = content.genres, content.seconds, content.first_ids
    writer = ShardWriter(store.shard_path(shard), store.spec)
    rows = []
    for number in numbers:
        length = seconds[number % len(seconds)]
        levels = _levels(f"{split}-{number}", store.spec.frames(length), store.spec.bins, number % len(genres))
        rows.append(
            dict.fromkeys(MANIFEST_SCHEMA.names)
            | {
                "track_id": f"{first_ids[split] + number:06d}" if first_ids else f"{split}-{number:03d}",
                "path": f"{split}/{number:03d}.mp3",
                "genre": genres[number % len(genres)],
                "split": split,
                "artist_id": f"{split}-artist-{number // (2 * len(genres))}-{number % len(genres)}",
                "content_hash": f"{split}-{number}",
                "duration_s": length,
                "status": "ok",
                "shard": shard,
                "first_frame": writer.n_frames,
                "n_frames": len(levels),
            }
        )
        rows[-1] |= content.relabel(rows[-1])
        levels = levels + np.asarray(content.colour(rows[-1]), np.float32)
        writer.append(_values(store.spec, levels))
        variant_rows = []
        for variant in store.variants:
            first = writer.n_frames
            writer.append(_levels(f"{split}-{number}-{variant}", len(levels), store.spec.bins, number % len(genres)))
            row = {"variant": str(variant), "duration_s": length, "first_frame": first, "n_frames": len(levels)}
            variant_rows.append(row)
        rows[-1]["variants"] = variant_rows or None
    writer.close()
    checksums = files.folder_checksums(store.shard_path(shard), store.shard_path(shard).name)
    write_fragment(store, shard, pa.Table.from_pylist(rows, MANIFEST_SCHEMA), checksums)


def _values(spec: FeatureSpec, levels: np.ndarray) -> np.ndarray:
    """Convert levels in dB to the range of a feature."""
    if isinstance(spec, PowerSpectrum):
        return 10 ** (levels / 10)
    return (levels + 50) / 100 if isinstance(spec, Chroma) else levels / 100 if isinstance(spec, Waveform) else levels


def _levels(name: str, n_frames: int, bins: int, genre: int) -> np.ndarray:
    """Noise around -30 dB, 15 dB louder in a third of the bands that depends on the genre."""
    levels = np.random.default_rng([*name.encode()]).normal(-30, 8, (n_frames, bins)).astype(np.float32)
    levels[:, np.arange(bins) * 3 // bins == genre % 3] += 15
    return levels
