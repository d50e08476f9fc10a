"""Shard files: a Zarr v3 group with one array `(frame, bin)` that holds the frames of a few dozen tracks.

Any Zarr reader can open a shard. xarray converts stored integers to dB by the CF attributes `scale_factor` and
`add_offset`.
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
from mgc.pipeline.features.spec import Clipped

#: Size limit of one data file in bytes before compression. Frames are written file by file, which bounds the memory.
DATA_FILE_BYTES = 32_000_000
#: Seconds of audio in an inner chunk, at most. Most datasets consist of 30 s clips, so reading one decodes little else.
CHUNK_SECONDS = 30
#: Frames in an inner chunk of a feature with one frame per track.
CHUNK_TRACKS = 64

# zarrs writes inner chunks in the order in which its threads finish. With more than one, bytes differ between runs.
_WRITE = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1}
_READ = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}
# A fork copies none of zarrs's threads, and its next call would wait for them for ever. zarr's own codecs read in
# children of a fork, such as the workers of a PyTorch DataLoader; they take half as long again.
_READ_FORKED = {"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}
_IMPORTED_IN = os.getpid()
_NO_CHUNK = 2**64 - 1  # size of a chunk that was never written, in the index of a data file


def chunk_frames(spec: FeatureSpec) -> int:
    """Return the number of frames in an inner chunk: the largest power of two within `CHUNK_SECONDS`."""
    if not spec.frame_rate:
        return CHUNK_TRACKS
    return 2 ** int(math.log2(max(1.0, CHUNK_SECONDS * spec.frame_rate)))


def data_file_frames(spec: FeatureSpec) -> int:
    """Return the number of frames in a data file: as many inner chunks as fit in `DATA_FILE_BYTES`, at least one."""
    chunk = chunk_frames(spec)
    return chunk * max(1, DATA_FILE_BYTES // (chunk * spec.bins * np.dtype(spec.dtype).itemsize))


class DamagedFrames(Exception):
    """A checksum of a data file does not match.

    Attributes:
        first: first frame that may be damaged.
        stop: end (exclusive) of the frames that may be damaged.
    """

    def __init__(self, problem: str, first: int, stop: int) -> None:
        self.first, self.stop = first, stop
        super().__init__(problem)


class ShardWriter:
    """Appends frames to a new shard. Memory holds one data file of frames, whatever the length of the tracks.

    Args:
        folder: directory of the Zarr group; must not exist.
        spec: feature that the frames belong to; decides the dtype and the number of bins.
    """

    def __init__(self, folder: Path, spec: FeatureSpec) -> None:
        self._spec = spec
        self._capacity = data_file_frames(spec)
        self._buffer = np.empty((self._capacity, spec.bins), spec.dtype)
        self._n_written = 0  # frames in finished data files
        self._n_buffered = 0  # frames in the buffer
        with zarr.config.set(_WRITE):
            group = zarr.create_group(str(folder), zarr_format=3)
            self._array = group.create_array(
                spec.name,
                shape=(0, spec.bins),
                dtype=spec.dtype,
                chunks=(chunk_frames(spec), spec.bins),
                shards=(self._capacity, spec.bins),
                # The CRC32C of each inner chunk is checked on every read.
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
        """Number of frames appended so far."""
        return self._n_written + self._n_buffered

    def append(self, rows: np.ndarray) -> Clipped:
        """Encode frames to the stored dtype and append them.

        Args:
            rows: frames, float32, `(n, bins)`.

        Returns:
            Numbers of values that were clipped to the range of the stored dtype.
        """
        saturated = Clipped()
        while len(rows):
            batch = rows[: self._capacity - self._n_buffered]
            encoded = self._buffer[self._n_buffered : self._n_buffered + len(batch)]
            saturated += Clipped.of(self._spec.encode(batch, encoded))
            self._n_buffered += len(batch)
            rows = rows[len(batch) :]
            if self._n_buffered == self._capacity:
                self._flush()
        return saturated

    def truncate(self, n_frames: int) -> None:
        """Keep the first `n_frames` frames and remove the others, such as those of a track that is decoded again."""
        first, buffered = divmod(n_frames, self._capacity)
        first *= self._capacity
        if first < self._n_written:
            self._buffer[:buffered] = self._array[first : first + buffered]
            self._n_written = first
            self._resize(first)
        self._n_buffered = buffered

    def close(self) -> None:
        """Write the frames that are still in the buffer. The shard is complete then."""
        if self._n_buffered:
            self._flush()

    def _flush(self) -> None:
        end = self._n_written + self._n_buffered
        self._resize(end)
        with zarr.config.set(_WRITE), _operating_system_errors():
            self._array[self._n_written : end] = self._buffer[: self._n_buffered]
        self._n_written, self._n_buffered = end, 0

    def _resize(self, n_frames: int) -> None:
        with zarr.config.set(_WRITE):
            self._array.resize((n_frames, self._spec.bins))


def read_frames(folder: Path, spec: FeatureSpec, first: int = 0, stop: int | None = None) -> np.ndarray:
    """Read frames `[first, stop)` of a shard and check the CRC32C of each inner chunk.

    Args:
        folder: directory of the Zarr group.
        spec: feature of the store.
        first: first frame.
        stop: end (exclusive); None, or a number beyond the last frame, reads to the end.

    Returns:
        Frames in the stored dtype, `(n, bins)`.

    Raises:
        DamagedFrames: a checksum does not match.
        Exception: zarr and zarrs raise errors of any type for damaged files. `Store.read` turns them into a
            `StoreError` that names the shard, its tracks and the remedy.
    """
    with zarr.config.set(_READ if os.getpid() == _IMPORTED_IN else _READ_FORKED):
        array = zarr.open_array(str(folder / spec.name), mode="r")
        stop = array.shape[0] if stop is None else min(stop, array.shape[0])
        _check_chunks(folder / spec.name, array, first, stop)
        return np.asarray(array[first:stop])


def _check_chunks(folder: Path, array: zarr.Array, first: int, stop: int) -> None:
    """Check the CRC32C of the inner chunks that hold frames `[first, stop)`.

    zarrs checks them only if it decodes a data file from end to end, which it never does with the last file of a shard.
    Elsewhere it returned wrong frames without an error for 298 of 301 flipped bits. The check takes a tenth of the time
    of reading.

    Raises:
        DamagedFrames: a checksum does not match.
    """
    assert array.shards is not None
    chunk, per_file = array.chunks[0], array.shards[0] // array.chunks[0]
    chunks = range(first // chunk, -(-stop // chunk))
    for file_number, group in itertools.groupby(chunks, key=lambda chunk: chunk // per_file):
        path = folder / "c" / str(file_number) / "0"
        if not path.exists():  # zarr writes no file for chunks that hold only zeros
            continue
        file_chunks = list(group)
        with path.open("rb") as file:
            # The index at the end: offset and size of each inner chunk, uint64 each, and a CRC32C.
            size = 16 * per_file + 4
            index = _read_checked(file, path.stat().st_size - size, size)
            if index is None:
                raise DamagedFrames(
                    f"{path}: the checksum of its index does not match",
                    file_chunks[0] * chunk,
                    (file_chunks[-1] + 1) * chunk,
                )
            entries = np.frombuffer(index, "<u8").reshape(-1, 2)
            for number in file_chunks:
                offset, size = map(int, entries[number % per_file])
                if size != _NO_CHUNK and _read_checked(file, offset, size) is None:
                    problem = f"{path}: a checksum does not match"
                    raise DamagedFrames(problem, number * chunk, (number + 1) * chunk)


def _read_checked(file: BinaryIO, offset: int, size: int) -> bytes | None:
    """Read `size` bytes whose last four are a CRC32C. Return the others, or None if it does not match them."""
    file.seek(max(0, offset))
    data = file.read(size - 4)
    return data if google_crc32c.value(data) == int.from_bytes(file.read(4), "little") else None


@contextlib.contextmanager
def _operating_system_errors() -> Iterator[None]:
    """Turn the RuntimeError that zarrs raises on a full disk, whose text ends in the error number, into an OSError."""
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
