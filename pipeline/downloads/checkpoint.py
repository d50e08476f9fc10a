"""Checkpoints of TensorFlow 1, read without TensorFlow: a sorted table that lists tensors, and a file of their bytes.

The table (`.index`) is LevelDB's: blocks of entries whose keys share prefixes, an index block, and a footer. Its keys
are names of tensors, its values `BundleEntryProto` (tensorflow/core/protobuf/tensor_bundle.proto), which give type,
shape, place and CRC-32C of each tensor in the data file (`.data-00000-of-00001`). Every length is checked before it is
used, and the checksums of blocks and tensors are compared. Only what these checkpoints need is read: blocks without
compression, one data file, float32.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import google_crc32c
import numpy as np

from mgc.pipeline.errors import DatasetError

#: Length and last eight bytes of a table's footer, and the length of what follows a block: its type and checksum.
_FOOTER, _MAGIC, _TRAILER = 48, 0xDB4775248B80FB57, 5
#: `DataType` of float32 in TensorFlow.
_FLOAT32 = 1
#: Wire types of protocol buffers.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _DamageError(Exception):
    """What is wrong with a checkpoint."""


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor of float32 lies in the data file.

    Attributes:
        shape: its axes.
        offset: its first byte.
        size: its length in bytes.
        crc: masked CRC-32C of its bytes.
    """

    shape: tuple[int, ...]
    offset: int
    size: int
    crc: int


def read_checkpoint(index: bytes, data: bytes, names: Collection[str], label: str) -> dict[str, np.ndarray]:
    """Read tensors of a checkpoint.

    Args:
        index: bytes of the `.index` file.
        data: bytes of the only `.data` file.
        names: names of the tensors to read; the checkpoint may hold others, such as the moments of an optimiser.
        label: name of the checkpoint, for error messages.

    Returns:
        float32 arrays by name.

    Raises:
        DatasetError: a file is damaged or of another kind, or a tensor is missing.
    """
    try:
        entries = dict(_table(index))
        missing = [name for name in names if name.encode() not in entries]
        if missing:
            raise _DamageError(f"it has no tensor {missing[0]}")
        return {name: _tensor(data, _entry(entries[name.encode()]), name) for name in names}
    except _DamageError as error:
        raise DatasetError(f"{label} is no checkpoint that can be read: {error}", "download it again") from None


def _tensor(data: bytes, entry: TensorEntry, name: str) -> np.ndarray:
    raw = data[entry.offset : entry.offset + entry.size]
    if entry.size != 4 * math.prod(entry.shape) or len(raw) != entry.size:
        shape = "×".join(map(str, entry.shape))
        raise _DamageError(f"{name} ({shape}) has {len(raw):,} bytes at {entry.offset:,}, not {entry.size:,}")
    if _masked_crc(raw) != entry.crc:
        raise _DamageError(f"the checksum of {name} is wrong")
    return np.frombuffer(raw, "<f4").astype(np.float32).reshape(entry.shape)


def _masked_crc(data: bytes) -> int:
    """CRC-32C as LevelDB stores it: turned by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# -- table -----------------------------------------------------------------------------------------------------------


def _table(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a table."""
    if len(file) < _FOOTER or struct.unpack("<Q", file[-8:])[0] != _MAGIC:
        raise _DamageError(f"its index of {len(file):,} bytes does not end like a table")
    footer = file[-_FOOTER:]
    _, position = _handle(footer, 0)  # of the block of filters, which is empty
    handle, _ = _handle(footer, position)
    for _, value in _block(file, *handle):
        block, _ = _handle(value, 0)
        yield from _block(file, *block)


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Read offset and size of a block; return them and the position behind."""
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return (offset, size), position


def _block(file: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block."""
    whole = file[offset : offset + size + _TRAILER]
    if len(whole) != size + _TRAILER or size < 4:
        raise _DamageError(f"its index ends inside of the block at {offset:,}")
    block, kind, crc = whole[:size], whole[size], struct.unpack("<I", whole[size + 1 :])[0]
    if kind != 0:
        raise _DamageError(f"the block of its index at {offset:,} is compressed (type {kind})")
    if _masked_crc(whole[: size + 1]) != crc:
        raise _DamageError(f"the checksum of the block of its index at {offset:,} is wrong")
    n_restarts = struct.unpack("<I", block[-4:])[0]
    end = size - 4 - 4 * n_restarts
    if end < 0:
        raise _DamageError(f"the block of its index at {offset:,} has {n_restarts:,} restarts in {size:,} bytes")
    key, position = b"", 0
    while position < end:
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        length, position = _varint(block, position)
        if shared > len(key) or position + unshared + length > end:
            raise _DamageError(f"an entry of the block of its index at {offset:,} is too long")
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Read a number of 7 bits a byte, at most 64 bits; return it and the position behind."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _DamageError("a number in its index has no end")


# -- entries ---------------------------------------------------------------------------------------------------------


def _entry(message: bytes) -> TensorEntry:
    """Read a `BundleEntryProto`: 1 dtype, 2 shape, 3 shard, 4 offset, 5 size, 6 CRC-32C, 7 slices."""
    values = dict(_fields(message))
    if values.get(1) != _FLOAT32 or values.get(3, 0) != 0 or 7 in values:
        raise _DamageError(f"a tensor is of type {values.get(1)!r} in file {values.get(3, 0)!r}, not float32 in file 0")
    shape = values.get(2, b"")
    offset, size, crc = values.get(4, 0), values.get(5, 0), values.get(6, 0)
    if not isinstance(shape, bytes) or isinstance(offset, bytes) or isinstance(size, bytes) or isinstance(crc, bytes):
        raise _DamageError("an entry of its index has another form")
    return TensorEntry(tuple(_axes(shape)), offset, size, crc)


def _axes(message: bytes) -> Iterator[int]:
    """Yield the sizes of a `TensorShapeProto`: 2 axis, each with 1 size."""
    for field, axis in _fields(message):
        if field != 2 or not isinstance(axis, bytes):
            raise _DamageError("a shape in its index has another form")
        sizes = [value for number, value in _fields(axis) if number == 1]
        size = sizes[0] if sizes else 0
        if isinstance(size, bytes) or size >= 1 << 32:
            raise _DamageError("a shape in its index has another form")
        yield size


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a message."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == _VARINT:
            number, position = _varint(message, position)
            yield tag >> 3, number
            continue
        if kind == _BYTES:
            length, position = _varint(message, position)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise _DamageError(f"an entry of its index has a field of kind {kind}")
        raw = message[position : position + length]
        if len(raw) != length:
            raise _DamageError("an entry of its index is cut off")
        position += length
        yield tag >> 3, raw if kind == _BYTES else int.from_bytes(raw, "little")
