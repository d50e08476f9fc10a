"""One shard on disk: a Zarr v3 group with one array `(frame, bin)` of the frames of a few dozen tracks.

Any Zarr reader can open it; CF attributes (`scale_factor`, `add_offset`) let xarray show dB by itself.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import zarr
import zarr.codecs
import zarrs  # noqa: F401  registers the Rust codec pipeline

from mgc.pipeline.features import FeatureSpec, Stats

#: Raw bytes of one data file at most. A long track is appended file by file, so memory stays bounded.
DATA_FILE_BYTES = 32_000_000
#: A 30 s clip, the unit of the field, fills about one inner chunk: partial reads decode little else.
CHUNK_SECONDS = 30
#: Frames of an inner chunk where a track is one frame.
CHUNK_TRACKS = 64

# zarrs writes inner chunks in the order its threads finish them: one thread, or bytes differ from run to run.
_WRITE = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1}
_READ = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}
_NO_CHUNK = 2**64 - 1  # in the index of a data file: nothing was written


def chunk_frames(spec: FeatureSpec) -> int:
    """Frames of an inner chunk: the power of two below 30 seconds."""
    if not spec.frame_rate:
        return CHUNK_TRACKS
    return 2 ** int(math.log2(max(1.0, CHUNK_SECONDS * spec.frame_rate)))


def data_file_frames(spec: FeatureSpec) -> int:
    """Frames of a data file: as many inner chunks as fit in 32 MB."""
    chunk = chunk_frames(spec)
    return chunk * max(1, DATA_FILE_BYTES // (chunk * spec.bins * np.dtype(spec.dtype).itemsize))


class DamagedFrames(Exception):
    """Stored frames that are not those that were written.

    Attributes:
        what: what is wrong with them, and in which file.
        first: the first frame that may be damaged.
        stop: the one behind the last.
    """

    def __init__(self, what: str, first: int, stop: int) -> None:
        self.what, self.first, self.stop = what, first, stop
        super().__init__(what)


class ShardWriter:
    """Appends frames to a new shard. Holds one data file of frames in memory, whatever the length of the tracks.

    Args:
        folder: where the group goes; must not exist.
        spec: the feature the frames are of.
    """

    def __init__(self, folder: Path, spec: FeatureSpec) -> None:
        self._spec = spec
        self._capacity = data_file_frames(spec)
        self._buffer = np.empty((self._capacity, spec.bins), spec.dtype)
        self._written = 0  # frames in finished data files
        self._held = 0  # frames in the buffer
        with zarr.config.set(_WRITE):
            group = zarr.create_group(str(folder), zarr_format=3)
            self._array = group.create_array(
                spec.name,
                shape=(0, spec.bins),
                dtype=spec.dtype,
                chunks=(chunk_frames(spec), spec.bins),
                shards=(self._capacity, spec.bins),
                # CRC32C per inner chunk, checked on every read.
                compressors=[
                    zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle=zarr.codecs.BloscShuffle.bitshuffle),
                    zarr.codecs.Crc32cCodec(),
                ],
                fill_value=0,
                dimension_names=("frame", "bin"),
                attributes=_attributes(spec),
            )

    @property
    def n_frames(self) -> int:
        """Frames appended so far."""
        return self._written + self._held

    def append(self, rows: np.ndarray) -> int:
        """Append float32 frames `(n, bins)`; how many of their values were outside the range of the stored dtype."""
        saturated = 0
        while len(rows):
            taken = rows[: self._capacity - self._held]
            saturated += self._spec.encode(taken, self._buffer[self._held : self._held + len(taken)])
            self._held += len(taken)
            rows = rows[len(taken) :]
            if self._held == self._capacity:
                self._flush()
        return saturated

    def truncate(self, n_frames: int) -> None:
        """Forget all frames from `n_frames` on: a decoder gave up and another one starts the track afresh."""
        first, held = divmod(n_frames, self._capacity)
        first *= self._capacity
        if first < self._written:
            self._buffer[:held] = self._array[first : first + held]
            self._written = first
            self._resize(first)
        self._held = held

    def close(self) -> None:
        """Write what is left; the shard is complete."""
        if self._held:
            self._flush()

    def _flush(self) -> None:
        end = self._written + self._held
        self._resize(end)
        with zarr.config.set(_WRITE), _operating_system_errors():
            self._array[self._written : end] = self._buffer[: self._held]
        self._written, self._held = end, 0

    def _resize(self, n_frames: int) -> None:
        with zarr.config.set(_WRITE):
            self._array.resize((n_frames, self._spec.bins))


def read_frames(folder: Path, spec: FeatureSpec, first: int = 0, stop: int | None = None) -> np.ndarray:
    """Stored frames `[first, stop)` of a shard, in the stored dtype, `(n, bins)`; each chunk's CRC32C is checked.

    Raises:
        DamagedFrames: a checksum does not match.
        Exception: whatever zarr raises where the shard is damaged; `Store.read` names shard, tracks and remedy.
    """
    with zarr.config.set(_READ):
        array = zarr.open_array(str(folder / spec.name), mode="r")
        stop = array.shape[0] if stop is None else min(stop, array.shape[0])
        _check_chunks(folder / spec.name, array, first, stop)
        return np.asarray(array[first:stop])


def _check_chunks(folder: Path, array: zarr.Array, first: int, stop: int) -> None:
    """Hold the inner chunks of frames `[first, stop)` against their CRC32C.

    zarrs does so only where it decodes a data file from end to end; the last one of a shard it never does. Elsewhere it
    returned other frames without a word for 298 of 301 bits flipped. This costs a tenth of the reading.

    Raises:
        DamagedFrames: one does not match.
    """
    assert array.shards is not None
    chunk, per_file = array.chunks[0], array.shards[0] // array.chunks[0]
    chunks = range(first // chunk, -(-stop // chunk))
    for number, mine in itertools.groupby(chunks, key=lambda chunk: chunk // per_file):
        path = folder / "c" / str(number) / "0"
        if not path.exists():  # zarr writes no chunks of nothing but zeros
            continue
        held = list(mine)
        with path.open("rb") as file:
            size = 16 * per_file + 4
            index = _checked(file, path.stat().st_size - size, size)
            if index is None:
                raise DamagedFrames(
                    f"{path}: the checksum of its index does not match", held[0] * chunk, (held[-1] + 1) * chunk
                )
            entries = np.frombuffer(index, "<u8").reshape(-1, 2)
            for chunk_number in held:
                offset, size = map(int, entries[chunk_number % per_file])
                if size != _NO_CHUNK and _checked(file, offset, size) is None:
                    damage = f"{path}: a checksum does not match"
                    raise DamagedFrames(damage, chunk_number * chunk, (chunk_number + 1) * chunk)


def _checked(file: BinaryIO, offset: int, size: int) -> bytes | None:
    """Bytes of a file without the CRC32C at their end; None where it does not match."""
    file.seek(max(0, offset))
    data = file.read(size - 4)
    return data if google_crc32c.value(data) == int.from_bytes(file.read(4), "little") else None


@contextlib.contextmanager
def _operating_system_errors() -> Iterator[None]:
    """zarrs reports a full disk as a RuntimeError that ends in the error's number; make it an OSError again."""
    try:
        yield
    except RuntimeError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def _attributes(spec: FeatureSpec) -> dict[str, Any]:
    attributes: dict[str, Any] = {"feature": spec.as_dict(), "frame_rate_hz": spec.frame_rate}
    if spec.quantised:
        attributes |= {"units": spec.units, "scale_factor": spec.scale, "add_offset": spec.offset}
    if isinstance(spec, Stats):
        attributes["columns"] = [".".join(column) for column in spec.columns]
    return attributes
