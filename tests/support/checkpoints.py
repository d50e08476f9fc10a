"""Checkpoints of TensorFlow 1 and wheels, written byte by byte, without the code that reads them."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

MAGIC = 0xDB4775248B80FB57


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit: the polynomial of Castagnoli, reflected."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def block(entries: Sequence[tuple[bytes, bytes]], *, kind: int = 0, restarts: int | None = None) -> bytes:
    """A block of a table with its trailer; keys share prefixes with the one before."""
    body, last = b"", b""
    for key, value in entries:
        shared = next((i for i, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last)))
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    body += struct.pack("<I", 0) + struct.pack("<I", 1 if restarts is None else restarts)
    return body + bytes([kind]) + struct.pack("<I", masked(body + bytes([kind])))


def table(blocks: Sequence[bytes]) -> bytes:
    """A table of data blocks: an index block that names their places, and a footer."""
    file, places = b"", []
    for number, one in enumerate(blocks):
        places.append((bytes([number, 0xFF]), varint(len(file)) + varint(len(one) - 5)))
        file += one
    filters, index = block([]), block(places)
    footer = varint(len(file)) + varint(len(filters) - 5)
    footer += varint(len(file) + len(filters)) + varint(len(index) - 5)
    return file + filters + index + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def entry(shape: Sequence[int], offset: int, data: bytes, *, dtype: int = 1, shard: int = 0) -> bytes:
    """A `BundleEntryProto`."""
    axes = b"".join(b"\x12" + varint(len(axis := b"\x08" + varint(size))) + axis for size in shape)
    message = b"\x08" + varint(dtype) + b"\x12" + varint(len(axes)) + axes
    message += (b"\x18" + varint(shard) if shard else b"") + (b"\x20" + varint(offset) if offset else b"")
    return message + b"\x28" + varint(len(data)) + b"\x35" + struct.pack("<I", masked(data))


def checkpoint(tensors: Mapping[str, np.ndarray]) -> tuple[bytes, bytes]:
    """The `.index` and `.data` of float32 tensors, in two blocks."""
    data, entries = b"", [(b"", b"\x08\x01\x1a\x02\x08\x01")]
    for name in sorted(tensors):
        raw = tensors[name].astype("<f4").tobytes()
        entries.append((name.encode(), entry(tensors[name].shape, len(data), raw)))
        data += raw
    half = len(entries) // 2
    return table([block(entries[:half]), block(entries[half:])]), data


def wheel(name: str, files: Mapping[str, bytes], version: str = "1.0") -> bytes:
    """Bytes of a wheel `NAME-VERSION-py3-none-any.whl`, whose requirements no index has."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: never-{name} (>=9)\n"
    about = {
        "METADATA": metadata.encode(),
        "WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "LICENSE.md": b"Anyone may do anything.\n",
        "RECORD": b"",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in {
            **files,
            **{f"{name}-{version}.dist-info/{key}": text for key, text in about.items()},
        }.items():
            archive.writestr(zipfile.ZipInfo(path), content)
    return out.getvalue()
