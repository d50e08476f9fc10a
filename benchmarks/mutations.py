"""Audio files to be damaged, and the damage: everything follows from seeds.

Used by `benchmarks/fuzz.py` and by the tests.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from random import Random

import numpy as np
import soundfile

SECONDS = 1.0
#: (suffix, rate, channels, settings of libsndfile).
_SEEDS = (
    ("mp3", 44100, 2, {"bitrate_mode": "CONSTANT"}),
    ("mp3", 22050, 1, {"bitrate_mode": "VARIABLE"}),
    ("ogg", 44100, 2, {}),
    ("ogg", 48000, 1, {"subtype": "OPUS"}),
    ("flac", 44100, 2, {}),
    ("flac", 22050, 1, {"subtype": "PCM_24"}),
    ("wav", 22050, 2, {"subtype": "PCM_16"}),
    ("wav", 44100, 1, {"subtype": "FLOAT"}),
    ("wav", 22050, 2, {"subtype": "MS_ADPCM"}),
)
#: What the structures of these containers begin with.
_MARKS = (b"RIFF", b"fmt ", b"data", b"fLaC", b"\xff\xf8", b"OggS", b"vorbis", b"OpusHead", b"\xff\xfb", b"Xing")
#: How far behind a mark an edit goes.
_HEADER = 36
#: Numbers that readers trip over.
_ODD = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def seeds() -> list[tuple[str, bytes]]:
    """Small healthy files: MP3, Ogg, FLAC and WAV by several codecs, as (suffix, bytes)."""
    return [(suffix, _written(suffix, rate, channels, settings)) for suffix, rate, channels, settings in _SEEDS]


def _written(suffix: str, rate: int, channels: int, settings: dict) -> bytes:
    rng = np.random.default_rng(rate + channels)
    time = np.arange(round(SECONDS * rate)) / rate
    sound = [0.3 * np.sin(2 * np.pi * pitch * time) + 0.05 * rng.standard_normal(len(time)) for pitch in (330, 495)]
    file = io.BytesIO()
    soundfile.write(
        file, np.stack(sound[:channels], axis=1).astype(np.float32), rate, format=suffix.upper(), **settings
    )
    return file.getvalue()


def mutated(pool: list[tuple[str, bytes]], seed: int) -> tuple[str, bytes]:
    """One damaged file, (name, bytes): a file of the pool after one to three mutations, drawn from the seed."""
    rng = Random(seed)
    suffix, healthy = rng.choice(pool)
    data = bytearray(healthy)
    names = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        kind = rng.choice(KINDS)
        kind(data, rng, pool)
        names.append(kind.__name__)
    if data[:4] == b"OggS" and rng.random() < 0.5:
        reseal(data)
        names.append("reseal")
    return f"{seed:07d}-{'-'.join(names)}.{suffix}", bytes(data)


def flip_bits(data: bytearray, rng: Random, pool: list) -> None:
    for _ in range(rng.choice((1, 3, 30, 300)) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def zero_run(data: bytearray, rng: Random, pool: list) -> None:
    first, stop = _span(data, rng)
    data[first:stop] = bytes(stop - first)


def truncate(data: bytearray, rng: Random, pool: list) -> None:
    del data[rng.choice((rng.randrange(64), rng.randrange(1 + len(data)))) :]


def remove(data: bytearray, rng: Random, pool: list) -> None:
    first, stop = _span(data, rng)
    del data[first:stop]


def insert(data: bytearray, rng: Random, pool: list) -> None:
    first, stop = _span(data, rng)
    foreign = rng.randbytes(stop - first), bytes(stop - first), bytes(data[first:stop]), b"\xff" * (stop - first)
    at = rng.choice((0, rng.randrange(1 + len(data))))
    data[at:at] = rng.choice(foreign)


def overwrite(data: bytearray, rng: Random, pool: list) -> None:
    first, stop = _span(data, rng)
    data[first:stop] = rng.randbytes(stop - first)


def swap_blocks(data: bytearray, rng: Random, pool: list) -> None:
    a, b, c, d = sorted(rng.randrange(1 + len(data)) for _ in range(4))
    data[a:d] = data[c:d] + data[b:c] + data[a:b]


def edit_header(data: bytearray, rng: Random, pool: list) -> None:
    """Write an odd number of 1, 2, 4 or 8 bytes behind one of the marks, or anywhere in the first 200 bytes."""
    starts = [at for mark in _MARKS for at in _places(data, mark)]
    start = rng.choice(starts) if starts and rng.random() < 0.8 else 0
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = start + rng.randrange(_HEADER if start else 200)
        form = rng.choice(("<B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
        size = struct.calcsize(form)
        if at + size <= len(data):
            number = rng.choice((rng.choice(_ODD), rng.randrange(1 << 8 * size)))
            struct.pack_into(form, data, at, number % (1 << 8 * size))


def concatenate(data: bytearray, rng: Random, pool: list) -> None:
    """Another file, or a part of it, before or behind."""
    other = bytearray(rng.choice(pool)[1])
    if rng.random() < 0.5:
        first, stop = _span(other, rng)
        other = other[first:stop]
    at = rng.choice((0, len(data)))
    data[at:at] = other


KINDS: tuple[Callable[[bytearray, Random, list], None], ...] = (
    flip_bits, zero_run, truncate, remove, insert, overwrite, swap_blocks, edit_header, edit_header, concatenate,
)  # fmt: skip


def _span(data: bytearray, rng: Random) -> tuple[int, int]:
    """A stretch of a few bytes to a good part of the file."""
    length = min(len(data), rng.choice((1, 16, 500, 5000, 1 + len(data) // 3)))
    first = rng.randrange(1 + len(data) - length)
    return first, first + length


def _places(data: bytearray, mark: bytes) -> list[int]:
    """Where a mark stands, a dozen times at most."""
    found: list[int] = []
    at = data.find(mark)
    while at >= 0 and len(found) < 12:
        found.append(at)
        at = data.find(mark, at + 1)
    return found


def reseal(data: bytearray) -> None:
    """Make the checksums of Ogg pages right again: decoders look no further into a page whose checksum is wrong."""
    at = data.find(b"OggS")
    while at >= 0:
        lacing = at + 27 + data[at + 26] if at + 27 <= len(data) else len(data)
        stop = lacing + sum(data[at + 27 : lacing])
        if stop <= len(data):
            data[at + 22 : at + 26] = bytes(4)
            data[at + 22 : at + 26] = _ogg_crc(data[at:stop]).to_bytes(4, "little")
        at = data.find(b"OggS", at + 1)


def _ogg_crc(page: bytes) -> int:
    """CRC-32 with polynomial 0x04C11DB7, from zero, nothing reflected (RFC 3533, section 6)."""
    crc = 0
    for byte in page:
        crc = (crc << 8 & 0xFFFFFFFF) ^ _CRC[crc >> 24 ^ byte]
    return crc


def _crc_entry(byte: int) -> int:
    crc = byte << 24
    for _ in range(8):
        crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


_CRC = tuple(map(_crc_entry, range(256)))
