"""Estimate of an extraction before it starts: files to decode, time, size, and the free space of the disk."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import Dataset, blocks
from mgc.pipeline.datasets.lookup import Lookup
from mgc.pipeline.extraction import probe
from mgc.pipeline.extraction.batches import TrackRows, estimated_seconds
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.features.variants import frame_multiplier
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.store import manifest
from mgc.pipeline.store.siblings import siblings
from mgc.pipeline.store.store import Store
from mgc.pipeline.units import format_seconds, format_size

if TYPE_CHECKING:
    from mgc.pipeline.extraction.task import Target


class Cost(NamedTuple):
    """Cost of a feature.

    Attributes:
        cpu_s: CPU seconds per minute of audio, without decoding.
        compressed: size of the stored frames, relative to their size in memory.
    """

    cpu_s: float
    compressed: float


#: CPU seconds to decode a minute of audio, check and hash the file. This and the tables below are from
#: docs/performance.md, "Estimate".
DECODING_CPU_S = 0.055
#: Costs of the features at their default parameters.
COSTS = {
    "stft": Cost(0.026, 0.79),
    "mel": Cost(0.025, 0.92),
    "mfcc": Cost(0.029, 0.95),
    "power": Cost(0.078, 0.91),
    "chroma": Cost(0.024, 0.91),
    "harmonic": Cost(0.65, 0.94),
    "percussive": Cost(0.63, 0.91),
    "waveform": Cost(0.028, 0.92),
    "stats": Cost(0.79, 1.0),
}
#: Cost of a feature of another package, which is not known.
OTHER_COST = Cost(0.1, 1.0)
#: CPU seconds to make a variant of a minute of audio, by name.
VARIANT_CPU_S = {"pitch": 0.46, "stretch": 0.38, "noise": 0.02}
#: Length in seconds of a track that only the store knows, and whose length it does not: that of a usual clip.
UNKNOWN_S = 30
#: Seconds until the workers decode their first file.
START_S = 4
#: Estimated time in seconds beyond which the work counts as long.
LONG_S = 60

_DURATION_COLUMNS = ["track_id", "duration_s"]


@dataclass(frozen=True)
class Estimate:
    """What an extraction will take.

    Attributes:
        n_files: number of files to decode.
        seconds: time in seconds; CPU time of one worker if the number of workers is not known.
        n_bytes: size of the new frames in bytes, after compression.
        free_bytes: free space of the disk; None for stores at a URL.
        workers: number of workers; None if a scheduler knows it.
    """

    n_files: int
    seconds: float
    n_bytes: float
    free_bytes: int | None
    workers: int | None

    @property
    def is_long(self) -> bool:
        """True if the work takes more than `LONG_S`."""
        return self.seconds > LONG_S

    @property
    def exceeds_disk(self) -> bool:
        """True if the frames are larger than the free space."""
        return self.free_bytes is not None and self.n_bytes > self.free_bytes

    def __add__(self, other: Estimate) -> Estimate:
        """Return the estimate of two extractions, one after the other, into one folder."""
        return dataclasses.replace(
            self,
            n_files=self.n_files + other.n_files,
            seconds=self.seconds + other.seconds,
            n_bytes=self.n_bytes + other.n_bytes,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the estimate as plain values."""
        values = {"files": self.n_files, "seconds": round(self.seconds, 1), "bytes": round(self.n_bytes)}
        return values | {"free_bytes": self.free_bytes, "workers": self.workers}

    def notes(self) -> Iterator[str]:
        """Yield lines for the user: the estimate, and a warning if the disk is too small."""
        yield f"extract: {self}"
        if self.exceeds_disk:
            yield "extract: the disk is too small for that: make space, or name a folder elsewhere with --out"

    def __str__(self) -> str:
        """Describe the estimate in one line, such as `1,000 files to decode, about 2 min and 130 MB (12 GB free)`."""
        files = f"{self.n_files:,} {'file' if self.n_files == 1 else 'files'} to decode"
        time = format_seconds(self.seconds) + ("" if self.workers else " of processor time")
        size = format_size(self.n_bytes)
        if self.free_bytes is None:
            return f"{files}, about {time} and {size}"
        return f"{files}, about {time} and {size} ({format_size(self.free_bytes)} free)"


def estimate(
    dataset: Dataset,
    batches: Sequence[tuple[TrackRows, list[Target]]],
    stores: Sequence[Store],
    tracks: pa.Table,
    workers: int | None,
) -> Estimate:
    """Estimate what it takes to decode some batches.

    Args:
        dataset: the dataset.
        batches: the batches, and the stores with the shards that get their frames.
        stores: the stores, in one folder. They and their siblings know the lengths of tracks they hold; other lengths
            follow from file sizes, and from the headers of a few files.
        tracks: the dataset's tracks, with `size` of their files.
        workers: number of workers; None if a scheduler knows it.
    """
    seconds = np.append(_lengths(dataset, tracks, stores), UNKNOWN_S)
    lookup = Lookup(tracks["track_id"])
    cpu_s = n_bytes = 0.0
    targeted: set[Place] = set()
    for targets, group in _with_same_stores(batches):
        targeted |= {target.store.path for target in targets}
        variants = targets[0].store.variants
        specs = [target.store.spec for target in targets]
        # Many batches at once: one after the other, a million take minutes.
        for block in blocks.batched(rows.table().select(["track_id", "split"]) for rows in group):
            tracks_of = pa.concat_tables(block)
            lengths = seconds[lookup.rows(tracks_of["track_id"])]  # -1 is the last one, for unknown tracks
            training = pc.fill_null(pc.equal(tracks_of["split"], "training"), False).to_numpy()
            with_variants = np.where(training, frame_multiplier(variants), 1)
            cpu_s += lengths.sum() / 60 * DECODING_CPU_S
            cpu_s += lengths[training].sum() / 60 * sum(VARIANT_CPU_S[variant.name] for variant in variants)
            cpu_s += (lengths * with_variants).sum() / 60 * sum(cost(spec).cpu_s for spec in specs)
            n_bytes += sum((frame_bytes(spec, lengths) * with_variants).sum() for spec in specs)
    return Estimate(
        n_files=sum(len(rows) for rows, _ in batches),
        seconds=START_S + cpu_s / (workers or 1),
        n_bytes=n_bytes,
        free_bytes=_free_bytes(targeted),
        workers=workers,
    )


def _with_same_stores(
    batches: Iterable[tuple[TrackRows, list[Target]]],
) -> Iterator[tuple[list[Target], Iterator[TrackRows]]]:
    """Yield the tracks of consecutive batches for the same stores, with the targets of the first of them."""
    for _, group in itertools.groupby(batches, lambda batch: [target.store.path for target in batch[1]]):
        first = next(group)
        yield first[1], (rows for rows, _ in itertools.chain([first], group))


def cost(spec: FeatureSpec) -> Cost:
    """Return the cost of a feature."""
    return COSTS.get(spec.name, OTHER_COST)


def frame_bytes(spec: FeatureSpec, seconds: np.ndarray) -> np.ndarray:
    """Estimate the size of tracks' frames in bytes after compression, float64 `(tracks,)`.

    Args:
        spec: the feature. One that describes a track as a whole has one frame a track.
        seconds: length of each track in seconds, float64 `(tracks,)`.
    """
    n_frames = np.maximum(seconds * spec.frame_rate, 1)
    return n_frames * spec.bins * np.dtype(spec.dtype).itemsize * cost(spec).compressed


def _lengths(dataset: Dataset, tracks: pa.Table, stores: Sequence[Store]) -> np.ndarray:
    """Return the length of each track in seconds, float64 `(tracks,)`, as a store has recorded it or as estimated."""
    past = pa.concat_tables([manifest.history(store, _DURATION_COLUMNS) for store in (*stores, *siblings(stores[0]))])
    past = past.filter(past["duration_s"].is_valid())
    rows = Lookup(past["track_id"]).rows(tracks["track_id"])
    unknown = rows < 0
    seconds = estimated_seconds(tracks, tracks["size"].combine_chunks())
    seconds *= probe.length_correction(dataset, tracks, np.flatnonzero(unknown))
    seconds[~unknown] = past["duration_s"].to_numpy()[rows[~unknown]]
    return seconds


def _free_bytes(stores: Iterable[Place]) -> int | None:
    """Return the free space of the disk with the least of it that holds a store; None if all are at a URL."""
    paths = [path.absolute() for path in stores if isinstance(path, Path)]
    folders = {next(folder for folder in path.parents if folder.exists()) for path in paths}
    return min((shutil.disk_usage(folder).free for folder in folders), default=None)
