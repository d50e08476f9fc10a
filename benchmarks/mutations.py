"""Seeded mutations of small audio files, for fuzzing. Used by `benchmarks/fuzz.py` and by the tests."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from random import Random

import numpy as np
import soundfile

SECONDS = 1.0
#: Healthy files: suffix, sample rate in Hz, channels, options of `soundfile.write`.
_HEALTHY = (
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
#: Byte sequences at the start of header structures in these containers.
_MARKERS = (b"RIFF", b"fmt ", b"data", b"fLaC", b"\xff\xf8", b"OggS", b"vorbis", b"OpusHead", b"\xff\xfb", b"Xing")
#: Number of bytes from a marker on in which headers are edited.
_HEADER = 36
#: Numbers at the limits of integer types, which parsers often mishandle.
_EDGE_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def healthy_files() -> list[tuple[str, bytes]]:
    """Encode small healthy files, MP3, Ogg, FLAC and WAV with several codecs, as (suffix, bytes)."""
    return [(suffix, _encode(suffix, rate, channels, settings)) for suffix, rate, channels, settings in _HEALTHY]


def _encode(suffix: str, rate: int, channels: int, settings: dict) -> bytes:
    """Encode a second of two sines with noise."""
    rng = np.random.default_rng(rate + channels)
    time = np.arange(round(SECONDS * rate)) / rate
    sound = [0.3 * np.sin(2 * np.pi * pitch * time) + 0.05 * rng.standard_normal(len(time)) for pitch in (330, 495)]
    file = io.BytesIO()
    soundfile.write(
        file, np.stack(sound[:channels], axis=1).astype(np.float32), rate, format=suffix.upper(), **settings
    )
    return file.getvalue()


def mutate(pool: list[tuple[str, bytes]], seed: int) -> tuple[str, bytes]:
    """Draw a file from the pool and damage it by one to three mutations.

    Args:
        pool: healthy files as (suffix, bytes).
        seed: seed of all random choices.

    Returns:
        The file's name, which holds the seed and the mutations, and its bytes.
    """
    rng = Random(seed)
    suffix, healthy = rng.choice(pool)
    data = bytearray(healthy)
    names = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        mutation = rng.choice(MUTATIONS)
        mutation(data, rng, pool)
        names.append(mutation.__name__)
    if data[:4] == b"OggS" and rng.random() < 0.5:
        reseal(data)
        names.append("reseal")
    return f"{seed:07d}-{'-'.join(names)}.{suffix}", bytes(data)


def flip_bits(data: bytearray, rng: Random, pool: list) -> None:
    """Flip up to 300 random bits."""
    for _ in range(rng.choice((1, 3, 30, 300)) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def zero_run(data: bytearray, rng: Random, pool: list) -> None:
    """Set a run of bytes to zero."""
    first, stop = _span(data, rng)
    data[first:stop] = bytes(stop - first)


def truncate(data: bytearray, rng: Random, pool: list) -> None:
    """Cut the file off, in half of the cases within its first 64 bytes."""
    del data[rng.choice((rng.randrange(64), rng.randrange(1 + len(data)))) :]


def remove(data: bytearray, rng: Random, pool: list) -> None:
    """Remove a run of bytes."""
    first, stop = _span(data, rng)
    del data[first:stop]


def insert(data: bytearray, rng: Random, pool: list) -> None:
    """Insert random bytes, zeros, 0xFF bytes or a copy of another part, half of the time at the start of the file."""
    first, stop = _span(data, rng)
    fillings = rng.randbytes(stop - first), bytes(stop - first), bytes(data[first:stop]), b"\xff" * (stop - first)
    offset = rng.choice((0, rng.randrange(1 + len(data))))
    data[offset:offset] = rng.choice(fillings)


def overwrite(data: bytearray, rng: Random, pool: list) -> None:
    """Overwrite a run of bytes with random ones."""
    first, stop = _span(data, rng)
    data[first:stop] = rng.randbytes(stop - first)


def swap_blocks(data: bytearray, rng: Random, pool: list) -> None:
    """Exchange two blocks of random length."""
    a, b, c, d = sorted(rng.randrange(1 + len(data)) for _ in range(4))
    data[a:d] = data[c:d] + data[b:c] + data[a:b]


def edit_header(data: bytearray, rng: Random, pool: list) -> None:
    """Write numbers of 1, 2, 4 or 8 bytes, half of them edge cases, behind a marker or into the first 200 bytes."""
    starts = [offset for marker in _MARKERS for offset in _occurrences(data, marker)]
    start = rng.choice(starts) if starts and rng.random() < 0.8 else 0
    for _ in range(rng.choice((1, 1, 2, 4))):
        offset = start + rng.randrange(_HEADER if start else 200)
        form = rng.choice(("<B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
        size = struct.calcsize(form)
        if offset + size <= len(data):
            number = rng.choice((rng.choice(_EDGE_NUMBERS), rng.randrange(1 << 8 * size)))
            struct.pack_into(form, data, offset, number % (1 << 8 * size))


def concatenate(data: bytearray, rng: Random, pool: list) -> None:
    """Put another file of the pool, or a part of it, before or behind the data."""
    other = bytearray(rng.choice(pool)[1])
    if rng.random() < 0.5:
        first, stop = _span(other, rng)
        other = other[first:stop]
    offset = rng.choice((0, len(data)))
    data[offset:offset] = other


#: Mutations to draw from, headers twice as often. They change `data` in place.
MUTATIONS: tuple[Callable[[bytearray, Random, list], None], ...] = (
    flip_bits, zero_run, truncate, remove, insert, overwrite, swap_blocks, edit_header, edit_header, concatenate,
)  # fmt: skip


def _span(data: bytearray, rng: Random) -> tuple[int, int]:
    """Draw the first and the end byte of a run, from one byte to a third of the file long."""
    length = min(len(data), rng.choice((1, 16, 500, 5000, 1 + len(data) // 3)))
    first = rng.randrange(1 + len(data) - length)
    return first, first + length


def _occurrences(data: bytearray, marker: bytes) -> list[int]:
    """Offsets of the first twelve occurrences of a marker."""
    offsets: list[int] = []
    offset = data.find(marker)
    while offset >= 0 and len(offsets) < 12:
        offsets.append(offset)
        offset = data.find(marker, offset + 1)
    return offsets


def reseal(data: bytearray) -> None:
    """Recompute the checksums of Ogg pages in place; decoders skip a page with a wrong one, and with it the damage."""
    page = data.find(b"OggS")
    while page >= 0:
        lacing = page + 27 + data[page + 26] if page + 27 <= len(data) else len(data)
        stop = lacing + sum(data[page + 27 : lacing])
        if stop <= len(data):
            data[page + 22 : page + 26] = bytes(4)
            data[page + 22 : page + 26] = _ogg_crc(data[page:stop]).to_bytes(4, "little")
        page = data.find(b"OggS", page + 1)


def _ogg_crc(page: bytes) -> int:
    """CRC-32 of an Ogg page: polynomial 0x04C11DB7, initial value 0, no reflection (RFC 3533, section 6)."""
    crc = 0
    for byte in page:
        crc = (crc << 8 & 0xFFFFFFFF) ^ _CRC[crc >> 24 ^ byte]
    return crc


def _crc_entry(byte: int) -> int:
    """Entry of the CRC table for one byte."""
    crc = byte << 24
    for _ in range(8):
        crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


_CRC = tuple(map(_crc_entry, range(256)))
